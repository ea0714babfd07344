"""The kernels compiled for GPUs that are not there; the reading of machine code on a listing made by hand."""

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from l2e.benchmarks.compiled_kernels import MachineCode, load_bits
from l2e.benchmarks.kernel_code import KernelCodeConfig

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@cache
def counted(target: int) -> dict[str, Any]:
    """In a process of its own: this one may interpret Triton's kernels, and then none is compiled."""
    plain = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "l2e.benchmarks.kernel_code", f"target={target}", 'types=["bf16"]']
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_triton
@pytest.mark.parametrize("target", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_a_compiler_takes_every_kernel_and_memory_is_what_bounds_it(target: int) -> None:
    """The logarithm that once stood in the loop of `look` made it 2.4 times as long to issue as to load."""
    results = counted(target)["results"]
    assert len(results) == 6
    for name, found in results.items():
        assert found["spilled_bytes"] == 0, name
        assert found["load_bits"] == 128, name
        assert found["programs_per_sm"] >= 4, name
        assert found["issue_ps"] < found["memory_ps"] or "random" in name, (name, found)


@needs_triton
def test_bytes_and_rates_by_hand() -> None:
    """pythia-70m: 32 sequences share a neuron's statistics. An H200 moves 4.8 TB/s and has 132 x 4 schedulers."""
    results = counted(90)["results"]
    bytes_moved = {
        "gather": 2 + 4 * 5 / 32,  # mean; two sums there and back
        "look": 2 + 4 * 6 / 32,  # and the inverse spread
        "look, deactivate": 2 + 2 + 1 + 4 * 6 / 32,
        "join": 6 + 4 * 2 / 32,
        "join, random": 6 + 4 * 2 / 32,
        "scale": 2 + 2 + 1,
    }
    for name, moved in bytes_moved.items():
        found = results[f"{name}, bf16"]
        assert found["memory_ps"] == pytest.approx(moved / 4.8, abs=6e-4)
        assert found["issue_ps"] == pytest.approx(1e12 * found["instructions"] / 32 / (528 * 1.83e9), abs=6e-4)


LISTING = """
    LDG.E R0, desc[UR4][R2.64]
    LDG.E.128 R8, desc[UR4][R20.64]
    @!P0 LDG.E.128 R4, desc[UR4][R24.64]
    @P1 LDGSTS.E.BYPASS.128 [R9], desc[UR4][R4.64], P1
    FADD R4, R4, R5
    @P1 BRA 0x20
    LDG.E.64 R2, desc[UR4][R8.64]
    @P2 BRA 0x60
    STG.E.128 desc[UR4][R2.64], R4
    EXIT
    BRA 0xa0
"""


def test_the_loop_that_reads_most_is_the_main_one() -> None:
    lines = [line.strip() for line in LISTING.strip().splitlines()]
    code = MachineCode(40, 0, [(16 * number, line) for number, line in enumerate(lines)])
    assert code.main_loop() == lines[2:6]
    assert code.around_loops() == [*lines[:2], *lines[8:]]
    assert load_bits(lines) == [32, 128, 128, 128, 64]
    assert MachineCode(40, 0, code.instructions[8:]).main_loop() == []


@needs_triton
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 70}, "target must be one of 80, 90, not 70"),
        ({"model": "tiny"}, "model must be one of pythia-70m, pythia-410m, pythia-2.8b, not tiny"),
        ({"types": ["bf16", "fp8"]}, "types must be one of fp32, bf16, fp16, not fp8"),
        ({}, "with TRITON_INTERPRET=1 nothing is compiled: unset it"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match=message):
        KernelCodeConfig(**settings)

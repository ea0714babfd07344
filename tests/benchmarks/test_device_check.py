"""The GPU's check, on the CPU against itself; and that it would see a difference."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from l2e.benchmarks import device_check
from l2e.benchmarks.device_check import CASES, Case, difference
from l2e.inhibition.kernels import missing
from l2e.inhibition.moments import RunningMoments

ROOT = Path(__file__).parents[2]


SLOW = pytest.mark.slow  # bf16 is emulated on many CPUs: 20 s
ALL = [pytest.param(case, id=case.name, marks=SLOW if case.dtype == torch.bfloat16 else ()) for case in CASES]


@pytest.mark.parametrize("case", ALL)
def test_a_device_equals_itself_and_selects(case: Case) -> None:
    assert difference(case, torch.device("cpu")) == 0
    _, metrics = device_check.train(case, torch.device("cpu"))
    assert case.name == "none" or all(value > 0 for key, value in metrics.items() if key.endswith("selected"))


def test_a_wrong_result_on_the_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the two trainings is the device's: spoil its variances by one percent."""
    train, merge = device_check.train, RunningMoments.merge
    calls = []

    def spoiled(case: Case, device: torch.device) -> object:
        calls.append(case)
        if len(calls) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(RunningMoments, "merge", lambda self, b, m, v: merge(self, b, m, 1.01 * v))
                return train(case, device)
        return train(case, device)

    monkeypatch.setattr(device_check, "train", spoiled)
    case = next(case for case in CASES if case.name == "l2e")
    assert difference(case, torch.device("cpu")) > case.allowed


SMALL = {
    "KERNELS": "--shrink 128 --rounds 2",
    "HALF": "model=tiny micro_batch_size=2 seq_length=16 updates=10",
    "LOSS": "tokens=32 hidden=8 vocab_size=64 repeats=2",
    "TABLE2": 'models=["tiny"] micro_batch_size=2 seq_length=16 seconds=0',
    "ROUNDS": "1",
    "PYTHON": sys.executable,
}
MINUTES = {f"{part}_SECONDS": "400" for part in ("CORRECTNESS", "KERNELS", "HALF", "LOSS", "TABLE2")}


def run_script(folder: Path, **variables: str) -> int:
    command = [ROOT / "scripts" / "gpu_check.sh", folder]
    return subprocess.run(
        command, env={**os.environ, **SMALL, **MINUTES, **variables}, check=False, timeout=900
    ).returncode


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_script_runs_as_on_a_gpu(tmp_path: Path) -> None:
    assert run_script(tmp_path) == 0
    found = json.loads((tmp_path / "device-check.json").read_text())
    assert all(result["passed"] for result in found["results"].values())
    assert json.loads((tmp_path / "table2-cpu.json").read_text())["results"]["tiny"]["l2e"]["step_ratio"] > 0
    assert json.loads((tmp_path / "half-precision.json").read_text())["results"]["strength 0.01"]["strength"] > 0
    assert json.loads((tmp_path / "loss-heads.json").read_text())["results"]["chunks"]["error"] < 1e-2
    assert json.loads((tmp_path / "kernel-check.json").read_text())["results"]["passed"]
    parts = json.loads((tmp_path / "gpu-check.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(
        ("correctness", "kernels", "half-precision", "loss", "table2"), "done"
    )
    assert len(list(tmp_path.iterdir())) == 6


def test_a_part_that_runs_out_of_time_is_stopped_and_the_others_run(tmp_path: Path) -> None:
    """No part has time but the loss."""
    short = {f"{part}_SECONDS": "0.1" for part in ("CORRECTNESS", "KERNELS", "HALF", "TABLE2")}
    assert run_script(tmp_path, **short) == 1
    parts = json.loads((tmp_path / "gpu-check.json").read_text())["parts"]
    assert [part["status"] for part in parts.values()] == ["failed with exit code 124"] * 3 + ["done"] + [
        "failed with exit code 124"
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"gpu-check.json", "loss-heads.json"}


def test_the_parts_end_within_nine_minutes() -> None:
    script = (ROOT / "scripts" / "gpu_check.sh").read_text()
    limits = [int(limit) for limit in re.findall(r"_SECONDS:-(\d+)", script)]
    assert len(limits) == 5
    assert sum(limits) <= 9 * 60 - 10
    assert float(re.findall(r"TABLE2_MINUTES:-([\d.]+)", script)[0]) * 60 < limits[-1]

"""What the compiler makes of a tap's Triton kernels for a GPU that is not there.

    python -m l2e.benchmarks.kernel_code target=90 output=docs/results

Calls the kernels as a tap does, on outputs without data, compiles each launch for the target and reads the machine
code. Counted, not timed: nothing here knows how long a load is waited for. Ends with one line of JSON.

results, by launch and type:
    registers, spilled_bytes: of a thread; what the registers could not hold.
    programs_per_sm: that a multiprocessor has registers and threads for.
    load_bits: of the loads of the outputs.
    instructions: of a thread for one output, the loop and its share of what stands around it.
    issue_ps, memory_ps: for one output, if the whole device did nothing but issue these instructions, or move these
        bytes.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from l2e.benchmarks.arguments import run_from_arguments
from l2e.benchmarks.compiled_kernels import THREADS, MachineCode, compile_for, load_bits, recorded
from l2e.benchmarks.kernel_check import SHAPES
from l2e.benchmarks.report import versions, write_json
from l2e.errors import require
from l2e.inhibition.kernels import interpreted, load_triton
from l2e.inhibition.moments import ShiftedSums
from l2e.inhibition.rule import Rule
from l2e.inhibition.strength import Rounding
from l2e.models import DTYPES


@dataclass(frozen=True)
class Device:
    """A GPU of a target, by NVIDIA's data sheets; the clock is that of the dense bf16 peak."""

    name: str
    multiprocessors: int
    hertz: float
    bytes_per_second: float

    @property
    def warp_instructions_per_second(self) -> float:
        """Each of a multiprocessor's four schedulers issues one a clock, for 32 threads."""
        return 4 * self.multiprocessors * self.hertz


DEVICES = {80: Device("A100-80", 108, 1.41e9, 2.04e12), 90: Device("H200", 132, 1.83e9, 4.8e12)}


@dataclass(kw_only=True)
class KernelCodeConfig:
    """What is compiled, for what."""

    target: int = 90
    """Compute capability without its dot."""

    model: str = "pythia-70m"
    """Whose tapped outputs."""

    types: list[str] = field(default_factory=lambda: ["bf16", "fp16", "fp32"])
    """Of the outputs."""

    output: str | None = None
    """Folder for kernel-code-sm<target>.json."""

    def __post_init__(self) -> None:
        given: dict[str, tuple[list[Any], Any]] = {
            "target": ([self.target], DEVICES),
            "model": ([self.model], SHAPES),
            "types": (self.types, DTYPES),
        }
        for key, (values, known) in given.items():
            for value in values:
                require(value in known, key, f"one of {', '.join(map(str, known))}", value)
        if interpreted():
            raise ValueError("with TRITON_INTERPRET=1 nothing is compiled: unset it")
        if importlib.util.find_spec("triton") is None:
            raise ValueError("triton is not installed (pip install triton)")


class Outputs:
    """Outputs of a block, gradients and statistics, without their data."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        with torch.device("meta"):
            self.values, self.other = torch.empty(*shape, dtype=dtype), torch.empty(*shape, dtype=dtype)
            self.mask = torch.empty(*shape, dtype=torch.bool)
            self.mean, self.number = torch.empty(*shape[1:]), torch.empty(())
            self.sums = ShiftedSums(self.mean)
        self.rule = Rule(self.mean, self.mean, self.number)


@dataclass(frozen=True)
class Work:
    """One launch, and what it must do for one output."""

    launch: Callable[[Any, Outputs], object]
    """Called with `triton_ops`."""

    reads: int
    """Tensors of the outputs' shape and type that are read."""

    moves: int
    """Those that are read or written."""

    masks: int
    """Bytes of masks."""

    statistics: int
    """fp32 numbers of a neuron that are read or written, once for all sequences."""

    def bytes(self, outputs: Outputs) -> float:
        """Moved for one output."""
        size, sequences = outputs.values.element_size(), len(outputs.values)
        return self.moves * size + self.masks + 4 * self.statistics / sequences


def _join(ops: Any, outputs: Outputs, rounding: Rounding | None) -> object:
    return ops.join_gradients(outputs.other, outputs.values, outputs.rule, outputs.number, outputs.number, rounding)


def _look(ops: Any, outputs: Outputs, purpose: str) -> object:
    return ops.look(outputs.values, outputs.rule, purpose, None, outputs.sums)


WORK = {
    "gather": Work(lambda ops, outputs: ops.gather(outputs.values, outputs.sums, outputs.mean), 1, 1, 0, 5),
    "look": Work(lambda ops, outputs: _look(ops, outputs, "penalty"), 1, 1, 0, 6),
    "look, deactivate": Work(lambda ops, outputs: _look(ops, outputs, "deactivate"), 1, 2, 1, 6),
    "join": Work(lambda ops, outputs: _join(ops, outputs, None), 2, 3, 0, 2),
    "join, random": Work(lambda ops, outputs: _join(ops, outputs, Rounding()), 2, 3, 0, 2),
    "scale": Work(lambda ops, outputs: ops.scale_selected(outputs.other, outputs.mask, -1.0), 1, 2, 1, 0),
}
"""The launches of a tap: in the first updates, with a penalty, deactivating; their backward passes."""


def run(config: KernelCodeConfig) -> dict[str, Any]:
    """Compile and count; returns the result to be printed."""
    results: dict[str, Any] = {}
    for dtype in config.types:
        outputs = Outputs(SHAPES[config.model], DTYPES[dtype])
        for name, work in WORK.items():
            results[f"{name}, {dtype}"] = _counted(work, outputs, config.target)
    device = DEVICES[config.target]
    result = {
        "benchmark": "kernel_code",
        "device": f"none: compiled for sm_{config.target}, counted for {device.name}",
        "versions": versions("triton"),
        "results": results,
        "settings": asdict(config),
    }
    if config.output is not None:
        write_json(result, Path(config.output) / f"kernel-code-sm{config.target}.json")
    return result


def _counted(work: Work, outputs: Outputs, target: int) -> dict[str, Any]:
    ops, device = load_triton(), DEVICES[target]
    (launch,) = recorded(ops, lambda: work.launch(ops, outputs))
    code = compile_for(launch, target)
    instructions = instructions_per_output(code, work.reads, outputs)
    bits = load_bits(code.main_loop() or code.around_loops())
    return {
        "registers": code.registers,
        "spilled_bytes": code.spilled_bytes,
        "programs_per_sm": min(2**16 // (THREADS * 8 * -(-code.registers // 8)), 2048 // THREADS),
        "load_bits": max(bits),
        "instructions": round(instructions, 2),
        "issue_ps": round(1e12 * instructions / 32 / device.warp_instructions_per_second, 3),
        "memory_ps": round(1e12 * work.bytes(outputs) / device.bytes_per_second, 3),
    }


def instructions_per_output(code: MachineCode, reads: int, outputs: Outputs) -> float:
    """Of a thread; a loop may do several rows at a time, which its loads tell.

    Args:
        code: of a kernel.
        reads: tensors of the outputs' shape that it reads, in loads of 128 bits.
        outputs: what it was compiled for.
    """
    loop, around = code.main_loop(), code.around_loops()
    at_a_time = sum(bits for bits in load_bits(loop or around) if bits == 128) / 8
    outputs_at_a_time = at_a_time / outputs.values.element_size() / reads
    if not loop:
        return len(around) / outputs_at_a_time
    in_all = load_triton().BLOCK // THREADS * min(len(outputs.values), load_triton().ROWS)
    return len(loop) / outputs_at_a_time + len(around) / in_all


if __name__ == "__main__":
    sys.exit(run_from_arguments(KernelCodeConfig, run, sys.argv[1:]))

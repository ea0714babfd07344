"""Triton's kernels on a device, held against PyTorch's and against the bandwidth of its memory.

    python -m l2e.benchmarks.kernel_check                                   # a GPU; needs torch and triton alone
    TRITON_INTERPRET=1 python -m l2e.benchmarks.kernel_check --device cpu   # that it works; its times mean nothing

At the tapped outputs of each Pythia of the paper's Table 2 it compares every number of both passes, lets no call
wait for the device, and holds the bytes that each pass must move (docs/performance.md) over its time against a copy
on the device, in turns. Ends with one line of JSON and, where a number differs, with exit code 1.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from l2e.benchmarks.pairing import median, quartiles
from l2e.benchmarks.report import device_name, print_result, versions
from l2e.inhibition.kernels import load_triton, missing, torch_ops
from l2e.inhibition.moments import ShiftedSums
from l2e.inhibition.rule import Rule

SHAPES = {"pythia-70m": (32, 2048, 512), "pythia-410m": (32, 2048, 1024), "pythia-2.8b": (16, 2048, 2560)}
"""Micro-batches of Pythia's own training, [sequences, positions, hidden]."""

RATE = 0.02


class Outputs:
    """Made-up outputs of a block and gradients, of which `RATE` are selected, and one tap's statistics."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(1)
        self.mean = torch.randn(shape[1:], generator=generator, device=device)
        spread = 0.5 + torch.rand(shape[1:], generator=generator, device=device)
        noise = torch.randn(shape, generator=generator, device=device)
        self.values = (self.mean + spread.sqrt() * noise).to(dtype)
        self.other = torch.randn(shape, generator=generator, device=device).to(dtype)
        self.rule = Rule(self.mean, 1 / spread, torch.full((), 5.41, device=device))  # 2% of a normal distribution
        self.scale = torch.full((), 1.0, device=device)
        self.weight = torch.full((), 1e-3, device=device)
        self.sums = ShiftedSums(self.mean)

    def forward_bytes(self) -> int:
        """What the forward pass must move: the outputs, mean and spread, and its sums there and back."""
        return self.values.numel() * self.values.element_size() + self.mean.numel() * 4 * (2 + 4)

    def backward_bytes(self) -> int:
        """What the backward pass must move: outputs, one gradient in, one out, mean and spread."""
        return 3 * self.values.numel() * self.values.element_size() + self.mean.numel() * 4 * 2


def differences(outputs: Outputs) -> dict[str, float]:
    """Relative differences of Triton's numbers from PyTorch's; of `selected` and `edited` the share that differs."""
    triton_ops = load_triton()
    sums = ShiftedSums(outputs.mean)
    with no_waiting(outputs.values.device):
        found = triton_ops.look(outputs.values, outputs.rule, "penalty", None, sums)
        edit = triton_ops.look(outputs.values, outputs.rule, "deactivate", None, None)
        joined = _join(triton_ops, outputs)
    expected = torch_ops.look(outputs.values, outputs.rule, "penalty", None)
    expected_edit = torch_ops.look(outputs.values, outputs.rule, "deactivate", None)
    reference = ShiftedSums(outputs.mean)
    reference.add(outputs.values.float())
    total, expected_total = joined[0].float(), _join(torch_ops, outputs)[0].float()
    again = triton_ops.look(outputs.values, outputs.rule, "penalty", None, ShiftedSums(outputs.mean))
    assert found.logs is not None
    assert edit.mask is not None
    assert edit.edited is not None
    assert expected_edit.edited is not None
    return {
        "selected": (edit.mask != expected_edit.mask).float().mean().item()
        + abs((found.selected - edit.mask.sum()).item()),
        "logs": _apart(found.logs, expected.logs),
        "first": _apart(sums.first, reference.first),
        "second": _apart(sums.second, reference.second),
        "edited": (edit.edited != expected_edit.edited).float().mean().item(),
        "gradient": _apart(total, expected_total),
        "norms": _apart(joined[1], _join(torch_ops, outputs)[1]),
        "repeated": float(not torch.equal(again.logs, found.logs)),
    }


ALLOWED = {
    "selected": 0.0,
    "logs": 1e-4,
    "first": 1e-4,
    "second": 1e-5,
    "edited": 0.0,
    "gradient": 1e-3,
    "norms": 1e-4,
    "repeated": 0.0,
}


def bandwidth(outputs: Outputs, rounds: int) -> dict[str, Any]:
    """Bytes per second of both passes and of a copy, each round timing all three; and their shares of the copy's."""
    triton_ops = load_triton()
    target = torch.empty_like(outputs.values)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "copy": (lambda: target.copy_(outputs.values), 2 * target.numel() * target.element_size()),
        "forward": (
            lambda: triton_ops.look(outputs.values, outputs.rule, "penalty", None, outputs.sums),
            outputs.forward_bytes(),
        ),
        "backward": (lambda: _join(triton_ops, outputs), outputs.backward_bytes()),
        "torch forward": (lambda: _torch_forward(outputs), outputs.forward_bytes()),
        "torch backward": (lambda: _join(torch_ops, outputs), outputs.backward_bytes()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):  # the first one compiles
        for name, (work, _) in works.items():
            seconds[name].append(_timed(work, outputs.values.device))
    results: dict[str, Any] = {}
    for name, (_, size) in works.items():
        times = seconds[name][1:]
        ratios = [
            (size / own) / (works["copy"][1] / copy) for own, copy in zip(times, seconds["copy"][1:], strict=True)
        ]
        results[name] = {
            "ms": 1000 * median(times),
            "bytes": size,
            "gb_per_second": size / median(times) / 1e9,
            "share_of_copy": median(ratios),
            "share_of_copy_spread": quartiles(ratios),
        }
    return results


@contextmanager
def no_waiting(device: torch.device) -> Any:
    """Within, a call that waits for the GPU is an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def _join(ops: Any, outputs: Outputs) -> tuple[Tensor, Tensor]:
    return ops.join_gradients(outputs.other, outputs.values, outputs.rule, outputs.scale, outputs.weight, None)


def _torch_forward(outputs: Outputs) -> None:
    outputs.sums.add(outputs.values.float())
    torch_ops.look(outputs.values, outputs.rule, "penalty", None)


def _apart(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None
    assert expected is not None
    return ((found - expected).norm() / expected.norm()).item()


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds; on a GPU of ten calls together by its own clock, so that starting them is hidden."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(20_000_000)  # some 10 ms, in which the calls queue up
    start_event.record()
    for _ in range(10):
        work()
    end_event.record()
    torch.cuda.synchronize(device)
    return start_event.elapsed_time(end_event) / 10_000


def main(arguments: list[str]) -> int:
    """Check each shape and type; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--shrink", type=int, default=1, help="divide positions and hidden by this")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if (reason := missing()) is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    results: dict[str, Any] = {}
    passed = True
    for name, (sequences, positions, hidden) in SHAPES.items():
        shape = (sequences, positions // options.shrink, hidden // options.shrink)
        results[name] = {"shape": shape, "differences": {}}
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            found = differences(Outputs(shape, dtype, device))
            results[name]["differences"][str(dtype)] = found
            passed &= all(found[key] <= allowed for key, allowed in ALLOWED.items())
        results[name]["bandwidth"] = bandwidth(Outputs(shape, torch.bfloat16, device), options.rounds)
        print(f"{name}: {results[name]}", file=sys.stderr)
    print_result(
        {
            "benchmark": "kernel_check",
            "device": device_name(device),
            "versions": versions("triton"),
            "results": results | {"passed": passed, "allowed": ALLOWED},
        }
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The head with its cross-entropy, forward and backward pass: all logits at once, in chunks, by Liger where installed.

    python -m l2e.benchmarks.loss_heads tokens=65536 hidden=512      # needs torch alone

results, of each way: `ms`, `memory_mib` (on a GPU: the most that is allocated above the inputs), `error` of the
weight's gradient against fp32 of the same rounded inputs (relative, whole tensor), and `time_ratio` to all at once.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from l2e.benchmarks.arguments import require_precision, require_whole, run_from_arguments
from l2e.benchmarks.pairing import median
from l2e.benchmarks.report import device_name, versions
from l2e.models import DTYPES
from l2e.training.fused_loss import fused_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(kw_only=True)
class LossHeadsConfig:
    """Sizes: by default a micro-batch of pythia-70m."""

    tokens: int = 32 * 2048
    hidden: int = 512
    vocab_size: int = 50304
    precision: Literal["fp32", "bf16"] = "bf16"
    repeats: int = 10

    def __post_init__(self) -> None:
        require_whole(self, ("tokens", "hidden", "vocab_size", "repeats"))
        require_precision(self.precision)


def run(config: LossHeadsConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = _inputs(config, device, DTYPES[config.precision])
    exact = _gradient(
        lambda h, w, t: fused_loss(h, w, t),
        tuple(each.float() if each.is_floating_point() else each for each in inputs),
    )
    results = {name: _measure(loss, inputs, exact, config.repeats) for name, loss in ways(device).items()}
    for found in results.values():
        found["time_ratio"] = found["ms"] / results["all_at_once"]["ms"]
    return {
        "benchmark": "loss_heads",
        "device": device_name(device),
        "versions": versions("triton", "liger-kernel"),
        "results": results,
        "settings": asdict(config),
    }


def ways(device: torch.device) -> dict[str, Loss]:
    """By name; Liger's where it can be imported and the device is a GPU."""
    found: dict[str, Loss] = {
        "all_at_once": lambda h, w, t: F.cross_entropy((h @ w.T).float(), t),
        "chunks": lambda h, w, t: fused_loss(h, w, t),
    }
    if device.type == "cuda":
        found["chunks_compiled"] = lambda h, w, t: fused_loss(h, w, t, compiled=True)
        try:
            from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss
        except ImportError:
            return found
        liger = LigerFusedLinearCrossEntropyLoss()
        found["liger"] = lambda h, w, t: liger(w, h, t)
    return found


def _inputs(config: LossHeadsConfig, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(config.tokens, config.hidden, generator=generator)
    weight = torch.randn(config.vocab_size, config.hidden, generator=generator) * config.hidden**-0.5
    targets = torch.randint(config.vocab_size, (config.tokens,), generator=generator)
    return hidden.to(device, dtype), weight.to(device, dtype), targets.to(device)


def _gradient(loss: Loss, inputs: tuple[Tensor, ...]) -> Tensor:
    """Of the weight."""
    hidden, weight, targets = inputs
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    loss(hidden, weight, targets).backward()
    assert weight.grad is not None
    return weight.grad


def _measure(loss: Loss, inputs: tuple[Tensor, ...], exact: Tensor, repeats: int) -> dict[str, Any]:
    device = inputs[0].device
    found = _gradient(loss, inputs).float()  # compiles
    error = float((found - exact).norm() / exact.norm())
    del found
    before = 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    seconds = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        _gradient(loss, inputs)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    memory = (torch.cuda.max_memory_allocated(device) - before) / 2**20 if device.type == "cuda" else None
    return {"ms": 1000 * median(seconds), "memory_mib": memory, "error": error}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(run_from_arguments(LossHeadsConfig, run, sys.argv[1:]))

"""How near a tap comes to the least that it can take: its bytes over its time, beside a copy on the same device."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import l2e
from l2e.benchmarks.pairing import median

COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}
"""Bytes of the tensor that is copied."""

_WARM_UP = 3  # updates until outputs are selected


def device_copy(device: torch.device, repeats: int = 10) -> float:
    """Bytes per second, those read and those written, of copying a tensor to another on the device."""
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _seconds(lambda: target.copy_(source), device, repeats)
    return 2 * source.nbytes / seconds


def tap_bytes(batch: int, neurons: int, each: int) -> int:
    """The least that a tap with a log penalty moves in a forward and a backward pass.

    Of each output: read forwards; read with its gradient, which is written, backwards. Of each neuron, fp32: mean and
    inverse spread are read in both, two sums are read and written.

    Args:
        batch: sequences.
        neurons: outputs of a sequence.
        each: bytes of an output.
    """
    return 4 * batch * neurons * each + (2 + 4 + 2) * 4 * neurons


class _Block(nn.Module):
    """A model of one block that hands on what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        return self.block(values)


def tap_seconds(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, **settings: Any) -> float:
    """Seconds of one tap's forward and backward pass with its selection active, alone on the device.

    Args:
        shape: of the outputs, [batch, ...].
        dtype: of the outputs.
        device: where.
        settings: of `l2e.attach`.
    """
    model = _Block().to(device).train()
    inhibition = l2e.attach(model, blocks=["block"], late_start=_WARM_UP - 1, warmup=1, **settings)
    values = torch.randn(shape, device=device).to(dtype).requires_grad_()
    gradient = torch.randn(shape, device=device).to(dtype)
    one = torch.ones((), device=device)

    def tapped() -> None:
        values.grad = None
        torch.autograd.backward([model(values), inhibition.penalty()], [gradient, one])

    for _ in range(_WARM_UP):
        model(values)
        inhibition.penalty()
        inhibition.step()
    return _seconds(tapped, device, 10)


def _seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median of one call, after two untimed ones; a device is waited for once for every five calls."""
    found = []
    for _ in range(repeats + 2):
        _wait(device)
        start = time.perf_counter()
        for _ in range(5):
            work()
        _wait(device)
        found.append((time.perf_counter() - start) / 5)
    return median(found[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

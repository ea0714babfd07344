"""Strength (DESIGN section 4): what the penalty does to the gradient, and how to hold it."""

import hashlib
from typing import Any

import torch
from torch import Tensor


class GradientMeter:
    """Norms at a tap as they enter the backward pass.

    Attributes:
        totals: float64 [4], sums over this update of |penalty gradient at weight 1|^2, |other gradient|^2,
            elements with a penalty gradient, and those of them that the working precision leaves unchanged.
        ratio: |penalty gradient at weight 1| / |other gradient| of the last update, NaN before there is one.
        absorbed: share of the selected elements whose gradient did not change, likewise.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.totals = torch.zeros(4, dtype=torch.float64, device=device)
        self.ratio = torch.full((), torch.nan, device=device)
        self.absorbed = torch.full((), torch.nan, device=device)

    def add(self, totals: Tensor) -> None:
        """Count one backward pass: what `totals` sums, float64 [4]."""
        self.totals += totals

    def step(self) -> None:
        """End an update."""
        penalty, other, selected, unchanged = self.totals
        self.ratio, self.absorbed = (penalty / other).sqrt().float(), (unchanged / selected).float()
        self.drop()

    def drop(self) -> None:
        """Forget what this update has counted."""
        self.totals = torch.zeros_like(self.totals)


class StrengthControl:
    """The weight that holds a strength: strength / ratio, with the ratio of norms smoothed.

    The logarithm of the ratio follows the measured one by `gain` of its distance and by at most a factor
    `bound` per update; an update that measured nothing usable (no selection, an overflow) moves nothing.

    Args:
        points: (update, strength), followed in straight lines and constant outside.
        gain: share of the distance taken per update.
        bound: largest factor per update.
        device: where the state lies.

    Attributes:
        weight: 0-dim fp32, for the next update; 0 until a first ratio is known.
    """

    def __init__(
        self,
        points: list[tuple[float, float]],
        gain: float = 0.3,
        bound: float = 1.25,
        device: torch.device | str | None = None,
    ) -> None:
        self.points = points
        self.gain = gain
        self.limit = float(torch.tensor(bound).log())
        self.log_ratio = torch.full((), torch.nan, device=device)
        self.weight = torch.zeros((), device=device)

    def target(self, update: int) -> float:
        """The strength asked for in the update after `update` updates."""
        before = [point for point in self.points if point[0] <= update]
        after = [point for point in self.points if point[0] > update]
        if not before or not after:
            return (before or after)[-1 if before else 0][1]
        (start, low), (end, high) = before[-1], after[0]
        return low + (high - low) * (update - start) / (end - start)

    def step(self, ratio: Tensor, update: int) -> None:
        """Follow a measured ratio after `update` updates; no value leaves the device."""
        measured = ratio.log()
        usable = measured.isfinite()
        move = (self.gain * (measured - self.log_ratio)).clamp(-self.limit, self.limit)
        followed = torch.where(self.log_ratio.isnan(), measured, self.log_ratio + move)
        self.log_ratio = torch.where(usable, followed, self.log_ratio)
        self.weight = (self.target(update) / self.log_ratio.exp()).nan_to_num(nan=0.0)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"log_ratio": self.log_ratio, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.log_ratio = torch.as_tensor(state["log_ratio"]).to(self.log_ratio)
        self.weight = torch.as_tensor(state["weight"]).to(self.weight)


class Rounding:
    """Random numbers for rounding: a function of what they are drawn for, so that a resumed run draws the same.

    Attributes:
        generator: for PyTorch's kernels.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.generator = torch.Generator(device or "cpu")
        self._drawn_for = ""
        self._draws = 0

    def start(self, drawn_for: str) -> None:
        """Begin the stream that is named so."""
        self._drawn_for = drawn_for
        self._draws = 0
        self.generator.manual_seed(_digest(drawn_for))

    def next_seed(self) -> int:
        """For a kernel that counts its draws itself: another one at each call, of 62 bits."""
        self._draws += 1
        return _digest(f"{self._drawn_for}/{self._draws}") >> 1 | 1 << 61


def _digest(text: str) -> int:
    """63 bits that depend on all of the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def round_at_random(values: Tensor, dtype: torch.dtype, generator: torch.Generator | None = None) -> Tensor:
    """Round fp32 values to bf16 or fp16 so that the expectation is the value.

    The nearest representable number, or its neighbour on the value's other side with the probability that
    makes up for the distance.

    Args:
        values: fp32, any shape.
        dtype: torch.bfloat16 or torch.float16; fp32 is returned as it is.
        generator: source of randomness.

    Returns:
        Values of type `dtype`; those representable are exact, those beyond the largest number as by nearest.
    """
    if dtype == torch.float32:
        return values
    nearest = values.to(dtype)
    error = values - nearest.float()
    pattern = nearest.view(torch.int16)
    # One step of the bit pattern is one number further from zero; at zero the first one on the error's side.
    outwards = torch.where((error > 0) == (nearest > 0), 1, -1).to(torch.int16)
    first = torch.where(error > 0, 1, 1 - 2**15).to(torch.int16)
    neighbour = torch.where(nearest == 0, first, pattern + outwards).view(dtype)
    gap = neighbour.float() - nearest.float()
    draw = torch.rand(values.shape, generator=generator, device=values.device)
    # Written so that an exact value (error 0) or an overflow (gap infinite or NaN) stays.
    return torch.where((error != 0) & (draw * gap.abs() < error.abs()), neighbour, nearest)

"""One tapped block: statistics, selection and the penalty's gradient at its output."""

from typing import Any

import torch
from torch import Tensor

from l2e.inhibition.config import InhibitionConfig
from l2e.inhibition.methods import log_penalty
from l2e.inhibition.moments import RunningMoments, ShiftedSums
from l2e.inhibition.score import monosemanticity_score
from l2e.inhibition.selection import MovingThreshold


class Tap:
    """The state of one tapped block.

    A forward pass scores the outputs with the statistics from before this update, selects, and adds the
    outputs to this update's sums; `step` merges the sums and moves the threshold (L14, M02-M04).
    """

    def __init__(self, config: InhibitionConfig) -> None:
        self.config = config
        self.threshold = MovingThreshold(config.rate, config.warmup)
        self.moments: RunningMoments | None = None
        self.penalties: list[Tensor] = []
        self.meter = GradientMeter()
        self.selected_share = torch.tensor(torch.nan)
        self._sums: ShiftedSums | None = None

    def forward(self, values: Tensor) -> Tensor:
        """See one micro-batch of outputs [batch, *shape]; return them, equal, with the penalty attached.

        Raises:
            ValueError: the samples have another shape than before.
        """
        detached = values.detach().float()
        moments = self._ensure_state(detached)
        if self._sums is None:
            self._sums = ShiftedSums(moments.mean if moments.updates else detached.mean(0))
        self._sums.add(detached)
        if moments.updates < self.config.late_start:
            return values
        scores = monosemanticity_score(detached, moments.mean, moments.var, self.config.compensation)
        mask = self.threshold.observe(scores)
        if not self.config.weight or not self.threshold.ready:
            return values  # weight 0 leaves the graph as it is: bitwise the baseline
        scale = values.shape[0] if self.config.reduction == "sequence" else 1
        values, penalty = _AttachPenalty.apply(values, moments.mean, mask, self.meter)
        self.penalties.append(penalty / scale)
        return values

    def take_penalty(self) -> Tensor | None:
        """The sum of the penalties of the forward passes since the last call."""
        penalties, self.penalties = self.penalties, []
        return torch.stack(penalties).sum() if penalties else None

    def shift(self) -> list[Tensor]:
        """What ranks must agree on before their sums of a first update can be added."""
        first_update = self._sums is not None and self.moments is not None and not self.moments.updates
        return [self._sums.shift] if first_update and self._sums is not None else []

    def pending(self) -> list[Tensor]:
        """All that this update has gathered, to be summed over ranks in place."""
        if self._sums is None:
            return []
        sums = self._sums
        return [sums.first, sums.second, sums.size, *self.threshold.pending(), self.meter.totals]

    def rebase(self, shift: Tensor) -> None:
        """Express this update's sums about a shift that all ranks share."""
        if self._sums is not None:
            self._sums.rebase(shift)

    def step(self) -> None:
        """End an update: merge the statistics and move the threshold. Nothing seen changes nothing."""
        self.penalties.clear()
        if self._sums is None or self.moments is None:
            return
        selecting = self.threshold.ready
        counts = self.threshold.step()
        self.selected_share = counts[0] / counts[1] if selecting else torch.tensor(torch.nan)
        self.moments.merge(*self._sums.moments())
        self._sums = None
        self.meter.step()

    def metrics(self) -> dict[str, float]:
        """Threshold, share selected, strength, absorbed share of the last update; NaN before they exist."""
        return {
            "threshold": self.threshold.value,
            "selected": float(self.selected_share),
            "strength": float(self.meter.strength),
            "absorbed": float(self.meter.absorbed),
        }

    def state_dict(self) -> dict[str, Any]:
        """Statistics and threshold; call it between updates."""
        moments = self.moments.state_dict() if self.moments is not None else None
        return {"moments": moments, "threshold": self.threshold.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over a saved state."""
        self.threshold = MovingThreshold(self.config.rate, self.config.warmup, device)
        self.threshold.load_state_dict(state["threshold"])
        self.moments = None
        if state["moments"] is not None:
            shape = state["moments"]["mean"].shape
            self.moments = RunningMoments(shape, self.config.forget_after, device)
            self.moments.load_state_dict(state["moments"])

    def _ensure_state(self, values: Tensor) -> RunningMoments:
        if self.moments is None:
            self.moments = RunningMoments(values.shape[1:], self.config.forget_after, values.device)
            self.threshold = MovingThreshold(self.config.rate, self.config.warmup, values.device)
        if values.shape[1:] != self.moments.mean.shape:
            raise ValueError(
                f"a tapped block gave outputs of shape {list(values.shape[1:])} per sequence after "
                f"{list(self.moments.mean.shape)}: train on sequences of one length"
            )
        self.meter.to(values.device)
        return self.moments


class GradientMeter:
    """Norms at a tap as they enter the backward pass, for `strength` and `absorbed` (DESIGN section 4).

    Attributes:
        totals: float64 [4], sums over this update of |penalty gradient|^2, |other gradient|^2, elements
            with a penalty gradient, and those of them that the working precision leaves unchanged.
        strength: |penalty gradient| / |other gradient| of the last update, NaN before there is one.
        absorbed: share of the selected elements whose gradient did not change, likewise.
    """

    def __init__(self) -> None:
        self.totals = torch.zeros(4, dtype=torch.float64)
        self.strength = torch.tensor(torch.nan)
        self.absorbed = torch.tensor(torch.nan)

    def to(self, device: torch.device) -> None:
        """Move the sums to the device of the outputs."""
        self.totals = self.totals.to(device)

    def add(self, penalty: Tensor, other: Tensor, total: Tensor, mask: Tensor) -> None:
        """Count one backward pass; gradients at the tap, `penalty` fp32, `other` and `total` as they are."""
        unchanged = mask & (total == other)
        parts = (penalty.norm() ** 2, other.float().norm() ** 2, mask.sum(), unchanged.sum())
        self.totals += torch.stack([part.double() for part in parts])

    def step(self) -> None:
        """End an update."""
        penalty, other, selected, unchanged = self.totals
        self.strength, self.absorbed = (penalty / other).sqrt(), unchanged / selected
        self.totals = torch.zeros_like(self.totals)


class _AttachPenalty(torch.autograd.Function):
    """Pass outputs through unchanged and give their penalty (L15); its gradient joins on the way back.

    One node for both, because the norms of the two gradients can be told apart only where they meet.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, mask: Tensor, meter: GradientMeter) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(values, mean, mask)
        ctx.meter = meter
        return values.view_as(values), log_penalty(values, mean, mask)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        grad_values, grad_penalty = grads
        values, mean, mask = ctx.saved_tensors
        deviation = values.float() - mean
        used = mask & (deviation != 0)
        penalty = torch.where(used, 2 * grad_penalty / torch.where(used, deviation, 1.0), 0.0)
        total = (grad_values.float() + penalty).to(grad_values.dtype)
        ctx.meter.add(penalty, grad_values, total, used)
        return total, None, None, None

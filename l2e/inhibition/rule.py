"""What selects an output, and what one look at a micro-batch finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Purpose = Literal["count", "penalty", "deactivate"]
"""What the selected are found for: only to be counted, for their penalty, or to be put at their mean."""


@dataclass(frozen=True, eq=False)
class Rule:
    """What selects an output, with the statistics of one moment; all broadcast against the outputs.

    Statistics are replaced, never changed in place, so a rule can be kept for the backward pass at no cost.
    """

    mean: Tensor
    inverse_spread: Tensor
    limit: Tensor

    def scores(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations from the mean and scores (M01, M04) of values [batch, *shape], both fp32."""
        deviation = values.float() - self.mean
        return deviation, (deviation * deviation).mul_(self.inverse_spread)

    def select(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations from the mean and mask of the selected; the same ones every time."""
        deviation, scores = self.scores(values)
        return deviation, scores > self.limit


FindLimit = Callable[[Tensor], Tensor]
"""From scores to what a score must exceed."""


@dataclass(frozen=True, eq=False)
class View:
    """What one look at outputs [batch, *shape] found."""

    rule: Rule
    """With the limit that belongs to these outputs."""

    selected: Tensor
    """How many, 0-dim int64."""

    scores: Tensor | None = None
    """[batch, *shape] fp32, where the kernel makes them."""

    logs: Tensor | None = None
    """Sum over the selected of log deviation^2, 0-dim fp32; for the penalty."""

    mask: Tensor | None = None
    """[batch, *shape] boolean, the selected; for deactivation."""

    edited: Tensor | None = None
    """`values` with the selected at their mean; for deactivation."""

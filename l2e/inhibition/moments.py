"""Running mean and variance of every neuron (Lemma 3.2, rows M02 and M03)."""

from collections.abc import Sequence

import torch
from torch import Tensor


class RunningMoments:
    """Mean and unbiased variance of each neuron over all samples seen, in fp32.

    The first `forget_after` updates are merged exactly (M02), so that any partition of the samples into
    updates gives the moments of one pass. Later updates weigh the past as `forget_after` batches of the
    new batch's size (M03): the weight of a new batch stays at 1 / (forget_after + 1).

    Args:
        shape: the shape of one sample, e.g. [seq, hidden].
        forget_after: updates before forgetting starts; None never forgets.
        device: where the state lies.

    Attributes:
        mean: [*shape] fp32.
        var: [*shape] fp32, unbiased.
        updates: number of merges so far (c_t of Algorithm 1).
        count: number of samples that the moments stand for in the next merge (m of Lemma 3.2).
    """

    def __init__(
        self,
        shape: Sequence[int],
        forget_after: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if forget_after is not None and forget_after < 1:
            raise ValueError(f"forget_after must be at least 1 or None, not {forget_after}")
        self.forget_after = forget_after
        self.mean = torch.zeros(*shape, device=device)
        self.var = torch.zeros(*shape, device=device)
        self.updates = 0
        self.count = 0

    def update(self, values: Tensor) -> None:
        """Merge one batch of samples.

        Args:
            values: [batch, *shape], any floating type; detached here.

        Raises:
            ValueError: the samples have another shape than the moments, or there are none.
        """
        if values.shape[1:] != self.mean.shape:
            raise ValueError(f"samples of shape {list(values.shape[1:])} given to moments of {list(self.mean.shape)}")
        if values.shape[0] == 0:
            raise ValueError("an update needs at least one sample")
        values = values.detach().float()
        self.merge(values.shape[0], values.mean(0), values.var(0, unbiased=False))

    def merge(self, size: int, mean: Tensor, var: Tensor) -> None:
        """Lemma 3.2 (M02, M03), into new tensors: a backward pass may still hold the old ones.

        Args:
            size: number of samples b in the batch.
            mean: [*shape], the batch's mean.
            var: [*shape], the batch's *biased* variance.
        """
        b = size
        forgetting = self.forget_after is not None and self.updates >= self.forget_after
        m = b * self.forget_after if forgetting and self.forget_after else self.count
        if m == 0:
            self.mean, self.var = mean, var * (b / (b - 1)) if b > 1 else torch.zeros_like(var)
        else:
            delta = mean - self.mean
            self.var = delta**2 * (m * b / ((m + b - 1) * (m + b))) + (b * var + (m - 1) * self.var) / (m + b - 1)
            self.mean = self.mean + delta * (b / (m + b))
        self.count = m + b
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor | int]:
        """All that a resumed run needs."""
        return {"mean": self.mean, "var": self.var, "updates": self.updates, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take over a saved state; ValueError when it is of another shape."""
        mean, var = torch.as_tensor(state["mean"]), torch.as_tensor(state["var"])
        if mean.shape != self.mean.shape:
            raise ValueError(f"saved moments have shape {list(mean.shape)}, this tap has {list(self.mean.shape)}")
        self.mean, self.var = mean.to(self.mean), var.to(self.var)
        self.updates, self.count = int(state["updates"]), int(state["count"])


class ShiftedSums:
    """Sums over the micro-batches of one optimizer step, about a fixed shift.

    A sum about the running mean keeps its digits where a plain sum of squares would cancel, and sums of
    micro-batches and ranks simply add up: that is what makes the moments independent of the split.

    Attributes:
        shift: [*shape], what is taken off each sample.
        first: [*shape], sum of (value - shift).
        second: [*shape], sum of (value - shift)^2.
        size: int64 tensor of one element, the number of samples.
    """

    def __init__(self, shift: Tensor) -> None:
        self.shift = shift
        self.first = torch.zeros_like(shift)
        self.second = torch.zeros_like(shift)
        self.size = torch.zeros(1, dtype=torch.int64, device=shift.device)

    def add(self, values: Tensor) -> None:
        """Add a micro-batch, values [batch, *shape] in fp32."""
        deviation = values - self.shift
        self.first += deviation.sum(0)
        self.second += (deviation * deviation).sum(0)
        self.size += values.shape[0]

    def rebase(self, shift: Tensor) -> None:
        """Express the sums about another shift (ranks must share one before they add their sums)."""
        step = self.shift - shift
        self.second = self.second + 2 * step * self.first + self.size * step * step
        self.first = self.first + self.size * step
        self.shift = shift

    def moments(self) -> tuple[int, Tensor, Tensor]:
        """The number of samples, their mean and their biased variance."""
        size = int(self.size)
        mean = self.first / size
        return size, self.shift + mean, (self.second / size - mean * mean).clamp_min(0)

"""Running mean and variance of every neuron (Lemma 3.2, rows M02 and M03)."""

from collections.abc import Sequence

import torch
from torch import Tensor


class RunningMoments:
    """Mean and unbiased variance of each neuron over all samples seen, in fp32.

    The first `forget_after` updates are merged exactly (M02), so that any partition of the samples into
    updates gives the moments of one pass. Later updates weigh the past as `forget_after` batches of the
    new batch's size (M03): the weight of a new batch stays at 1 / (forget_after + 1).

    Samples of two or more dimensions may differ in the first, the positions of a sequence: each position
    has its own count, so a short sequence tells nothing about the positions that it lacks.

    Args:
        shape: the shape of one sample, e.g. [seq, hidden].
        forget_after: updates before forgetting starts; None never forgets.
        device: where the state lies.
        count_offset: batches that the past counts too many (2.4); 0 is the Lemma.

    Attributes:
        mean: [*shape] fp32.
        var: [*shape] fp32, unbiased.
        updates: number of merges so far (c_t of Algorithm 1).
        count: int64 [seq, 1, ...], or [1] for samples of one dimension: samples that the moments of each
            position stand for in the next merge (m of Lemma 3.2).
        merges: likewise, merges that each position took part in.
    """

    def __init__(
        self,
        shape: Sequence[int],
        forget_after: int | None = None,
        device: torch.device | str | None = None,
        count_offset: int = 0,
    ) -> None:
        if forget_after is not None and forget_after < 1:
            raise ValueError(f"forget_after must be at least 1 or None, not {forget_after}")
        self.forget_after = forget_after
        self.count_offset = count_offset
        self.mean = torch.zeros(tuple(shape), device=device)
        self.var = torch.zeros(tuple(shape), device=device)
        self.updates = 0
        self.count = torch.zeros(positions(self.mean), dtype=torch.int64, device=device)
        self.merges = torch.zeros_like(self.count)

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
        self.merge(torch.full_like(self.count, values.shape[0]), values.mean(0), values.var(0, unbiased=False))

    def merge(self, size: Tensor, mean: Tensor, var: Tensor) -> None:
        """Lemma 3.2 (M02, M03), into new tensors: a backward pass may still hold the old ones.

        Args:
            size: int64, shape of `count`: number of samples b of each position; 0 leaves it as it is.
            mean: [*shape], the batch's mean.
            var: [*shape], the batch's *biased* variance.
        """
        b, seen, past = size, size > 0, self.count
        m = torch.where(past > 0, past + self.count_offset * b, past)
        if self.forget_after is not None:
            forgetting = self.merges >= self.forget_after
            past = torch.where(forgetting, self.forget_after * b, past)
            m = torch.where(forgetting, past, m)
        total, freedom = (m + b).clamp_min(1), (m + b - 1).clamp_min(1)
        delta = mean - self.mean
        var = delta**2 * ((m / freedom) * (b / total)) + (b / freedom) * var
        var = var + ((m - 1).clamp_min(0) / freedom) * self.var
        self.mean = torch.where(seen, self.mean + delta * (b / total), self.mean)
        self.var = torch.where(seen, var, self.var)
        self.count = torch.where(seen, past + b, self.count)
        self.merges = self.merges + seen
        self.updates += 1

    def grow(self, length: int) -> None:
        """Make room for sequences of `length` positions; does nothing where there is room.

        A new position starts at the last one's mean, with a count of 0: near its own, so that the sums about
        it keep their digits.
        """
        missing = length - self.mean.shape[0]
        if missing <= 0:
            return
        self.mean = torch.cat([self.mean, self.mean[-1:].expand(missing, *self.mean.shape[1:])])
        self.var = _lengthen(self.var, missing)
        self.count, self.merges = _lengthen(self.count, missing), _lengthen(self.merges, missing)

    def state_dict(self) -> dict[str, Tensor | int]:
        """All that a resumed run needs."""
        return {
            "mean": self.mean,
            "var": self.var,
            "updates": self.updates,
            "count": self.count,
            "merges": self.merges,
        }

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take over a saved state; ValueError when it is of another shape."""
        mean, var = torch.as_tensor(state["mean"]), torch.as_tensor(state["var"])
        if mean.shape != self.mean.shape:
            raise ValueError(f"saved moments have shape {list(mean.shape)}, this tap has {list(self.mean.shape)}")
        self.mean, self.var = mean.to(self.mean), var.to(self.var)
        self.updates = int(state["updates"])
        self.count = torch.as_tensor(state["count"]).to(self.count)
        self.merges = torch.as_tensor(state["merges"]).to(self.merges)


def positions(values: Tensor) -> list[int]:
    """Shape of a number per position of [seq, ...]: [seq, 1, ...]; ones for samples of fewer dimensions."""
    return [values.shape[0], *[1] * (values.dim() - 1)] if values.dim() > 1 else [1] * values.dim()


def _lengthen(tensor: Tensor, missing: int) -> Tensor:
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])


class ShiftedSums:
    """Sums over the micro-batches of one optimizer step, about a fixed shift.

    A sum about the running mean keeps its digits where a plain sum of squares would cancel, and sums of
    micro-batches and ranks simply add up: that is what makes the moments independent of the split.

    Attributes:
        shift: [*shape], what is taken off each sample.
        first: [*shape], sum of (value - shift).
        second: [*shape], sum of (value - shift)^2.
        size: int64 [seq, 1, ...], or [1] for samples of one dimension: the samples of each position.
    """

    def __init__(self, shift: Tensor) -> None:
        self.shift = shift
        self.first = torch.zeros_like(shift)
        self.second = torch.zeros_like(shift)
        self.size = torch.zeros(positions(shift), dtype=torch.int64, device=shift.device)

    def add(self, values: Tensor) -> None:
        """Add samples [batch, *shape] in fp32; they may be shorter than the sums."""
        length = values.shape[1]
        deviation = values - self.shift[:length]
        self.first[:length] += deviation.sum(0)
        self.second[:length] += deviation.mul_(deviation).sum(0)
        self.size[:length] += values.shape[0]

    def grow(self, length: int) -> None:
        """Make room for sequences of `length` positions, as `RunningMoments.grow`."""
        missing = length - self.shift.shape[0]
        if missing > 0:
            self.shift = torch.cat([self.shift, self.shift[-1:].expand(missing, *self.shift.shape[1:])])
            self.first, self.second = _lengthen(self.first, missing), _lengthen(self.second, missing)
            self.size = _lengthen(self.size, missing)

    def rebase(self, shift: Tensor) -> None:
        """Express the sums about another shift (ranks must share one before they add their sums)."""
        step = self.shift - shift
        self.second = self.second + 2 * step * self.first + self.size * step * step
        self.first = self.first + self.size * step
        self.shift = shift

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """The number of samples, their mean and their biased variance; the shift and 0 without samples."""
        size = self.size.clamp_min(1)
        mean = self.first / size
        return self.size, self.shift + mean, (self.second / size - mean * mean).clamp_min(0)

"""Which outputs are inhibited: the moving threshold (rows L13, L14) and the exact top k (2.9)."""

from typing import Any

import torch
from torch import Tensor

# A positive float32 sorts like its bit pattern, so the upper bits are a logarithmic histogram of all
# positive floats at once. 12 bits of the mantissa make bins 2^-12 wide: the middle is within 0.013%.
_MANTISSA_BITS = 12
_SHIFT = 23 - _MANTISSA_BITS
_BINS = 1 << (31 - _SHIFT)


class ScoreHistogram:
    """Counts of scores in fine logarithmic bins; histograms of micro-batches and ranks add up."""

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.counts = torch.zeros(_BINS, dtype=torch.int64, device=device)

    def add(self, scores: Tensor) -> None:
        """Count scores (fp32, any shape, at least 0)."""
        bins = scores.detach().float().flatten().abs().view(torch.int32) >> _SHIFT
        self.counts += torch.bincount(bins, minlength=_BINS)

    def kth_largest(self, rate: float) -> Tensor:
        """The k-th largest score for k = rate x count (at least 1): the middle of its bin, 0-dim fp32."""
        k = (self.counts.sum() * rate).round().clamp_min(1)
        from_above = self.counts.flip(0).cumsum(0)
        bin_index = _BINS - 1 - (from_above < k).sum()
        pattern = (bin_index << _SHIFT) + (1 << (_SHIFT - 1))
        return pattern.to(torch.int32).view(torch.float32).nan_to_num(nan=torch.finfo(torch.float32).max)


class Selection:
    """Count what is selected; the two ways to select below share it.

    Attributes:
        tau: 0-dim fp32, the threshold; NaN before there is one.
        ready: whether anything can be selected yet.
    """

    ready: bool

    def __init__(self, rate: float, device: torch.device | str | None) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie in (0, 1), not {rate}")
        self.rate = rate
        self.tau = torch.full((), torch.nan, device=device)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)  # selected, total

    @property
    def value(self) -> float:
        """The threshold; NaN before there is one. Waits for the device."""
        return float(self.tau)

    def observe(self, scores: Tensor) -> Tensor:
        """Select and count.

        Args:
            scores: [batch, *shape], at least 0; any shape for a moving threshold.

        Returns:
            Boolean mask of the same shape.
        """
        limit = self.limit(scores)
        mask = scores > limit
        total = torch.full_like(self._counts[0], mask.numel())
        self.record(mask.sum(), total, limit)
        self.warm(scores, total)
        return mask

    def limit(self, scores: Tensor) -> Tensor:
        """What a score must exceed to be selected, to be compared with `scores`."""
        raise NotImplementedError

    def record(self, selected: Tensor, total: Tensor, limit: Tensor) -> None:
        """Count a selection.

        Args:
            selected: 0-dim int64, how many scores were selected.
            total: 0-dim int64, how many scores stand for something; the others must have been 0.
            limit: that they had to exceed.
        """
        self._counts += torch.stack([selected, total])

    def warm(self, scores: Tensor, total: Tensor) -> None:
        """Take note of scores before there is a threshold; `total` as in `record`."""

    def pending(self) -> list[Tensor]:
        """What this update has counted, to be summed over ranks in place before `step`."""
        return [self._counts]

    def step(self) -> Tensor:
        """End an update.

        Returns:
            int64 [2]: how many of this update's outputs were selected, and of how many. All 0, and
            nothing changed, when nothing was observed.
        """
        counts = self._counts
        self.drop()
        return counts

    def drop(self) -> None:
        """Forget what was counted since the last `step`."""
        self._counts = torch.zeros_like(self._counts)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"tau": self.tau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.tau = torch.as_tensor(state["tau"]).to(self.tau)


class MovingThreshold(Selection):
    """tau: in each update about `rate` of all scores lie above it (Appendix A of L2E).

    In the first `warmup` updates nothing is selected; the k-th largest score of each is found (L13).
    Their mean starts tau, which then moves by selected/total - rate after each update (L14, Eq. 6 in
    fractions, because the paper's counts diverge with the batch size: 2.10). It never falls below 0, so a
    score of 0 is never selected.

    Args:
        rate: share of the outputs to select, in (0, 1).
        warmup: updates before selection starts, at least 1.
        device: where the state lies.
        exact: in the warm-up sort each call's scores and average over calls and ranks, as the papers do;
            by default one histogram takes all scores of an update, the same for every split of them.
    """

    def __init__(
        self, rate: float, warmup: int = 10, device: torch.device | str | None = None, exact: bool = False
    ) -> None:
        super().__init__(rate, device)
        if warmup < 1:
            raise ValueError(f"warmup must be at least 1, not {warmup}")
        self.warmup = warmup
        self.exact = exact
        self.updates = 0
        self._warmup_sum = torch.zeros((), device=device)
        self._histogram: ScoreHistogram | None = None
        self._kth = torch.zeros(2, device=device)  # sum of k-th largest scores, how many

    @property
    def ready(self) -> bool:  # type: ignore[override]
        """Whether warm-up is over and scores are selected."""
        return self.updates >= self.warmup

    def limit(self, scores: Tensor) -> Tensor:
        """tau; nothing lies above the NaN of the warm-up."""
        return self.tau

    def warm(self, scores: Tensor, total: Tensor) -> None:
        """Find the k-th largest score, or count it into the histogram; nothing once there is a threshold."""
        if self.ready:
            return
        if self.exact:
            k = max(1, round(self.rate * scores.numel()))
            self._kth += torch.stack([_kth_largest(scores.flatten(), k), torch.ones_like(self._kth[0])])
            return
        self._warm_histogram().add(scores)
        self._warm_histogram().counts[0] -= scores.numel() - total

    def pending(self) -> list[Tensor]:
        """See `Selection.pending`; in the warm-up with the histogram, the same on a rank that saw nothing."""
        if self.ready:
            return [self._counts]
        return [self._counts, self._kth] if self.exact else [self._counts, self._warm_histogram().counts]

    def step(self) -> Tensor:
        """Start or move tau; see `Selection.step`."""
        if not self.ready:
            self._warm_up()
        else:
            selected, total = self._counts
            share = (selected / total.clamp_min(1)).float()
            self.tau = torch.where(total > 0, (self.tau + share - self.rate).clamp_min(0), self.tau)
        return super().step()

    def drop(self) -> None:
        """Forget what was counted since the last `step`."""
        super().drop()
        self._histogram = None
        self._kth = torch.zeros_like(self._kth)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"tau": self.tau, "updates": self.updates, "warmup_sum": self._warmup_sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        super().load_state_dict(state)
        self._warmup_sum = torch.as_tensor(state["warmup_sum"]).to(self._warmup_sum)
        self.updates = int(state["updates"])

    def _warm_up(self) -> None:
        if self.exact and not self._kth[1]:
            return
        if not self.exact and (self._histogram is None or not self._counts[1]):
            return
        kth = self._kth[0] / self._kth[1] if self.exact else self._warm_histogram().kth_largest(self.rate)
        self._warmup_sum = self._warmup_sum + kth
        self.updates += 1
        if self.ready:
            self.tau = self._warmup_sum / self.warmup

    def _warm_histogram(self) -> ScoreHistogram:
        if self._histogram is None:
            self._histogram = ScoreHistogram(self.tau.device)
        return self._histogram


class ExactTopK(Selection):
    """The k largest scores of each sample, by sorting (MEmeL, and No-Thr of L2E: 2.9, 2.27).

    Ties at the k-th place are all selected, as in MEmeL's code, but never a score of 0. `tau` is the mean of
    the k-th largest scores of the last update's samples; selection itself has no memory.

    Args:
        rate: share of a sample's scores, in (0, 1); at least one is selected.
        top_k: scores per sample in place of `rate`.
        device: where the state lies.
    """

    ready = True

    def __init__(self, rate: float, top_k: int | None = None, device: torch.device | str | None = None) -> None:
        super().__init__(rate, device)
        self.top_k = top_k
        self._kth = torch.zeros(2, device=device)  # sum of k-th largest scores, how many

    def limit(self, scores: Tensor) -> Tensor:
        """Just below the k-th largest score of each sample: [batch, 1, ...]."""
        flat = scores.flatten(1)
        k = self.top_k if self.top_k is not None else max(1, round(self.rate * flat.shape[1]))
        if k > flat.shape[1]:
            raise ValueError(f"top_k: {k} of {flat.shape[1]} neurons cannot be selected")
        kth = _kth_largest(flat, k)
        return torch.nextafter(kth, torch.zeros_like(kth)).view(-1, *[1] * (scores.dim() - 1))

    def record(self, selected: Tensor, total: Tensor, limit: Tensor) -> None:
        """Count a selection."""
        super().record(selected, total, limit)
        self._kth += torch.stack([limit.sum(), torch.full_like(self._kth[0], len(limit))])

    def pending(self) -> list[Tensor]:
        """See `Selection.pending`."""
        return [self._counts, self._kth]

    def step(self) -> Tensor:
        """Take the mean of the k-th scores as tau; see `Selection.step`."""
        total, samples = self._kth
        self.tau = torch.where(samples > 0, total / samples.clamp_min(1), self.tau)
        return super().step()

    def drop(self) -> None:
        """Forget what was counted since the last `step`."""
        super().drop()
        self._kth = torch.zeros_like(self._kth)


def _kth_largest(scores: Tensor, k: int) -> Tensor:
    """The k-th largest along the last dimension."""
    return scores.kthvalue(scores.shape[-1] - k + 1, dim=-1).values

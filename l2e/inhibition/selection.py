"""Which outputs are inhibited: the moving threshold (rows L13, L14)."""

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


class MovingThreshold:
    """tau: in each update about `rate` of all scores lie above it (Appendix A of L2E).

    In the first `warmup` updates nothing is selected; the k-th largest score of each is found (L13).
    Their mean starts tau, which then moves by selected/total - rate after each update (L14, Eq. 6 in
    fractions, because the paper's counts diverge with the batch size: 2.10).

    Args:
        rate: share of the outputs to select, in (0, 1).
        warmup: updates before selection starts, at least 1.
        device: where the state lies.
    """

    def __init__(self, rate: float, warmup: int = 10, device: torch.device | str | None = None) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie in (0, 1), not {rate}")
        if warmup < 1:
            raise ValueError(f"warmup must be at least 1, not {warmup}")
        self.rate = rate
        self.warmup = warmup
        self.tau = torch.full((), torch.nan, device=device)
        self.updates = 0
        self._warmup_sum = torch.zeros((), device=device)
        self._histogram: ScoreHistogram | None = None
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)  # selected, total

    @property
    def value(self) -> float:
        """The threshold; NaN while warming up. Waits for the device."""
        return float(self.tau)

    @property
    def ready(self) -> bool:
        """Whether warm-up is over and scores are selected."""
        return self.updates >= self.warmup

    def observe(self, scores: Tensor) -> Tensor:
        """Select and count.

        Args:
            scores: any shape, at least 0.

        Returns:
            Boolean mask of the same shape, scores > tau; nothing while warming up.
        """
        mask = scores > self.tau  # false against the NaN of the warm-up
        self._counts += torch.stack([mask.sum(), torch.full_like(self._counts[0], mask.numel())])
        if not self.ready:
            if self._histogram is None:
                self._histogram = ScoreHistogram(scores.device)
            self._histogram.add(scores)
        return mask

    def pending(self) -> list[Tensor]:
        """What this update has counted, to be summed over ranks in place before `step`."""
        return [self._counts] if self._histogram is None else [self._counts, self._histogram.counts]

    def step(self) -> Tensor:
        """End an update.

        Returns:
            int64 [2]: how many of this update's outputs were selected, and of how many. All 0, and
            nothing changed, when nothing was observed.
        """
        counts, self._counts = self._counts, torch.zeros_like(self._counts)
        if self._histogram is not None:
            self._warmup_sum = self._warmup_sum + self._histogram.kth_largest(self.rate)
            self._histogram = None
            self.updates += 1
            if self.ready:
                self.tau = self._warmup_sum / self.warmup
        elif self.ready:
            share = (counts[0] / counts[1].clamp_min(1)).float()
            self.tau = torch.where(counts[1] > 0, self.tau + share - self.rate, self.tau)
        return counts

    def state_dict(self) -> dict[str, Tensor | int]:
        """All that a resumed run needs."""
        return {"tau": self.tau, "updates": self.updates, "warmup_sum": self._warmup_sum}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take over a saved state."""
        self.tau = torch.as_tensor(state["tau"]).to(self.tau)
        self._warmup_sum = torch.as_tensor(state["warmup_sum"]).to(self._warmup_sum)
        self.updates = int(state["updates"])

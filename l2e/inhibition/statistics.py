"""What a tap knows of its outputs: their moments, and the threshold of their scores."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l2e.inhibition.config import InhibitionConfig
from l2e.inhibition.kernels import load_triton, takes_triton, torch_ops
from l2e.inhibition.moments import RunningMoments, ShiftedSums
from l2e.inhibition.reduce import SumOverRanks, largest_over_ranks, sum_over_ranks, world_size
from l2e.inhibition.rule import Purpose, Rule, View
from l2e.inhibition.score import inverse_spread
from l2e.inhibition.selection import ExactTopK, MovingThreshold, Selection


class Statistics:
    """Gathers the outputs of forward passes and merges them, over all ranks, into moments and threshold.

    `scope: step` merges at the end of each optimizer step, `scope: micro_batch` at the end of each pass.

    Attributes:
        moments: of each neuron; None before the first pass.
        threshold: how outputs are selected.
        updates: optimizer steps done.
        selected_share: of the outputs scored in the last merge; NaN before there is one.
    """

    def __init__(self, config: InhibitionConfig, name: str) -> None:
        self.config = config
        self.name = name
        self.moments: RunningMoments | None = None
        self.threshold = self._new_threshold(None)
        self.updates = 0
        self.selected_share = torch.tensor(torch.nan)
        self._sums: ShiftedSums | None = None

    def observe(self, values: Tensor, purpose: Purpose = "count") -> View | None:
        """Gather one micro-batch of outputs [batch, *shape], score, select and count.

        Args:
            values: the outputs, without a graph.
            purpose: what the selected are found for.

        Returns:
            What was found; None while nothing is selected.

        Raises:
            ValueError: the samples have another shape than before.
            FloatingPointError: values are not finite (`scope: micro_batch`; `Inhibition.step` says so otherwise).
        """
        moments = self._make_room(values)
        each_pass, late = self.config.scope == "micro_batch", self.config.update_first
        scored, ready = moments.updates >= self.config.late_start, moments.merges >= self.config.late_start
        view = self._look(values, ready if scored and not late else None, purpose, gather=True)
        if each_pass:
            start_sharing([self]).wait()
            require_finite([self])
        if late:
            self._merge()
            view = self._look(values, ready, purpose, gather=False) if scored else None
        if each_pass:
            sum_over_ranks(self.threshold.pending() if scored else [])
            selecting = self.threshold.ready
            self._merge()
            self._end_selection()
            return view if selecting else None
        return view if self.threshold.ready else None

    def look_again(self, values: Tensor, rule: Rule, purpose: Purpose) -> View:
        """What was found in outputs that are recomputed; counts nothing. An exact limit belongs to its samples."""
        find_limit = self.threshold.limit if isinstance(self.threshold, ExactTopK) else None
        if takes_triton(self.config.kernel, values, rule.mean):
            return load_triton().look(values, rule, purpose, find_limit, None)
        return torch_ops.look(values, rule, purpose, find_limit)

    @property
    def selects(self) -> bool:
        """Whether late start and warm-up are over."""
        late = self.moments is None or self.moments.updates < self.config.late_start
        return not late and self.threshold.ready

    @property
    def positions(self) -> int | None:
        """How many positions of a sample are known; None where all are pooled, or a sample has none."""
        if self.config.neurons == "channel" or self.moments is None or self.moments.mean.dim() < 2:
            return None
        return self.moments.mean.shape[0]

    def look(self, values: Tensor, purpose: Purpose) -> View:
        """What the statistics as they are find in outputs [batch, *shape]; nothing is gathered or counted.

        Only once it `selects`, and for at most `positions` positions.
        """
        assert self.moments is not None
        inverse = self._inverse_spread(self.moments.merges >= self.config.late_start)
        mean = self._broadcast(self.moments.mean, values)
        return self.look_again(values, Rule(mean, self._broadcast(inverse, values), self.threshold.tau), purpose)

    def step(self) -> None:
        """End an optimizer step; what was gathered has been summed over the ranks."""
        self.updates += 1
        self._merge()
        if self.config.scope == "step":
            self._end_selection()

    def drop(self) -> None:
        """Forget what was gathered since the last merge."""
        self._sums = None
        self.threshold.drop()

    def gathered(self) -> int:
        """How many positions the gathered samples have; 0 without any."""
        return 0 if self._sums is None else self._sums.shift.shape[0]

    def prepare(self, length: int) -> None:
        """Hold sums of `length` positions, those of the rank with the longest samples."""
        if not length or self.moments is None:
            return
        if self.moments.mean.dim() > 1:
            self.moments.grow(length)
        if self._sums is None:
            self._sums = ShiftedSums(self.moments.mean)
        self._sums.grow(self.moments.mean.shape[0])

    def first_shift(self) -> Tensor | None:
        """Before the first merge: the mean about which this rank took its sums."""
        first = self._sums is not None and self.moments is not None and not self.moments.updates
        return self._sums.shift if first and self._sums is not None else None

    def rebase(self, shift: Tensor) -> None:
        """Express the sums about a shift that all ranks share."""
        if self._sums is not None:
            self._sums.rebase(shift)

    def sums(self) -> list[Tensor]:
        """The sums for the moments, to be added over ranks in place."""
        return [] if self._sums is None else [self._sums.first, self._sums.second, self._sums.size]

    def counts(self) -> list[Tensor]:
        """The counts for the threshold, likewise."""
        if self._sums is None or self.moments is None or self.moments.updates < self.config.late_start:
            return []
        return self.threshold.pending()

    def finite(self) -> Tensor | None:
        """Whether all that was gathered is finite, 0-dim; None when nothing was."""
        return None if self._sums is None else (self._sums.first.sum() + self._sums.second.sum()).isfinite()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, between optimizer steps."""
        moments = self.moments.state_dict() if self.moments is not None and self.moments.updates else None
        return {"updates": self.updates, "moments": moments, "threshold": self.threshold.state_dict()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over a saved state."""
        self.drop()
        self.updates = state["updates"]
        self.threshold = self._new_threshold(device)
        self.threshold.load_state_dict(state["threshold"])
        self.moments = None
        if state["moments"] is not None:
            self.moments = self._new_moments(state["moments"]["mean"].shape, device)
            self.moments.load_state_dict(state["moments"])

    def _new_threshold(self, device: torch.device | None) -> Selection:
        config = self.config
        if config.recipe.selection == "exact":
            return ExactTopK(config.rate, config.top_k, device)
        return MovingThreshold(config.rate, config.warmup, device, exact=config.scope == "micro_batch")

    def _new_moments(self, shape: torch.Size, device: torch.device) -> RunningMoments:
        return RunningMoments(shape, self.config.forget_after, device, self.config.count_offset)

    def _make_room(self, values: Tensor) -> RunningMoments:
        """Moments and sums for samples like these."""
        if values.dim() < 2:
            raise ValueError(f"{self.name} gave outputs of shape {list(values.shape)}; expected [batch, ..., neurons]")
        found = self._shape(values)
        if self.moments is None:
            self.moments = self._new_moments(found, values.device)
            self.threshold = self._new_threshold(values.device)
        moments = self.moments
        known = moments.mean.shape
        if len(found) != len(known) or found[min(1, len(found) - 1) :] != known[min(1, len(known) - 1) :]:
            raise ValueError(
                f"{self.name} gave outputs of shape {list(found)} per sample after {list(known)}: only the number of "
                f"positions, the first of at least two dimensions, may change; neurons=channel pools all positions"
            )
        if self._sums is None:
            self._sums = ShiftedSums(moments.mean if moments.updates else self._samples(values).mean(0).contiguous())
        if len(found) > 1:
            moments.grow(found[0])
        self._sums.grow(moments.mean.shape[0])
        return moments

    def _look(self, values: Tensor, ready: Tensor | None, purpose: Purpose, gather: bool) -> View | None:
        """Gather outputs, and score them where it is said which positions are ready for it."""
        assert self.moments is not None
        assert self._sums is not None or not gather
        # The sums of an update are about the mean that it is scored with; before a first merge there is none.
        mean = self._broadcast(self._sums.shift if gather and self._sums is not None else self.moments.mean, values)
        triton = takes_triton(self.config.kernel, values, mean)
        if gather and self._sums is not None and (ready is None or not triton or not self.threshold.ready):
            if triton:
                load_triton().gather(values, self._sums, mean)
            else:
                self._sums.add(self._samples(values))
            gather = False
        if ready is None:
            return None
        rule = Rule(mean, self._broadcast(self._inverse_spread(ready), values), self.threshold.tau)
        find_limit = self.threshold.limit if isinstance(self.threshold, ExactTopK) else None
        # The warm-up needs every score, which Triton's kernel does not write.
        if triton and self.threshold.ready:
            view = load_triton().look(values, rule, purpose, find_limit, self._sums if gather else None)
        else:
            view = torch_ops.look(values, rule, purpose, find_limit)
        ready = ready[: values.shape[1]]
        total = ready.sum() * (values.numel() // ready.numel())
        self.threshold.record(view.selected, total, view.rule.limit)
        if view.scores is not None:
            self.threshold.warm(view.scores, total)
        return view

    def _inverse_spread(self, ready: Tensor) -> Tensor:
        """What squared deviations are multiplied by; fp32, shape of the moments. Not kept: a tap holds four numbers."""
        assert self.moments is not None
        var, seen = self.moments.var, self.moments.count > 0
        typical = var.sum() / (seen.sum() * (var.numel() // seen.numel())).clamp_min(1)
        # A position that was not there in enough updates scores 0.
        return inverse_spread(var, self.config.compensation, typical) * ready

    def _merge(self) -> None:
        if self._sums is not None and self.moments is not None:
            self.moments.merge(*self._sums.moments())
            self._sums = None

    def _end_selection(self) -> None:
        selecting = self.threshold.ready
        counts = self.threshold.step()
        self.selected_share = counts[0] / counts[1] if selecting else torch.tensor(torch.nan)

    def _samples(self, values: Tensor) -> Tensor:
        """One row per sample of a neuron, in fp32: [batch, *shape], or [batch x positions, channels] when pooled."""
        if self.config.neurons == "position":
            return values.float()
        return values.float().movedim(self.config.channel_dim, -1).flatten(0, -2)

    def _shape(self, values: Tensor) -> torch.Size:
        """Of one such row."""
        position = self.config.neurons == "position"
        return values.shape[1:] if position else torch.Size([values.shape[self.config.channel_dim]])

    def _broadcast(self, statistic: Tensor, values: Tensor) -> Tensor:
        if self.config.neurons == "position":
            return statistic[: values.shape[1]]
        shape = [1] * values.dim()
        shape[self.config.channel_dim] = -1
        return statistic.view(shape)


def start_sharing(taps: Sequence[Statistics]) -> SumOverRanks:
    """Begin to give every rank the sums of all ranks; every rank must call it.

    Ranks may have seen sequences of other lengths, or nothing at all. Before the first merge each has its
    sums about its own mean, and a common one must be found first.

    Args:
        taps: the same ones on each rank. Nothing may be gathered until the sums are there.

    Raises:
        RuntimeError: on all ranks, when one has never seen outputs that another has.
    """
    if world_size() > 1:
        _agree(taps)
    counts = [count for tap in taps if tap.config.scope == "step" for count in tap.counts()]
    return SumOverRanks([*(tensor for tap in taps for tensor in tap.sums()), *counts])


def _agree(taps: Sequence[Statistics]) -> None:
    lengths = largest_over_ranks([value for tap in taps for value in (tap.gathered(), int(tap.moments is None))])
    for tap, length, unknown in zip(taps, lengths[::2], lengths[1::2], strict=True):
        if length and unknown:
            raise RuntimeError(f"{tap.name} has run on some ranks but not on all; each needs data in the first update")
        tap.prepare(length)
    first = [(tap, shift / world_size()) for tap in taps if (shift := tap.first_shift()) is not None]
    sum_over_ranks([shift for _, shift in first])
    for tap, shift in first:
        tap.rebase(shift)


def require_finite(taps: Sequence[Statistics]) -> None:
    """Refuse outputs that are not finite, before they reach the statistics; waits for the device.

    Raises:
        FloatingPointError: names the first such block; all that was gathered has been dropped.
    """
    checks = [(tap, finite) for tap in taps if (finite := tap.finite()) is not None]
    verdicts = torch.stack([finite for _, finite in checks]).tolist() if checks else []
    for (tap, _), fine in zip(checks, verdicts, strict=True):
        if not fine:
            for each in taps:
                each.drop()
            raise FloatingPointError(
                f"{tap.name} gave NaN or infinite outputs in update {tap.updates + 1}; "
                f"its statistics are those of before. Look for a learning rate that is too high, or resume from the "
                f"last checkpoint with other settings"
            )

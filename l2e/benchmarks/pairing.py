"""Ratios to a baseline on a machine whose speed drifts: each timing stands between two of the baseline."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

BASELINE = "none"


class Timing(NamedTuple):
    """Seconds per step: on the clock, and of all the process's threads together."""

    wall: float
    cpu: float


Round = tuple[list[str], list[Timing]]
"""What was timed, in its order, and the timings."""


def round_order(methods: Sequence[str], round_index: int) -> list[str]:
    """What one round times: baseline, method, baseline, method ... baseline.

    The methods are rotated from round to round, so that each takes every place. The baseline may be
    one of the methods: its ratios then show what the machine's noise alone does.
    """
    first = round_index % len(methods)
    order = [BASELINE]
    for method in [*methods[first:], *methods[:first]]:
        order += [method, BASELINE]
    return order


def paired_ratios(order: Sequence[str], times: Sequence[float]) -> list[tuple[str, float, float]]:
    """Each method's time over the mean of its two neighbours, the baseline's: a steady drift cancels.

    Args:
        order: of `round_order`.
        times: one for each entry of `order`, in any unit.

    Returns:
        (method, its time, its ratio), in the order of the round.
    """
    return [(order[i], times[i], 2 * times[i] / (times[i - 1] + times[i + 1])) for i in range(1, len(order), 2)]


def series(rounds: Sequence[Round], method: str, clock: Literal["wall", "cpu"]) -> tuple[list[float], list[float]]:
    """A method's times and its ratios, one of each per round, by one of the clocks of `Timing`."""
    pairs = [paired_ratios(order, [getattr(timing, clock) for timing in timings]) for order, timings in rounds]
    own = [(seconds, ratio) for pair in pairs for name, seconds, ratio in pair if name == method]
    return [seconds for seconds, _ in own], [ratio for _, ratio in own]


def median(values: Sequence[float]) -> float:
    """The median; the mean of the middle two of an even number."""
    return quantile(values, 0.5)


def quartiles(values: Sequence[float]) -> list[float]:
    """The 25% and the 75% quantile."""
    return [quantile(values, 0.25), quantile(values, 0.75)]


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile, interpolated between neighbours."""
    return float(torch.tensor(values, dtype=torch.float64).quantile(share))

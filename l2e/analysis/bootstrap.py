"""Intervals by resampling: how far a mean would move with other neurons or other sequences."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


class Interval(NamedTuple):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


def weights(count: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each of `count` units is drawn in each resample, [resamples, count]; rows sum up to `count`."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def mean_interval(values: NDArray[np.floating], resamples: int, seed: int) -> Interval:
    """The mean with its percentile interval over resampled units.

    Args:
        values: [units], at least one; a single unit has no interval (NaN).
        resamples: draws of as many units, with replacement.
        seed: the same seed gives the same interval.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), float("nan"), float("nan"))
    return percentiles(float(values.mean()), weights(len(values), resamples, seed) @ values / len(values))


def difference_interval(
    ours: NDArray[np.floating], theirs: NDArray[np.floating], resamples: int, seed: int
) -> Interval:
    """Difference of two means, both groups of units resampled by themselves; see `mean_interval`."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    value = float(ours.mean() - theirs.mean())
    if min(len(ours), len(theirs)) < 2:
        return Interval(value, float("nan"), float("nan"))
    one = weights(len(ours), resamples, seed) @ ours / len(ours)
    other = weights(len(theirs), resamples, seed + 1) @ theirs / len(theirs)
    return percentiles(value, one - other)


def percentiles(value: float, resampled: NDArray[np.floating], between: bool = True) -> Interval:
    """`value` with the middle 95% of what resampling made of it; NaN there is left out.

    Without `between` the ends are values that occurred, for numbers that come from a list.
    """
    method: Literal["linear", "inverted_cdf"] = "linear" if between else "inverted_cdf"
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method=method)
    return Interval(value, float(low), float(high))

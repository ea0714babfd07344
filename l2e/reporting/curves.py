"""Arithmetic on logged curves: smoothing for the eye, thinning for the file size."""

import numpy as np
from numpy.typing import NDArray

from l2e.reporting.runs import RunRecord, Series

Values = NDArray[np.float64]


def window_for(points: int) -> int:
    """The smoothing window: a fiftieth of the curve, odd, at most 201 points."""
    return min(points // 50, 200) // 2 * 2 + 1


def moving_average(values: Values, window: int) -> Values:
    """The mean over `window` (odd) logged points around each point, over fewer at the ends.

    Centred, so that the curve does not lag behind the validation points. What is not finite is left out of the
    mean and stays a gap in the curve.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    centre = np.arange(len(values))
    low, high = np.maximum(centre - window // 2, 0), np.minimum(centre + window // 2 + 1, len(values))
    mean = (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1)
    return np.where(finite, mean, np.nan)


def smoothed(series: Series) -> Series:
    """The curve as the figures draw it and the tables end it."""
    return Series(series.steps, moving_average(series.values, window_for(len(series.values))))


def thinned(series: Series, bins: int = 600) -> Series:
    """At most two points per bin, its lowest and its highest: looks the same, and the file stays small."""
    if len(series.steps) <= 2 * bins:
        return series
    keep: list[int] = []
    for part in np.array_split(np.arange(len(series.steps)), bins):
        values = series.values[part]
        finite = part[np.isfinite(values)]
        if len(finite):
            ends = {int(finite[series.values[finite].argmin()]), int(finite[series.values[finite].argmax()])}
            keep += sorted(ends)
        else:
            keep.append(int(part[0]))
    return Series(series.steps[keep], series.values[keep])


def minus(series: Series, other: Series) -> Series:
    """The difference at the steps that both curves have."""
    steps, ours, theirs = np.intersect1d(series.steps, other.steps, return_indices=True)
    return Series(steps, series.values[ours] - other.values[theirs])


def last(series: Series) -> tuple[int, float] | None:
    """The last step and its value, if anything was logged."""
    return (int(series.steps[-1]), float(series.values[-1])) if len(series.steps) else None


def non_finite_steps(run: RunRecord) -> list[int]:
    """The updates whose training loss was NaN or infinite."""
    loss = run.series("loss")
    return [int(step) for step in loss.steps[~np.isfinite(loss.values)]]


def final_loss(run: RunRecord) -> tuple[float, int]:
    """The mean training loss over the last smoothing window, and the number of points in it; NaN if none."""
    values = run.series("loss").values
    window = min(window_for(len(values)), len(values))
    return (float(values[-window:].mean()), window) if window else (float("nan"), 0)

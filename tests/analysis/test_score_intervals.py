"""Intervals of means, and thresholds of runs against the baseline of the same seed."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from l2e.analysis import dynamics
from l2e.analysis.bootstrap import difference_interval, mean_interval, percentiles, weights
from l2e.analysis.dynamics_settings import DynamicsConfig


def test_intervals() -> None:
    values = np.random.default_rng(0).exponential(size=80)
    found = mean_interval(values, 20_000, 0)
    scipys = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=0.02)
    others = values[:40] + 1
    two = difference_interval(others, values, 20_000, 0)
    scipys = bootstrap(
        (others, values), lambda a, b, axis: a.mean(axis) - b.mean(axis), method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    assert (two.low, two.high) == pytest.approx((scipys.low, scipys.high), abs=0.03)
    assert mean_interval(values, 100, 5) == mean_interval(values, 100, 5)
    assert all(math.isnan(end) for end in mean_interval(values[:1], 100, 0)[1:])
    assert percentiles(0.1, np.array([0.1] * 96 + [0.4] * 4), between=False) == (0.1, 0.1, 0.4)
    assert (weights(7, 50, 0).sum(axis=1) == 7).all()


def threshold(setting: str, seed: int, level: float, selected: float = 0.02) -> dynamics.ThresholdCurve:
    steps = np.arange(1, 101)
    values = np.where(steps <= 20, np.nan, 9.0)
    values[90:] = level + np.array([-0.5, 0.5] * 5)
    return dynamics.ThresholdCurve("tiny", setting, seed, "2", steps, values, np.full(100, selected), 0.02)


def test_threshold_differences_are_paired_by_seed() -> None:
    ours, theirs = {1: 4.0, 2: 4.5, 3: 4.2, 9: 1.0}, {1: 5.0, 2: 5.1, 3: 5.6, 8: 7.0}
    curves = [threshold("l2e", seed, level) for seed, level in ours.items()]
    curves += [threshold("baseline", seed, level) for seed, level in theirs.items()]
    ends = dynamics.levels(DynamicsConfig(), curves)
    assert [end.value for end in ends] == pytest.approx([*ours.values(), *theirs.values()])
    (change,) = dynamics.changes(ends)
    assert change.seeds == (1, 2, 3)
    assert change.differences == pytest.approx((-1.0, -0.6, -1.4))
    interval = ttest_1samp(change.differences, 0).confidence_interval(0.95)
    assert change.mean == pytest.approx((-1.0, interval.low, interval.high))
    one = dynamics.changes([end for end in ends if end.curve.seed == 1])[0].mean
    assert one.value == pytest.approx(-1)
    assert math.isnan(one.low)
    assert dynamics.changes([end for end in ends if end.curve.setting == "l2e"]) == []
    assert [end.settled for end in dynamics.levels(DynamicsConfig(), [threshold("l2e", 1, 5, 0.002)])] == [False]

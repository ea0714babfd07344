import numpy as np
import pytest

from l2e.reporting.curves import minus, moving_average, thinned, window_for
from l2e.reporting.runs import Series


def series(values: list[float], first: int = 1) -> Series:
    return Series(np.arange(first, first + len(values)), np.array(values, dtype=np.float64))


def test_smoothing_by_hand() -> None:
    found = moving_average(np.array([1.0, 2.0, 6.0, 3.0, 0.0]), window=3)
    assert found == pytest.approx([1.5, 3.0, 11 / 3, 3.0, 1.5])


def test_smoothing_leaves_out_what_is_not_finite() -> None:
    found = moving_average(np.array([1.0, np.nan, 5.0, np.inf, 7.0]), window=3)
    assert found == pytest.approx([1.0, np.nan, 5.0, np.nan, 7.0], nan_ok=True)


def test_smoothing_against_numpy() -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    found = moving_average(values, window=21)
    assert found[10:-10] == pytest.approx(np.convolve(values, np.ones(21) / 21, mode="valid"))


def test_the_window_is_odd_and_bounded() -> None:
    windows = [window_for(points) for points in range(0, 40_000, 7)]
    assert all(window % 2 == 1 for window in windows)
    assert (min(windows), max(windows)) == (1, 201)
    assert moving_average(np.array([]), 1).shape == (0,)


def test_thinning_keeps_the_extremes() -> None:
    values = np.random.default_rng(0).standard_normal(50_000)
    values[[100, 200]] = [99, np.nan]
    thin = thinned(Series(np.arange(50_000), values))
    assert len(thin.steps) <= 1200
    assert (np.diff(thin.steps) > 0).all()
    assert np.nanmax(thin.values) == 99
    assert np.nanmin(thin.values) == np.nanmin(values)


def test_differences_are_taken_at_common_steps() -> None:
    found = minus(series([5, 6, 7], first=1), series([1, 1, 1], first=2))
    assert found.steps.tolist() == [2, 3]
    assert found.values.tolist() == [5, 6]

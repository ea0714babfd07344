"""Spikes in the loss: what is told, once, and what is not."""

import logging
import math

import numpy as np
import pytest

from l2e.training.callbacks.spikes import SpikeCallback
from l2e.training.spikes import SpikeConfig, SpikeDetector

STEPS = 2000


def curve(seed: int = 0, noise: float = 0.02) -> np.ndarray:
    """A loss that falls from 11 as a power of the step, as a language model's does, with noise."""
    steps = np.arange(1, STEPS + 1)
    return 2.0 + 9.0 * steps**-0.35 + np.random.default_rng(seed).normal(0, noise, STEPS)


def alarms(losses: np.ndarray, **settings: float) -> list[int]:
    """Indices of the losses that start a spike."""
    detector = SpikeDetector(SpikeConfig(**settings))  # type: ignore[arg-type]
    return [index for index, loss in enumerate(losses.tolist()) if detector.starts_spike(loss)]


def test_the_limit_by_hand() -> None:
    detector = SpikeDetector(SpikeConfig(window=10, deviations=3.0))
    for loss in (5.0, 1.0, 4.0, 2.0, 3.0):
        detector.starts_spike(loss)
    # Median 3; distances 2, 2, 1, 1, 0 with median 1; 3 standard deviations of 1.4826.
    assert detector.limit() == pytest.approx(3 + 3 * 1.4826)
    assert not detector.starts_spike(7.4)
    # 1, 2, 3, 4, 5, 7.4: median 3.5, distances 2.5, 1.5, .5, .5, 1.5, 3.9 with median 1.5.
    assert detector.limit() == pytest.approx(3.5 + 3 * 1.4826 * 1.5)
    assert detector.starts_spike(10.2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.005, 0.02, 0.2])
def test_an_ordinary_curve_raises_no_alarm_not_even_at_its_steep_start(seed: int, noise: float) -> None:
    assert alarms(curve(seed, noise)) == []


def test_a_warm_up_that_stands_still_and_then_falls_raises_none() -> None:
    assert alarms(np.concatenate([np.full(30, 11.0), curve()])) == []


def test_a_spike_is_told_at_its_first_update_and_once() -> None:
    losses = curve()
    losses[700:730] += np.linspace(3.0, 0.3, 30)
    assert alarms(losses) == [700]


def test_a_spike_that_flickers_is_told_once_and_a_second_one_again() -> None:
    losses = curve()
    losses[700:720:3] += 2.0  # down to usual for two updates, up again
    losses[1500:1503] += 2.0
    assert alarms(losses) == [700, 1500]


def test_a_loss_that_stays_up_is_told_once_and_becomes_usual() -> None:
    losses = curve()
    losses[700:] += 1.5
    losses[1400] += 2.0
    assert alarms(losses) == [700, 1400]


def test_a_constant_loss_has_no_spread_and_a_hundredth_more_is_no_spike() -> None:
    losses = np.full(300, 4.0)
    losses[200] = 4.03
    losses[250] = 4.05
    assert alarms(losses) == [250]


def test_nothing_is_judged_before_a_fifth_of_the_window() -> None:
    losses = np.full(60, 4.0)
    losses[19] = 40.0
    assert alarms(losses) == []
    losses[19], losses[20] = 4.0, 40.0
    assert alarms(losses) == [20]


def test_what_is_no_number_is_not_judged_by() -> None:
    losses = curve()
    losses[300:400] = math.nan
    losses[400:420] = math.inf
    losses[700] += 2.0
    assert alarms(losses) == [700]


def test_zero_deviations_warn_of_nothing() -> None:
    losses = curve()
    losses[700] += 5
    assert alarms(losses, deviations=0.0) == []


@pytest.mark.parametrize("cut", [690, 701, 703])
def test_a_restart_judges_as_if_nothing_had_happened(cut: int) -> None:
    losses = curve()
    losses[700:706] += 2.0
    first = SpikeDetector(SpikeConfig())
    before = [index for index in range(cut) if first.starts_spike(losses[index])]
    second = SpikeDetector(SpikeConfig())
    second.load_state_dict(first.state_dict())
    after = [index for index in range(cut, STEPS) if second.starts_spike(losses[index])]
    assert before + after == [700]


def test_the_line_names_update_loss_range_and_rows(caplog: pytest.LogCaptureFixture) -> None:
    callback = SpikeCallback(SpikeConfig(window=10), batch_size=8)
    with caplog.at_level(logging.WARNING, "l2e"):
        callback([{"step": step, "loss": 4.0} for step in range(1, 41)])
        assert not caplog.records
        callback([{"step": 0, "validation_loss": 9.0}, {"step": 41, "loss": None}, {"step": 42, "loss": 5.5}])
    (record,) = caplog.records
    # Update 42 is number 41 from 0: rows 8 x 41 = 328 to 335.
    assert record.getMessage() == (
        "update 42: loss 5.5000, usual is up to 4.0400; rows 328 to 335, shown by scripts/prepare.py show=rows step=41"
    )


@pytest.mark.parametrize("settings", [{"window": 9}, {"deviations": -1.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SpikeConfig(**settings)  # type: ignore[arg-type]

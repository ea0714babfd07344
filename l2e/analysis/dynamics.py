"""Does inhibition lower monosemanticity? The threshold over training, with and without it (L26, Figure 12)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from l2e.analysis.bootstrap import LEVEL, Interval
from l2e.analysis.dynamics_settings import DynamicsConfig


@dataclass(frozen=True)
class ThresholdCurve:
    """The moving threshold of one tapped block of one run."""

    model: str
    setting: str
    """What was done: the method with its settings, the same for all seeds; "baseline" for nothing."""
    seed: int
    block: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    """NaN before the warm-up ended."""
    selected: NDArray[np.float64]
    """Share of the outputs above the threshold, at the same steps."""
    rate: float
    """Share that the threshold aims at."""


@dataclass(frozen=True)
class Level:
    """Where the threshold of one run and block ended."""

    curve: ThresholdCurve
    value: float
    """Mean over the tail."""
    selected: float
    """Mean over the tail."""

    @property
    def settled(self) -> bool:
        """Whether it selects what it aims at, to a quarter; else it says little about the scores."""
        return abs(self.selected - self.curve.rate) <= 0.25 * self.curve.rate


@dataclass(frozen=True)
class LevelChange:
    """A setting minus the baseline at one block of one model, paired by seed."""

    model: str
    setting: str
    block: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: Interval
    """Over seeds, with Student's t; no interval for one seed."""


def levels(settings: DynamicsConfig, curves: Sequence[ThresholdCurve]) -> list[Level]:
    """The end of every curve that has a finite value in its tail."""
    found = []
    for curve in curves:
        tail = curve.steps > (1 - settings.tail) * curve.steps.max(initial=0)
        usable = tail & np.isfinite(curve.values)
        if usable.any():
            selected = (
                float(np.nanmean(curve.selected[usable])) if np.isfinite(curve.selected[usable]).any() else math.nan
            )
            found.append(Level(curve, float(curve.values[usable].mean()), selected))
    return found


def changes(ends: Sequence[Level]) -> list[LevelChange]:
    """Every setting against the baseline, block by block; empty where no seed has both."""
    found = []
    keys = dict.fromkeys((end.curve.model, end.curve.setting, end.curve.block) for end in ends)
    for model, setting, block in keys:
        ours, theirs = (
            {end.curve.seed: end.value for end in ends if key == (end.curve.model, end.curve.setting, end.curve.block)}
            for key in ((model, setting, block), (model, "baseline", block))
        )
        seeds = tuple(sorted(set(ours) & set(theirs)))
        if setting != "baseline" and seeds:
            differences = tuple(ours[seed] - theirs[seed] for seed in seeds)
            found.append(LevelChange(model, setting, block, seeds, differences, _interval(differences)))
    return found


def _interval(differences: Sequence[float]) -> Interval:
    mean, n = float(np.mean(differences)), len(differences)
    if n < 2:
        return Interval(mean, math.nan, math.nan)
    reach = float(student.ppf((1 + LEVEL) / 2, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - reach, mean + reach)

"""Curves of a study: the runs of one method together, their mean over seeds on top."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from l2e.reporting import drawing
from l2e.reporting.cells import MISSING, Table, decimals
from l2e.reporting.curves import final_loss, last, thinned
from l2e.reporting.drawing import finite
from l2e.reporting.runs import RunRecord, Series
from l2e.reporting.study import BASELINE, Group

Look = dict[str, Any]
"""Colour and line of a method."""


@dataclass(frozen=True)
class Bundle:
    """One measure of the runs of a method: a series for each seed that has it, and their mean."""

    group: Group
    seeds: dict[int, Series]
    mean: Series


def bundle(group: Group, measure: Callable[[RunRecord], Series]) -> Bundle | None:
    """The series of a group; the mean is taken at the steps that all of its seeds have. None without any."""
    seeds = {seed: found for seed, run in group.runs.items() if len((found := measure(run)).steps)}
    if not seeds:
        return None
    return Bundle(group, seeds, mean_of(list(seeds.values())))


def mean_of(series: Sequence[Series]) -> Series:
    """The mean at common steps; NaN where one of them is not finite."""
    steps = series[0].steps
    for one in series[1:]:
        steps = np.intersect1d(steps, one.steps)
    values = [one.values[np.isin(one.steps, steps)] for one in series]
    return Series(steps, np.mean(values, axis=0))


def look_of(groups: Sequence[Group], setting: str) -> Look:
    """A method's colour, the same in all figures of a study; the baseline is grey."""
    others = [name for name in dict.fromkeys(group.setting for group in groups) if name != BASELINE]
    if setting == BASELINE:
        return {"color": drawing.BASELINE, "linestyle": "-"}
    return {"color": drawing.COLOURS[others.index(setting) % len(drawing.COLOURS)], "linestyle": "-"}


def draw_bundle(axes: Axes, one: Bundle, look: Look) -> None:
    """Each seed faint, the mean over it."""
    if len(one.seeds) > 1:
        for series in one.seeds.values():
            thin = thinned(series)
            axes.plot(thin.steps, finite(thin.values), alpha=0.3, linewidth=0.6, **look)
    mean = thinned(one.mean)
    axes.plot(mean.steps, finite(mean.values), label=one.group.setting, linewidth=1.4, **look)


def in_order(groups: Sequence[Group]) -> list[Group]:
    """The baseline first, and drawn first; then as given."""
    return sorted(groups, key=lambda group: group.setting != BASELINE)


def scales_of(groups: Sequence[Group]) -> list[str]:
    """The model sizes in the order given."""
    return list(dict.fromkeys(group.scale for group in groups))


def of_scale(groups: Sequence[Group], scale: str) -> list[Group]:
    """The groups of one model size."""
    return [group for group in in_order(groups) if group.scale == scale]


def seeds_text(groups: Sequence[Group]) -> str:
    """How lines and seeds go together, for a caption."""
    if all(len(group.runs) == 1 for group in groups):
        return "One seed per method."
    return "Faint: each seed; line: mean over the seeds."


def study_loss_table(groups: Sequence[Group]) -> Table | None:
    """The losses at the end by method: mean over seeds ± their standard deviation; None if nothing was trained."""
    rows = []
    for group in (group for scale in scales_of(groups) for group in of_scale(groups, scale)):
        validated = _last_validation(group)
        base = next((_last_validation(one) for one in of_scale(groups, group.scale) if one.setting == BASELINE), {})
        changes = [loss - base[key] for key, loss in validated.items() if key in base and group.setting != BASELINE]
        trained = [final_loss(run)[0] for run in group.runs.values() if len(run.series("loss").steps)]
        if trained:
            cells = (_spread(trained), _spread(list(validated.values())), _spread(changes, sign=True))
            rows.append([group.scale, group.setting, str(len(group.runs)), *cells])
    caption = (
        "At the end of the runs, in nats per token: mean over seeds ± their standard deviation. Training loss: mean "
        "over the last smoothing window. Minus Pythia: of the validation loss, at the same seed and step; under zero "
        "is better."
    )
    header = ["size", "method", "seeds", "training\nloss", "validation\nloss", "minus\nPythia"]
    return Table("Loss", caption, header, rows, 2) if rows else None


def _last_validation(group: Group) -> dict[tuple[int, int], float]:
    """The last validation loss by seed and step."""
    ends = {seed: last(run.series("validation_loss")) for seed, run in group.runs.items()}
    return {(seed, end[0]): end[1] for seed, end in ends.items() if end}


def _spread(values: Sequence[float], sign: bool = False) -> str:
    if not values:
        return MISSING
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return decimals(float(np.mean(values)), 3, sign) + spread

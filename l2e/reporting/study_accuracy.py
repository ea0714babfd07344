"""Accuracy over training steps, where checkpoints of a trajectory were evaluated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from l2e.reporting import drawing
from l2e.reporting.drawing import step_axis
from l2e.reporting.pictures import Picture, finish
from l2e.reporting.results import Column, cells_at
from l2e.reporting.runs import TaskResult
from l2e.reporting.study import Group
from l2e.reporting.study_curves import look_of, of_scale, scales_of

_CAPTION = (
    "acc at each evaluated checkpoint. {whiskers} Dotted: chance. Watch whether a difference at the end is there "
    "before it, too: one that comes and goes is noise."
)


def accuracy_over_steps(groups: Sequence[Group]) -> list[Picture]:
    """A figure for each model size whose runs were evaluated at several steps."""
    found = [(scale, of_scale(groups, scale)) for scale in scales_of(groups)]
    return [_figure(groups, scale, here) for scale, here in found if any(len(_steps(group)) > 1 for group in here)]


def _figure(groups: Sequence[Group], scale: str, here: Sequence[Group]) -> Picture:
    columns = sorted({column for group in here for step in _steps(group) for column in _cells(group, step)})
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        height = -(-len(columns) // 2)
        figure = drawing.new_figure(0.8 + 1.7 * height)
        grid = figure.subplots(height, 2, squeeze=False).ravel()
        for axes, column in zip(grid, columns, strict=False):
            for place, group in enumerate(here):
                points = _points(group, column)
                rows += [(scale, group.setting, column[1], column[0], *point) for point in points]
                _draw(axes, points, look_of(groups, group.setting)["color"], place - (len(here) - 1) / 2)
            chance = [result.chance for group in here for step in _steps(group) for result in _at(group, step, column)]
            axes.axhline(chance[0], color="black", linewidth=0.9, linestyle=drawing.LINES[2])
            axes.set_title(f"{column[1]}, {column[0]}-shot", loc="left", fontsize=9)
            axes.set_ylabel("acc (share of items)")
            step_axis(axes, ticks=4)
        for axes in grid[len(columns) :]:
            axes.set_visible(False)
        looks = {group.setting: {"color": look_of(groups, group.setting)["color"], "marker": "o"} for group in here}
        drawing.legend_of(figure, looks)
        several = any(len(group.runs) > 1 for group in here)
        whiskers = (
            "Dots: mean over the seeds; whiskers: their standard deviation, or one standard error of the items where "
            "there is one seed."
            if several
            else "Whiskers: one standard error of the items."
        )
        header = ("size", "method", "task", "num_fewshot", "step", "acc", "whisker", "seeds")
        name = f"accuracy-{''.join(sign if sign.isalnum() else '-' for sign in scale)}"
        title = f"Accuracy over training, {scale}"
        return finish(figure, name, title, _CAPTION.format(whiskers=whiskers), header, rows)


def _draw(axes: Axes, points: Sequence[tuple[int, float, float, int]], colour: str, shift: float) -> None:
    if not points:
        return
    steps, middles, whiskers, _ = (np.array(each) for each in zip(*points, strict=True))
    apart = 0.008 * (steps.max() - steps.min())  # whiskers of several methods beside each other
    dots: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.2}
    axes.errorbar(steps + shift * apart, middles, whiskers, elinewidth=0.8, capsize=1.5, **dots)


def _points(group: Group, column: Column) -> list[tuple[int, float, float, int]]:
    """Step, accuracy, its whisker and the number of seeds behind it."""
    found = []
    for step in _steps(group):
        results = _at(group, step, column)
        accuracies = [result.acc for result in results]
        if len(accuracies) > 1:
            found.append((step, float(np.mean(accuracies)), float(np.std(accuracies, ddof=1)), len(accuracies)))
        elif accuracies:
            found.append((step, accuracies[0], results[0].acc_stderr, 1))
    return found


def _steps(group: Group) -> list[int]:
    return sorted({step for run in group.runs.values() for step in run.evaluations})


def _cells(group: Group, step: int) -> set[Column]:
    return {column for run in group.runs.values() for column in cells_at(run, step)}


def _at(group: Group, step: int, column: Column) -> list[TaskResult]:
    cells = [cells_at(run, step) for run in group.runs.values()]
    return [each[column] for each in cells if column in each]

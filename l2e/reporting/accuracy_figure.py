"""The accuracy figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from l2e.reporting import drawing
from l2e.reporting.drawing import line_style, plain
from l2e.reporting.pictures import Picture, finish
from l2e.reporting.results import Column, ResultRow, chance_of, columns_of, result_rows
from l2e.reporting.runs import RunRecord

_HEADER = ("model", "step", "task", "num_fewshot", "n", "acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "chance")
_CAPTION = (
    "Accuracy on each task; whiskers: one standard error to each side; black tick: chance. Whiskers of two runs that "
    "overlap do not show that they are equal: the runs answer the same items, so the paired differences below are "
    "the sharper comparison."
)


_CHANCE: dict[str, Any] = {
    "color": "black",
    "linewidth": 1.3,
    "path_effects": [withStroke(linewidth=3, foreground="white")],
}


def accuracy_figure(runs: Sequence[RunRecord]) -> Picture | None:
    """Bars with error bars and chance ticks, one group for each task and number of shots; None without results."""
    rows = result_rows(runs)
    columns = columns_of(rows)
    if not columns:
        return None
    with drawing.style():
        figure = drawing.new_figure(0.75 + len(columns) * (0.19 * len(rows) + 0.16) + 0.12 * len(rows))
        axes = figure.subplots()
        for index, row in enumerate(rows):
            _draw_bars(axes, rows, columns, index, _bar_style(runs, row))
        for place, column in enumerate(columns):
            label = "chance" if place == 0 else "_chance"
            axes.plot([chance_of(rows, column)] * 2, [place - 0.45, place + 0.45], label=label, **_CHANCE)
        axes.set_yticks(range(len(columns)), [f"{plain(task, 24)}\n{shots}-shot" for shots, task in columns])
        axes.set_ylim(len(columns) - 0.45, -0.55)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, _right_end(rows))
        axes.set_xlabel("accuracy (share of items)")
        drawing.legend_above(axes)
        table = [_numbers(row, column) for row in rows for column in columns if column in row.cells]
        return finish(figure, "accuracy", "Accuracy", _CAPTION, _HEADER, table)


def _bar_style(runs: Sequence[RunRecord], row: ResultRow) -> dict[str, Any]:
    if row.run is None:
        return {"color": drawing.UNTRAINED}
    (own,) = (run for run in runs if run.path == row.run.path)
    style = {"color": line_style(runs, own)["color"], "alpha": 0.35 if row.step == 0 else 1.0}
    return style | ({"hatch": "///", "edgecolor": "white"} if row.run.variant else {})


def _draw_bars(
    axes: Axes, rows: Sequence[ResultRow], columns: Sequence[Column], index: int, style: dict[str, Any]
) -> None:
    row, thickness = rows[index], 0.84 / len(rows)
    present = [place for place, column in enumerate(columns) if column in row.cells]
    results = [row.cells[columns[place]] for place in present]
    axes.barh(
        [place - 0.42 + thickness * (index + 0.5) for place in present],
        [result.acc for result in results],
        height=thickness * 0.9,
        xerr=[result.acc_stderr for result in results],
        error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#111111"},
        label=plain(row.label, 48),
        **style,
    )


def _right_end(rows: Sequence[ResultRow]) -> float:
    """1, or less where every bar is short: differences of a few points have to be visible."""
    tops = [np.nansum([result.acc, result.acc_stderr]) for row in rows for result in row.cells.values()]
    highest = max(tops, default=1.0)
    return next((end for end in (0.4, 0.6, 0.8) if highest < end * 0.97), 1.0)


def _numbers(row: ResultRow, column: Column) -> tuple[object, ...]:
    found = row.cells[column]
    accuracies = (found.acc, found.acc_stderr, found.acc_norm, found.acc_norm_stderr, found.chance)
    return (row.label, row.step, found.task, found.num_fewshot, found.n, *accuracies)

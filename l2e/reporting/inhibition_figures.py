"""What inhibition did over training: the threshold (L26) and the strength of the penalty, block by block."""

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from l2e.reporting import drawing
from l2e.reporting.curves import smoothed, thinned, window_for
from l2e.reporting.drawing import finite, line_style, plain, step_axis
from l2e.reporting.pictures import Picture, finish, series_rows
from l2e.reporting.runs import RunRecord, Series

MEASURES = ("threshold", "selected", "strength", "absorbed")

_THRESHOLD = (
    "Moving threshold of each tapped block: outputs whose monosemanticity score lies above it are selected "
    "({rates}). It starts after the warm-up. {window} A falling line means that the most extreme scores got "
    "smaller, a line under another run's that they are smaller there."
)
_STRENGTH = (
    "Strength: norm of the penalty's gradient over norm of the cross-entropy's, at the output of the tapped block. "
    "At 1 they pull equally hard; many orders below, the penalty does next to nothing. {window}"
)


def blocks_of(run: RunRecord) -> list[str]:
    """The tapped blocks, from the names of the metrics: numbers from 0, or paths of modules."""
    names = "|".join(MEASURES)
    matches = (re.fullmatch(rf"inhibition/(?:block(\d+)|(.+))/(?:{names})", key) for key in run.metrics)
    found = {match[1] or match[2] for match in matches if match}
    return sorted(found, key=_in_order)


def measure(run: RunRecord, block: str, name: str) -> Series:
    """One measure of one tapped block."""
    return run.series(f"inhibition/{'block' if block.isdigit() else ''}{block}/{name}")


def _in_order(block: str) -> list[tuple[int, str]]:
    """Numbers within a name by their size: block 10 comes after block 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", block)]


def threshold_figure(runs: Sequence[RunRecord]) -> Picture | None:
    """The moving threshold per tapped block (L26); None if no run has one."""
    shown = [run for run in runs if _has(run, "threshold")]
    rates = dict.fromkeys(f"{float(run.setting('inhibition.rate')):.3g}" for run in shown if _rate_known(run))
    share = "target share " + " and ".join(rates) if rates else "target share not recorded"
    return _figure(
        runs,
        shown,
        "threshold",
        "threshold (score)",
        "Threshold",
        _THRESHOLD.format(rates=share, window=_window(shown)),
    )


def strength_figure(runs: Sequence[RunRecord]) -> Picture | None:
    """The strength of the penalty per tapped block; None if it was nowhere above zero."""
    shown = [run for run in runs if _has(run, "strength")]
    return _figure(
        runs, shown, "strength", "strength (ratio)", "Strength of the penalty", _STRENGTH.format(window=_window(shown))
    )


def _rate_known(run: RunRecord) -> bool:
    return isinstance(run.setting("inhibition.rate"), int | float)


def _window(runs: Sequence[RunRecord]) -> str:
    series = (measure(run, block, name) for run in runs for block in blocks_of(run) for name in MEASURES)
    sizes = {window_for(len(one.steps)) for one in series if len(one.steps)}
    return (
        f"Faint: as logged; line: mean over a centred window of {' or '.join(map(str, sorted(sizes)))} logged values."
    )


def _has(run: RunRecord, name: str) -> bool:
    """Whether anything is there to be drawn; a strength of zero is not (the axis is logarithmic)."""
    return any((finite(measure(run, block, name).values) > 0).any() for block in blocks_of(run))


def _figure(
    runs: Sequence[RunRecord], shown: Sequence[RunRecord], name: str, label: str, title: str, caption: str
) -> Picture | None:
    blocks = sorted({block for run in shown for block in blocks_of(run)}, key=_in_order)
    if not blocks:
        return None
    columns = min(len(blocks), 2)
    height = -(-len(blocks) // columns)
    with drawing.style():
        figure = drawing.new_figure(0.9 + 1.8 * height)
        grid = figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, block in zip(grid, blocks, strict=False):
            _draw(axes, runs, shown, block, name)
            axes.set_xlabel("step (updates)")
            axes.xaxis.set_tick_params(labelbottom=True)
        for axes in grid[len(blocks) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel(label)
        if len(shown) > 1:
            handles, labels = grid[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=drawing.columns_for(labels))
        kept = MEASURES[:2] if name in MEASURES[:2] else MEASURES[2:]
        rows = [row for run in shown for block in blocks_of(run) for row in _rows(run, block, kept)]
        return finish(figure, name, title, caption, ("run", "block", "step", *kept), rows)


def _draw(axes: Axes, runs: Sequence[RunRecord], shown: Sequence[RunRecord], block: str, name: str) -> None:
    for run in shown:
        raw = measure(run, block, name)
        raw = Series(raw.steps, np.where(raw.values > 0, finite(raw.values), np.nan))
        look = line_style(runs, run)
        axes.plot(*_points(raw), color=look["color"], alpha=0.18, linewidth=0.6)
        axes.plot(*_points(smoothed(raw)), label=plain(run.label), linewidth=1.3, **look)
    if name == "strength":
        _whole_decades(axes)
    axes.set_title(f"block {block}", loc="left", fontsize=9)
    step_axis(axes, ticks=4)


def _points(series: Series) -> tuple[np.ndarray, np.ndarray]:
    thin = thinned(series)
    return thin.steps, thin.values


def _whole_decades(axes: Axes) -> None:
    """A logarithmic axis from one power of ten to another: a ratio is read in orders of magnitude."""
    axes.set_yscale("log")
    low, high = (math.log10(end) for end in axes.get_ylim())
    axes.set_ylim(10 ** math.floor(low), 10 ** math.ceil(high))


def _rows(run: RunRecord, block: str, names: Sequence[str]) -> list[tuple[object, ...]]:
    return series_rows((run.label, block), [measure(run, block, name) for name in names])

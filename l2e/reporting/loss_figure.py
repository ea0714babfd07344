"""The loss figure."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2e.reporting import drawing
from l2e.reporting.curves import minus, non_finite_steps, smoothed, thinned, window_for
from l2e.reporting.drawing import finite, line_style, plain, step_axis
from l2e.reporting.pictures import Picture, finish, series_rows
from l2e.reporting.results import find_baseline
from l2e.reporting.runs import RunRecord


def loss_figure(runs: Sequence[RunRecord]) -> Picture | None:
    """Training loss, smoothed over the raw curve, with the validation points; with a baseline, the differences."""
    shown = [run for run in runs if len(run.series("loss").steps) or len(run.series("validation_loss").steps)]
    if not shown:
        return None
    baseline = find_baseline(runs)
    differing = [run for run in shown if run is not baseline and baseline in shown]
    with drawing.style():
        figure = drawing.new_figure(4.9 if differing else 3.3)
        top, *below = _panels(figure, 2 if differing else 1, ratios=[3, 2] if differing else [1])
        for run in shown:
            _draw_loss(top, run, line_style(runs, run))
        _limit_loss(top, shown)
        top.set_ylabel("loss (nats per token)")
        top.plot([], [], "o", color="#222222", markerfacecolor="white", markersize=5, label="validation")
        drawing.legend_above(top)
        if differing and baseline is not None:
            _draw_differences(below[0], differing, baseline, runs)
        step_axis(below[0] if below else top)
        rows = [row for run in shown for row in _loss_rows(run)]
        header = ("run", "step", "loss", "smoothed_loss", "validation_loss")
        caption = _loss_caption(shown, bool(differing))
        return finish(figure, "loss", "Loss", caption, header, rows)


def _panels(figure: Figure, count: int, ratios: Sequence[float]) -> list[Axes]:
    grid = figure.subplots(count, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(ratios)})
    return [row[0] for row in grid]


def _draw_loss(axes: Axes, run: RunRecord, style: dict[str, Any]) -> None:
    raw, curve, points = run.series("loss"), smoothed(run.series("loss")), run.series("validation_loss")
    thin = thinned(raw)
    axes.plot(thin.steps, finite(thin.values), color=style["color"], alpha=0.18, linewidth=0.6)
    curve = thinned(curve)
    axes.plot(curve.steps, curve.values, label=plain(run.label), linewidth=1.2, **style)
    if len(points.steps):
        look = {"color": style["color"], "markerfacecolor": "white", "markeredgewidth": 1.2, "markersize": 5}
        values = finite(points.values)
        axes.plot(points.steps, values, "o", zorder=3, **look)
    bad = non_finite_steps(run)
    if bad:
        low = [0.02] * len(bad)
        axes.plot(bad, low, "x", color=style["color"], markersize=5, transform=axes.get_xaxis_transform())


def _limit_loss(axes: Axes, runs: Sequence[RunRecord]) -> None:
    """Cut the first drop off, so that the rest of the curve has the height; a later rise is never cut."""
    values: list[float] = []
    for run in runs:
        for series in (smoothed(run.series("loss")), run.series("validation_loss")):
            cut = 0.05 * series.steps[-1] if len(series.steps) else 0
            values += [float(value) for value in series.values[series.steps >= cut] if math.isfinite(value)]
    if values:
        room = 0.06 * (max(values) - min(values)) or 0.1
        axes.set_ylim(min(values) - room, max(values) + room)


def _draw_differences(axes: Axes, others: Sequence[RunRecord], baseline: RunRecord, runs: Sequence[RunRecord]) -> None:
    axes.axhline(0, color=drawing.BASELINE, linewidth=1)
    seen: list[float] = []
    for run in others:
        style = line_style(runs, run)
        curve = thinned(minus(smoothed(run.series("loss")), smoothed(baseline.series("loss"))))
        points = minus(run.series("validation_loss"), baseline.series("validation_loss"))
        axes.plot(curve.steps, curve.values, linewidth=1, **style)
        look: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.2, "markersize": 5, "zorder": 3}
        axes.plot(points.steps, finite(points.values), "o", color=style["color"], **look)
        for series in (curve, points):
            late = series.values[series.steps >= 0.05 * max(series.steps, default=0)]
            seen += [float(value) for value in late if math.isfinite(value)]
    if seen:
        low, high = min(*seen, 0.0), max(*seen, 0.0)
        room = 0.1 * (high - low) or 0.01
        axes.set_ylim(low - room, high + room)
    axes.set_ylabel("minus baseline\n(nats per token)")


def _loss_rows(run: RunRecord) -> list[tuple[object, ...]]:
    columns = [run.series("loss"), smoothed(run.series("loss")), run.series("validation_loss")]
    return series_rows((run.label,), columns)


def _loss_caption(runs: Sequence[RunRecord], differences: bool) -> str:
    windows = sorted({window_for(len(run.series("loss").steps)) for run in runs})
    window = " and ".join(str(window) for window in windows)
    text = (
        "Cross-entropy over training. Faint: the loss of each logged update; line: its mean over a centred window of "
        f"{window} logged updates; circles: validation loss. The frame leaves out the first steep drop."
    )
    if differences:
        text += " Below: each run minus the baseline at the same step; under zero is better."
    for run in runs:
        bad = non_finite_steps(run)
        if bad:
            steps = f"{len(bad)} updates" if len(bad) > 1 else "1 update"
            text += (
                f" In {run.label}, {steps} (crosses, the first at step {bad[0]:,}) had a loss that is no finite number."
            )
    return text

"""The figures of a study, by method and not by run: differences, loss, accuracy over training, thresholds (Fig. 12)."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2e.reporting import drawing
from l2e.reporting.curves import minus, smoothed, window_for
from l2e.reporting.drawing import finite, step_axis
from l2e.reporting.inhibition_figures import blocks_of, measure
from l2e.reporting.paper_table import Judged
from l2e.reporting.pictures import Picture, finish
from l2e.reporting.runs import RunRecord, Series
from l2e.reporting.study import BASELINE, Group
from l2e.reporting.study_accuracy import accuracy_over_steps
from l2e.reporting.study_curves import Bundle, bundle, draw_bundle, in_order, look_of, of_scale, scales_of, seeds_text

_EFFECTS = (
    "Each method minus Pythia of the same size, on the same items: dot, difference of acc; line, its 95% "
    "interval{about}. Filled: beyond noise after the correction for all differences of the table (Holm). An interval "
    "that crosses zero says that nothing can be concluded, not that there is no difference."
)
_LOSS = (
    "Left: training loss{window}, the first steep drop left out. {seeds} Right: the same minus Pythia's of the same "
    "seed; under zero is better."
)
_THRESHOLD = (
    "Moving threshold of each tapped block, as in Figure 12 of the paper: solid, Pythia; dashed, with inhibition; "
    "Lower and Upper, the first and the last block tapped. {seeds} A dashed line under the solid one means that the "
    "most monosemantic outputs score lower with inhibition.{missing}"
)
_UNOBSERVED = (
    " Pythia has no line where its runs observe nothing; inhibition=l2e inhibition.weight=0 trains it and records "
    "its own."
)


def study_figures(groups: Sequence[Group], judged: Sequence[Judged]) -> list[Picture]:
    """All figures for which these runs have numbers, the answer first."""
    pictures = [_effects(groups, judged), _loss(groups), *accuracy_over_steps(groups), _threshold(groups)]
    return [picture for picture in pictures if picture is not None]


def _effects(groups: Sequence[Group], judged: Sequence[Judged]) -> Picture | None:
    if not judged:
        return None
    scales = list(dict.fromkeys(one.scale for one in judged))
    places = list(dict.fromkeys((one.shots, one.column) for one in judged))
    settings = list(dict.fromkeys(one.setting for one in judged))
    with drawing.style():
        figure = drawing.new_figure(0.9 + len(scales) * (0.35 + len(places) * (0.14 + 0.16 * len(settings))))
        for axes, scale in _rows(figure, scales):
            axes.axvline(0, color=drawing.BASELINE, linewidth=1)
            for one in (one for one in judged if one.scale == scale):
                _draw_effect(axes, one, places.index((one.shots, one.column)), settings, look_of(groups, one.setting))
            axes.set_yticks(range(len(places)), [f"{column}, {shots}-shot" for shots, column in places])
            axes.set_ylim(len(places) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.set_title(scale, loc="left", fontsize=9)
        axes.set_xlabel("acc minus Pythia's (percentage points)")
        _legend(figure, groups, settings, "o")
        several = max(one.effect.seeds for one in judged) > 1
        about = " over seeds and items" if several else " over items (one seed)"
        header = ("size", "method", "task", "num_fewshot", "difference", "low", "high", "p_holm", "seeds", "items")
        rows = [_effect_row(one) for one in judged]
        return finish(figure, "effects", "Differences", _EFFECTS.format(about=about), header, rows)


def _draw_effect(axes: Axes, one: Judged, place: int, settings: Sequence[str], look: dict) -> None:
    offset = (settings.index(one.setting) - (len(settings) - 1) / 2) * 0.7 / len(settings)
    low, middle, high = (100 * value for value in (one.effect.low, one.effect.difference, one.effect.high))
    axes.plot([low, high], [place + offset] * 2, color=look["color"], linewidth=1.4)
    face = look["color"] if one.beyond_noise else "white"
    axes.plot([middle], [place + offset], "o", color=look["color"], markerfacecolor=face, markersize=5)


def _effect_row(one: Judged) -> tuple[object, ...]:
    found = one.effect
    front = (one.scale, one.setting, one.column, one.shots)
    return (*front, found.difference, found.low, found.high, one.p_value, found.seeds, found.items)


def _loss(groups: Sequence[Group]) -> Picture | None:
    bundles = [one for group in in_order(groups) if (one := bundle(group, lambda run: smoothed(run.series("loss"))))]
    if not bundles:
        return None
    scales = scales_of([one.group for one in bundles])
    with drawing.style():
        figure = drawing.new_figure(0.7 + 2.1 * len(scales))
        grid = figure.subplots(len(scales), 2, squeeze=False)
        for (left, right), scale in zip(grid, scales, strict=True):
            here = [one for one in bundles if one.group.scale == scale]
            base = next((one for one in here if one.group.setting == BASELINE), None)
            for one in here:
                draw_bundle(left, one, look_of(groups, one.group.setting))
                if base is not None and one is not base and (change := _change(one, base)) is not None:
                    draw_bundle(right, change, look_of(groups, one.group.setting))
            right.axhline(0, color=drawing.BASELINE, linewidth=1)
            _frame(left, [one.mean for one in here])
            for axes, title, label in ((left, scale, "loss"), (right, f"{scale}, minus Pythia", "difference")):
                axes.set_title(title, loc="left", fontsize=9)
                axes.set_ylabel(f"{label} (nats per token)")
                step_axis(axes, ticks=4)
        _legend(figure, groups, [one.group.setting for one in bundles], "")
        caption = _LOSS.format(window=_window(groups), seeds=seeds_text(groups))
        return finish(figure, "loss", "Loss", caption, ("size", "method", "step", "mean_loss"), list(_rows_of(bundles)))


def _window(groups: Sequence[Group]) -> str:
    windows = {window_for(len(run.series("loss").steps)) for group in groups for run in group.runs.values()} - {1}
    return (
        f", a mean over a centred window of {' or '.join(map(str, sorted(windows)))} logged updates" if windows else ""
    )


def _change(one: Bundle, base: Bundle) -> Bundle | None:
    """Minus the baseline of the same seed."""
    common = {seed: minus(one.seeds[seed], base.seeds[seed]) for seed in one.seeds if seed in base.seeds}
    records = {seed: one.group.runs[seed] for seed in common}
    by_run = {id(run): common[seed] for seed, run in records.items()}
    return bundle(Group(one.group.scale, one.group.setting, records), lambda run: by_run[id(run)])


def _frame(axes: Axes, curves: Sequence[Series]) -> None:
    """Leave the first drop out of the frame."""
    late = [curve.values[curve.steps >= 0.05 * curve.steps[-1]] for curve in curves if len(curve.steps)]
    values = np.concatenate(late) if late else np.array([])
    values = values[np.isfinite(values)]
    if len(values):
        room = 0.06 * float(np.ptp(values)) or 0.1
        axes.set_ylim(values.min() - room, values.max() + room)


def _threshold(groups: Sequence[Group]) -> Picture | None:
    tapped = {scale: _tapped(of_scale(groups, scale)) for scale in scales_of(groups)}
    places = [(scale, block) for scale, blocks in tapped.items() for block in blocks]
    if not places:
        return None
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure = drawing.new_figure(0.8 + 1.9 * -(-len(places) // 2))
        grid = figure.subplots(-(-len(places) // 2), 2, squeeze=False).ravel()
        for axes, (scale, block) in zip(grid, places, strict=False):
            for group in of_scale(groups, scale):
                one = bundle(group, partial(_thresholds, block=block))
                if one is not None:
                    dashed = {} if group.setting == BASELINE else {"linestyle": drawing.LINES[1]}
                    draw_bundle(axes, one, look_of(groups, group.setting) | dashed)
                    rows += [(row[0], row[1], block, *row[2:]) for row in _rows_of([one])]
            axes.set_title(f"{scale}, {_level(tapped[scale], block)}", loc="left", fontsize=9)
            axes.set_ylabel("threshold (score)")
            step_axis(axes, ticks=4)
        for axes in grid[len(places) :]:
            axes.set_visible(False)
        _legend(figure, groups, list(dict.fromkeys(str(row[1]) for row in rows)), "", dashed=True)
        missing = "" if any(row[1] == BASELINE for row in rows) else _UNOBSERVED
        caption = _THRESHOLD.format(seeds=seeds_text(groups), missing=missing)
        return finish(figure, "threshold", "Threshold", caption, ("size", "method", "block", "step", "mean"), rows)


def _tapped(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.runs.values()]
    found = dict.fromkeys(block for run in runs for block in blocks_of(run) if _has_threshold(run, block))
    return sorted(found, key=lambda block: (len(block), block))


def _has_threshold(run: RunRecord, block: str) -> bool:
    return len(_thresholds(run, block).steps) > 0


def _thresholds(run: RunRecord, block: str) -> Series:
    """Without the updates before the threshold began."""
    series = measure(run, block, "threshold")
    kept = finite(series.values) > 0
    return Series(series.steps[kept], series.values[kept])


def _level(blocks: Sequence[str], block: str) -> str:
    if len(blocks) < 2 or block not in (blocks[0], blocks[-1]):
        return f"block {block}"
    return f"{'Lower' if block == blocks[0] else 'Upper'} (block {block})"


def _rows(figure: Figure, scales: Sequence[str]) -> Iterator[tuple[Axes, str]]:
    grid = figure.subplots(len(scales), 1, squeeze=False, sharex=True)
    return zip((row[0] for row in grid), scales, strict=True)


def _rows_of(bundles: Sequence[Bundle]) -> Iterator[tuple[object, ...]]:
    for one in bundles:
        for step, value in zip(one.mean.steps.tolist(), one.mean.values.tolist(), strict=True):
            yield one.group.scale, one.group.setting, step, value


def _legend(
    figure: Figure, groups: Sequence[Group], settings: Sequence[str], marker: str, dashed: bool = False
) -> None:
    """The methods, above all axes."""
    names = list(dict.fromkeys(settings))
    drawing.legend_of(
        figure,
        {
            name: look_of(groups, name)
            | ({"linestyle": drawing.LINES[1]} if dashed and name != BASELINE else {})
            | ({"marker": marker, "markersize": 5} if marker else {})
            for name in names
        },
    )

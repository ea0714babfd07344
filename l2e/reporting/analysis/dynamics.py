"""The moving threshold over training with and without the method, and where it ended (L26, Fig 12)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from l2e.analysis.dynamics import Level, LevelChange, ThresholdCurve, changes, levels
from l2e.analysis.dynamics_settings import DynamicsConfig
from l2e.errors import UserError
from l2e.reporting import drawing
from l2e.reporting.analysis.scale import errors, in_words, marker
from l2e.reporting.drawing import COLOURS, plain
from l2e.reporting.inhibition_figures import blocks_of, measure, threshold_figure
from l2e.reporting.pictures import Picture, finish, inline_svg
from l2e.reporting.report import unique_labels
from l2e.reporting.runs import RunRecord, load_run

_CAPTION = (
    "Where the thresholds ended: each setting minus the baseline of the same seed, mean over the last {tail:g}% of "
    "training; under zero, the method made the most extreme scores smaller. Small points: seeds; whiskers: 95% "
    "interval of the mean over seeds (Student's t); without whiskers there is one seed, and no saying what another "
    "would give. {found}{unsettled}"
)
_SETTINGS = ("method", "rate", "blocks", "weight", "strength")


def draw(settings: DynamicsConfig, runs: Sequence[Path]) -> list[Picture]:
    """The curves, a figure for each model, and the differences at the end, if runs can be compared.

    Args:
        settings: of the differences.
        runs: run directories; a baseline has a threshold if it was observed (`inhibition.weight=0`).

    Raises:
        UserError: no run logged a threshold, or a folder is no run.
    """
    records = unique_labels([load_run(path) for path in runs])
    curves = [curve for run in records for curve in _curves(run)]
    if not any(np.isfinite(curve.values).any() for curve in curves):
        raise UserError(
            "no run has logged a threshold: a run with inhibition has one after its warm-up, and a baseline if it was "
            "trained with inhibition.weight=0 (observe only) in place of inhibition=none"
        )
    pictures = [picture for model in dict.fromkeys(map(_model, records)) for picture in _over_training(records, model)]
    ends = levels(settings, curves)
    compared = changes(ends)
    return [*pictures, _differences(settings, compared, ends)] if compared else pictures


def _curves(run: RunRecord) -> list[ThresholdCurve]:
    found = []
    for block in blocks_of(run):
        threshold, selected = (measure(run, block, name) for name in ("threshold", "selected"))
        at = dict(zip(selected.steps.tolist(), selected.values.tolist(), strict=True))
        shares = np.array([at.get(step, np.nan) for step in threshold.steps.tolist()], dtype=np.float64)
        rate = float(run.setting("inhibition.rate", np.nan))
        where = (_model(run), _setting(run), int(run.setting("seed", 0)), block)
        found.append(ThresholdCurve(*where, threshold.steps, threshold.values, shares, rate))
    return found


def _model(run: RunRecord) -> str:
    return str(run.setting("model.name", "?"))


def _setting(run: RunRecord) -> str:
    """What tells the run's method from others; runs of one setting differ by their seed."""
    if run.is_baseline:
        return "baseline"
    values = {key: run.setting(f"inhibition.{key}") for key in _SETTINGS}
    return ", ".join(f"{key} {value}" if key != "method" else str(value) for key, value in values.items() if value)


def _over_training(records: Sequence[RunRecord], model: str) -> list[Picture]:
    """The report's threshold figure for the runs of one model."""
    picture = threshold_figure([run for run in records if _model(run) == model])
    if picture is None:
        return []
    name, title = f"dynamics-{model}", f"Threshold over training, {model}"
    return [replace(picture, name=name, title=title, svg=inline_svg(picture.svg_file.decode(), name, title))]


def _differences(settings: DynamicsConfig, compared: Sequence[LevelChange], ends: Sequence[Level]) -> Picture:
    places = list(dict.fromkeys((change.model, change.block) for change in compared))
    names = list(dict.fromkeys(change.setting for change in compared))
    with drawing.style():
        figure = drawing.new_figure(2.9)
        axes = figure.subplots()
        axes.axhline(0, color=drawing.BASELINE, linewidth=1)
        for index, name in enumerate(names):
            shown = [change for change in compared if change.setting == name]
            apart = 0.12 * (index - (len(names) - 1) / 2)
            x = [places.index((change.model, change.block)) + apart for change in shown]
            colour, means = COLOURS[index % len(COLOURS)], [change.mean for change in shown]
            look: dict[str, Any] = {"fmt": marker(index), "color": colour, "markersize": 5.5, "capsize": 3}
            axes.errorbar(x, [mean.value for mean in means], errors(means), label=plain(name, 60), **look)
            for place, change in zip(x, shown, strict=True):
                axes.plot([place] * len(change.differences), change.differences, ".", color=colour, alpha=0.5)
        axes.set_xticks(range(len(places)), [f"{plain(model, 18)}\nblock {block}" for model, block in places])
        axes.set_xlim(-0.6, len(places) - 0.4)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("threshold minus\nbaseline's (score)")
        figure.legend(loc="outside upper left", ncols=1)
        unsettled = dict.fromkeys(
            f"{end.curve.model}, {end.curve.setting}, block {end.curve.block} (selected {100 * end.selected:.2g}% in "
            f"place of {100 * end.curve.rate:g}%)"
            for end in ends
            if not end.settled
        )
        caption = _CAPTION.format(
            tail=100 * settings.tail,
            found="; ".join(f"{one.setting}, {one.model} block {one.block}: {in_words(one.mean)}" for one in compared)
            + ".",
            unsettled=f" Thresholds that had not settled yet say little: {'; '.join(unsettled)}." if unsettled else "",
        )
        header = ("model", "setting", "seed", "block", "threshold", "selected", "target", "minus_baseline")
        rows = [_row(end, compared) for end in ends]
        return finish(figure, "dynamics-differences", "Threshold minus the baseline's", caption, header, rows)


def _row(end: Level, compared: Sequence[LevelChange]) -> tuple[object, ...]:
    curve = end.curve
    key = (curve.model, curve.setting, curve.block)
    own = [change for change in compared if (change.model, change.setting, change.block) == key]
    paired = dict(zip(own[0].seeds, own[0].differences, strict=True)) if own else {}
    levels_found = (end.value, end.selected, curve.rate, paired.get(curve.seed, ""))
    return (curve.model, curve.setting, curve.seed, curve.block, *levels_found)

"""What deactivated neurons cost, label by label, as box plots (M24; Fig 2 of MEmeL)."""

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from l2e.analysis.deactivation import (
    DeactivateSettings,
    Deactivation,
    DeactivationStudy,
    Floats,
    LabelSummary,
    measure,
    summarise,
)
from l2e.analysis.neurons import Neuron, name_group, parse_group
from l2e.analysis.probe_settings import ProbeSettings
from l2e.analysis.probe_table import best_neurons
from l2e.analysis.probing import halves, probe_neurons, split
from l2e.analysis.progress import ProgressLine
from l2e.analysis.subjects import FeatureSet, Subject
from l2e.reporting.analysis.probe import slug
from l2e.reporting.cells import MISSING, Table, decimals
from l2e.reporting.drawing import COLOURS, UNTRAINED, new_figure, plain, style
from l2e.reporting.pictures import Picture, finish

_CAPTION = (
    "Increase of a sequence's loss when the neuron is 0 at all positions, in percent of the loss with it, by label "
    "(box: quartiles; whiskers: within 1.5 times the box; sequences beyond are not drawn). Grey: {controls} random "
    "neurons of the same layer, all together: what any neuron costs. {chosen}"
)
_FOUND = "The neurons were chosen by probing on other sequences than these."


def draw_deactivate(
    settings: DeactivateSettings, features: FeatureSet, subjects: Sequence[Subject]
) -> list[Picture | Table | str]:
    """Deactivate the named neurons, or the best by probing, in every model.

    Raises:
        UserError: a neuron that a model does not have, or too few sequences for probes.
    """
    parts: list[Picture | Table | str] = []
    for subject in subjects:
        groups, among = [parse_group(text) for text in settings.neurons], None
        if not groups:
            probing = ProbeSettings(solver="newton")
            probes = probe_neurons(subject.name, subject.activations(), features, probing)
            chosen = best_neurons(probes, settings.top, by="select_f1_score")
            groups = [(Neuron(row.layer, row.neuron),) for row in chosen]
            among = halves(split(features, probing).test)[1]
        progress = ProgressLine(f"{subject.name} on {features.name}: deactivation", "passes")
        study = measure(subject.load(), subject.name, features, groups, settings, among, progress)
        parts += [deactivation_figure(study, found=among is not None), deactivation_table(study)]
    return parts


def deactivation_figure(study: DeactivationStudy, found: bool) -> Picture:
    """A panel for each group of neurons, boxes by label, the group's controls beside it in grey."""
    groups = [(each, pooled_controls(study, each)) for each in study.found if each.control_of is None]
    rows: list[tuple[object, ...]] = []
    with style():
        figure = new_figure(0.5 + 2.1 * len(groups))
        grid = figure.subplots(len(groups), 1, squeeze=False).ravel()
        for axes, (each, (control, labels)) in zip(grid, groups, strict=True):
            own = summarise(study.features.label_names, study.labels, each.increase)
            others = summarise(study.features.label_names, labels, control)
            _boxes(axes, own, -0.17 if others else 0.0, COLOURS[0])
            _boxes(axes, others, 0.17, UNTRAINED)
            _dress(axes, own, name_group(each.group))
            rows += [_row(study.model, each, "deactivated", summary) for summary in own]
            rows += [_row(study.model, each, "random", summary) for summary in others]
        controls = sum(each.control_of == groups[0][0].group for each in study.found)
        caption = _CAPTION.format(controls=controls, chosen=_FOUND if found else "").strip()
        header = ["model", "neurons", "kind", "label", "sequences", "mean", "standard_error"]
        header += ["low", "q1", "median", "q3", "high"]
        name, title = f"deactivate-{slug(study.model)}", f"Without single neurons: {study.model}"
        return finish(figure, name, title, caption, header, rows)


def deactivation_table(study: DeactivationStudy) -> Table:
    """Mean increase with its standard error, by label; the random neurons of each group below it."""
    names = study.features.label_names
    rows = []
    for each in study.found:
        if each.control_of is not None:
            continue
        control, labels = pooled_controls(study, each)
        lines = [(name_group(each.group), each.increase, study.labels), ("random, same layer", control, labels)]
        for title, increase, of in lines[: 1 + bool(len(control))]:
            summaries = {summary.label: summary for summary in summarise(names, of, increase)}
            rows.append([title, *(_mean(summaries.get(name)) for name in names)])
    caption = (
        "Mean increase of a sequence's loss in percent, plus or minus its standard error over sequences. For random "
        "neurons over all their sequences, each counted once for every neuron: their error is somewhat too small."
    )
    return Table(f"Loss without single neurons: {study.model}", caption, ["neuron", *names], rows)


def pooled_controls(study: DeactivationStudy, asked: Deactivation) -> tuple[Floats, NDArray[np.int64]]:
    """The increases of all controls of a group in one row, and their labels."""
    mine = [each.increase for each in study.found if each.control_of == asked.group]
    return np.concatenate([np.empty(0), *mine]), np.tile(study.labels, len(mine))


def _boxes(axes: Axes, summaries: Sequence[LabelSummary], shift: float, colour: str) -> None:
    if not summaries:
        return
    boxes = [
        {"whislo": s.low, "q1": s.q1, "med": s.median, "q3": s.q3, "whishi": s.high, "label": ""} for s in summaries
    ]
    axes.bxp(
        boxes,
        positions=np.arange(len(boxes)) + shift,
        widths=0.28,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour, "edgecolor": "#333333", "linewidth": 0.6},
        medianprops={"color": "#111111", "linewidth": 1.0},
        whiskerprops={"color": "#555555", "linewidth": 0.7},
        capprops={"color": "#555555", "linewidth": 0.7},
    )


def _dress(axes: Axes, own: Sequence[LabelSummary], title: str) -> None:
    axes.axhline(0, color="#888888", linewidth=0.7)
    axes.set_xticks(range(len(own)), [plain(summary.label, 12) for summary in own], fontsize=8)
    axes.set_xlim(-0.6, len(own) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("loss increase (%)")
    axes.set_title(plain(title, 60), loc="left", fontsize=9)


def _row(model: str, each: Deactivation, kind: str, summary: LabelSummary) -> tuple[object, ...]:
    return (model, name_group(each.group), kind, *astuple(summary))


def _mean(summary: LabelSummary | None) -> str:
    return MISSING if summary is None else f"{decimals(summary.mean, 3)} ± {decimals(summary.error, 3)}"

"""Single-neuron probes as figures and tables: Fig 10 (L29), neurons above a cut by label (L30), a table beside ours."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from l2e.analysis.probe_settings import ProbeSettings
from l2e.analysis.probe_table import (
    GURNEE_NAMES,
    Comparison,
    Probe,
    above_cut,
    best_neurons,
    compare,
    count_by_label,
    read_listed,
)
from l2e.analysis.probing import probe_listed, probe_neurons
from l2e.analysis.progress import ProgressLine
from l2e.analysis.subjects import FeatureSet, Subject
from l2e.reporting.cells import Table, decimals
from l2e.reporting.drawing import COLOURS, LINES, MARKERS, legend_above, new_figure, plain, style
from l2e.reporting.pictures import Picture, finish

_TOP = (
    "Mean F1 of the {top} neurons that tell a label best, over all layers and labels (Fig 10); bars: lowest and "
    "highest of them. Filled: chosen and scored on the test part, as published, which takes luck for skill: the best "
    "of many is worth less on new sequences. Open: chosen on one half of the test part, scored on the other."
)
_LABELS = (
    "Test F1 of the {ranked} best-ranked neurons of each layer and label; each dot is one, dark where its layer lies "
    "deep. The numbers count those above {cut:g}, beyond the line. A count over many probes has some that got there "
    "by luck; `confirm_f1_score` in the CSV, of the half that was not looked at, tells them. The CSV has the columns "
    "of Gurnee et al.'s interpretable_neurons, then ours."
)
_COMPARED = (
    "F1 of each neuron of {file} as it stands there and as our probe of that very neuron finds it here. Neurons are "
    "told by their number, so only the same weights can agree: Gurnee et al.'s lists are of Pythia v0 "
    "(EleutherAI/pythia-*-v0), and say nothing about the numbers of today's pythia-*."
)


@dataclass(frozen=True)
class ProbedModel:
    """One model's table on one feature set."""

    model: str
    parameters: int
    features: FeatureSet
    layers: int
    probes: list[Probe]


def draw_probe(
    settings: ProbeSettings, features: FeatureSet, subjects: Sequence[Subject]
) -> list[Picture | Table | str]:
    """Probe all models and put the tables into figures.

    Raises:
        UserError: too few sequences of a label, or a table to compare with that does not fit.
    """
    listed = []
    if settings.compare is not None:  # read before anything that takes long
        dataset = settings.compare_dataset or GURNEE_NAMES.get(features.name, features.name)
        listed = read_listed(Path(settings.compare), dataset, features.label_names)
    studies = [_probed(subject, features, settings) for subject in subjects]
    parts: list[Picture | Table | str] = [
        top_figure(studies, settings),
        labels_figure(studies, settings),
        top_table(studies, settings),
        *(count_sentence(study, settings) for study in studies),
    ]
    for subject, study in zip(subjects, studies, strict=True):
        if listed:
            wanted = [row.key for row in listed]
            probed = probe_listed(study.model, subject.activations(), features, wanted, settings)
            found = compare(listed, probed, study.probes, settings.cut)
            parts += compared(study, found, settings)
    return parts


def _probed(subject: Subject, features: FeatureSet, settings: ProbeSettings) -> ProbedModel:
    activations = subject.activations()
    progress = ProgressLine(f"{subject.name} on {features.name}: probing", "layers")
    probes = probe_neurons(subject.name, activations, features, settings, progress)
    return ProbedModel(subject.name, subject.parameters, features, activations.layers, probes)


def top_figure(studies: Sequence[ProbedModel], settings: ProbeSettings) -> Picture:
    """Fig 10: mean F1 of the top neurons by scale, a line for each feature set among `studies`."""
    rows: list[tuple[object, ...]] = []
    with style():
        figure = new_figure(2.9)
        axes = figure.add_subplot()
        sets = list(dict.fromkeys(study.features.name for study in studies))
        for number, name in enumerate(sets):
            mine = sorted((s for s in studies if s.features.name == name), key=lambda study: study.parameters)
            numbers = [_top_numbers(study, settings) for study in mine]
            rows += [(name, s.model, s.parameters, *n) for s, n in zip(mine, numbers, strict=True)]
            places, (mean, low, high, confirmed) = _places(mine, studies), np.array(numbers).T
            look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            whole, broken = LINES[:2] if _logarithmic(studies) else ("none", "none")  # no line without a scale
            bars = [mean - low, high - mean]
            axes.errorbar(places, mean, bars, label=plain(name), linestyle=whole, linewidth=1.3, capsize=2, **look)
            axes.plot(places, confirmed, linestyle=broken, linewidth=0.9, markerfacecolor="white", **look)
        _scale_axis(axes, studies)
        axes.set_ylabel(f"mean F1 of the top {settings.top}")
        axes.set_ylim(0, 1.05)
        if len(sets) > 1:
            legend_above(axes)
        header = ("dataset", "model", "parameters", "mean", "lowest", "highest", "confirmed_mean")
        return finish(figure, "probe-top-f1", "Neurons that tell a label", _TOP.format(top=settings.top), header, rows)


def _top_numbers(study: ProbedModel, settings: ProbeSettings) -> tuple[float, float, float, float]:
    """Mean, lowest and highest test F1 of the top neurons; mean confirmed F1 of those chosen on the other half."""
    f1 = [row.test_f1_score for row in best_neurons(study.probes, settings.top)]
    fair = [row.confirm_f1_score for row in best_neurons(study.probes, settings.top, by="select_f1_score")]
    return float(np.mean(f1)), min(f1), max(f1), float(np.mean(fair))


def labels_figure(studies: Sequence[ProbedModel], settings: ProbeSettings) -> Picture:
    """F1 of all probed neurons by label, and how many lie above the cut (L30)."""
    with style():
        height = sum(0.75 + 0.24 * len(study.features.label_names) for study in studies)
        figure = new_figure(height)
        grid = figure.subplots(len(studies), 1, squeeze=False, sharex=True).ravel()
        for axes, study in zip(grid, studies, strict=True):
            _strip(axes, study, settings)
        grid[-1].set_xlabel("test F1")
        return finish(
            figure,
            "probe-f1-by-label",
            "Neurons of each label",
            _LABELS.format(ranked=settings.ranked, cut=settings.cut),
            [field.name for field in fields(Probe)],
            [astuple(row) for study in studies for row in study.probes],
        )


def _strip(axes: Axes, study: ProbedModel, settings: ProbeSettings) -> None:
    labels = study.features.label_names
    counts = count_by_label(above_cut(study.probes, settings.cut), labels)
    depth = np.array([row.layer for row in study.probes]) / max(1, study.layers - 1)
    places = np.array([labels.index(row.feature) for row in study.probes]) + 0.5 * (depth - 0.5)
    f1 = [row.test_f1_score for row in study.probes]
    axes.scatter(f1, places, c=depth, cmap="viridis_r", vmin=-0.15, s=7, linewidths=0, alpha=0.8)
    axes.axvline(settings.cut, color="#888888", linewidth=0.8)
    for place, label in enumerate(labels):
        axes.text(1.04, place, str(counts[label]), va="center", fontsize=8.5)
    axes.set_yticks(range(len(labels)), [plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.grid(visible=False, axis="y")
    axes.set_title(plain(study.model), loc="left", fontsize=9)


def top_table(studies: Sequence[ProbedModel], settings: ProbeSettings) -> Table:
    """The top neurons of each model, with their fair F1."""
    rows = [
        [row.model, f"L{row.layer}.N{row.neuron}", row.feature]
        + [decimals(value, 3) for value in (row.test_f1_score, row.test_mcc, row.confirm_f1_score, row.coef)]
        for study in studies
        for row in best_neurons(study.probes, settings.top)
    ]
    caption = (
        "Best by test F1, each neuron once, ties by MCC and then by the gap on the train part. Confirmed: F1 on the "
        "second half of the test part (optimistic too where the choice looked at all of it). A negative coefficient: "
        "the neuron is lower on its label."
    )
    header = ["model", "neuron", "label", "test F1", "test MCC", "confirmed", "coef"]
    return Table("Top neurons", caption, header, rows, text_columns=3)


def count_sentence(study: ProbedModel, settings: ProbeSettings) -> str:
    """How many neurons lie above the cut, and of which labels (L30)."""
    high = above_cut(study.probes, settings.cut)
    counts = {label: n for label, n in count_by_label(high, study.features.label_names).items() if n}
    kept = sum(row.confirm_f1_score > settings.cut for row in high)
    shares = ", ".join(f"{label} {n}" for label, n in sorted(counts.items(), key=lambda item: -item[1])) or "none"
    return (
        f"{study.model} on {study.features.name}: {len(high)} (neuron, label) pairs with test F1 above "
        f"{settings.cut:g} ({shares}); {kept} of them also on the second half of the test part alone."
    )


def compared(study: ProbedModel, found: Comparison, settings: ProbeSettings) -> list[Picture | str]:
    """Somebody's table beside ours: a scatter of F1 and the overlap in words."""
    file = Path(settings.compare or "").name
    rows = [(theirs.feature, theirs.layer, theirs.neuron, theirs.f1, ours.test_f1_score) for theirs, ours in found.rows]
    sentence = (
        f"{study.model} and {file}: {found.both} (layer, neuron, label) are above F1 {settings.cut:g} in both tables, "
        f"of {found.theirs} there and {found.ours} here"
        + (f"; {len(found.outside)} of its neurons this model does not have" if found.outside else "")
        + "."
    )
    if not rows:
        return [sentence]
    with style():
        figure = new_figure(3.4)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
        axes.scatter(
            [row[3] for row in rows], [row[4] for row in rows], s=12, color=COLOURS[0], alpha=0.7, linewidths=0
        )
        axes.set_xlabel(f"F1 in {plain(file)}")
        axes.set_ylabel(f"F1 here, {plain(study.model)}")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        picture = finish(
            figure,
            f"probe-compared-{slug(study.model)}",
            f"{study.model} beside a published list",
            _COMPARED.format(file=file),
            ("feature", "layer", "neuron", "f1_there", "f1_here"),
            rows,
        )
    return [picture, sentence]


def _places(mine: Sequence[ProbedModel], studies: Sequence[ProbedModel]) -> list[float]:
    """Where models stand: at their parameters, or one beside the other where two have as many."""
    names = _by_size(studies)
    if _logarithmic(studies):
        return [float(study.parameters) for study in mine]
    return [float(names.index(study.model)) for study in mine]


def _scale_axis(axes: Axes, studies: Sequence[ProbedModel]) -> None:
    names = _by_size(studies)
    first = {study.model: study for study in reversed(studies)}
    places = _places([first[name] for name in names], studies)
    if _logarithmic(studies):
        axes.set_xscale("log")
    else:
        axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(places, [plain(name, 18) for name in names], fontsize=8, rotation=20 if len(names) > 4 else 0)
    axes.minorticks_off()


def _logarithmic(studies: Sequence[ProbedModel]) -> bool:
    sizes = {study.model: study.parameters for study in studies}
    return len(set(sizes.values())) == len(sizes) > 1


def _by_size(studies: Sequence[ProbedModel]) -> list[str]:
    """Names of the models, the smallest first, else as they were given."""
    return list(dict.fromkeys(study.model for study in sorted(studies, key=lambda study: study.parameters)))


def slug(text: str) -> str:
    """A name as part of a file's name."""
    return "".join(char if char.isalnum() else "-" for char in text.lower())

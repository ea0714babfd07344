"""The two lines of work side by side: MS against r_i, and what inhibition does to toy models (S01)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from l2e.analysis.toy.results import ToyResult
from l2e.analysis.toy.truth import DETECTORS, Judged, Labelled, alive, judge, killed, labelled_values, roc
from l2e.reporting import drawing
from l2e.reporting.analysis.toy_lines import Story, empty, spread
from l2e.reporting.cells import Table
from l2e.reporting.drawing import COLOURS, MARKERS
from l2e.reporting.pictures import Picture, finish

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Inhibition rates of the False Killing Rate."""
CUTS = (0.5, 0.9, 0.999)
"""Values of r_i above which a neuron counts as monosemantic; the paper's is the last."""


class Case(NamedTuple):
    """A run, its labelled values and what was found."""

    result: ToyResult
    data: Labelled
    judged: Judged


def judge_all(results: Sequence[ToyResult]) -> list[Case]:
    """Truth and scores of each run."""
    cases = []
    for result in results:
        data = labelled_values(result)
        cases.append(Case(result, data, judge(result, data)))
    return cases


def roc_figure(cases: Sequence[Case]) -> Picture:
    """Each detector's curve for each seed, and below phi_{l*} against r_i."""
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure = drawing.new_figure(3.1)
        left, right = figure.subplots(1, 2)
        for number, name in enumerate(DETECTORS):
            areas: list[float] = []
            for case in cases:
                false, true, area = roc(case.judged.detectors[name], case.judged.monosemantic)
                left.plot(false, true, color=COLOURS[number], linewidth=1, alpha=0.7, label=None if areas else name)
                areas.append(area)
                rows += [(name, case.result.run.seed, f"{x:.4f}", f"{y:.4f}") for x, y in zip(false, true, strict=True)]
        left.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle=":")
        left.set_xlabel("polysemantic neurons found")
        left.set_ylabel("monosemantic neurons found")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=5)
        for case, marker in zip(cases, MARKERS, strict=False):
            right.plot(
                case.judged.r, case.judged.detectors["phi_l*"], marker, color=COLOURS[0], markersize=2, alpha=0.4
            )
        right.set_yscale("log")
        right.set_xlabel("r_i")
        right.set_ylabel("MS of l*")
        caption = (
            "Left: neurons with r_i > 0.999 told from the others by scores alone, a line for each seed. Right: each "
            "neuron's score of its relatively monosemantic feature against the truth. Detectors: "
            + "; ".join(f"{name}: {text}" for name, text in DETECTORS.items())
            + "."
        )
        return finish(
            figure, "toy-bridge-roc", "Is MS a valid score?", caption, ["detector", "seed", "false", "true"], rows
        )


def killing_figure(cases: Sequence[Case]) -> Picture:
    """What inhibition by MS hits among neurons known to be monosemantic, against the inhibited share."""
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure = drawing.new_figure(2.8)
        axes = figure.add_subplot()
        counted, absent = (np.array(part) for part in zip(*(_killed(case) for case in cases), strict=True))
        for number, (name, found) in enumerate(
            (("counted false: outside l*", counted), ("truly false: feature absent", absent))
        ):
            axes.plot(RATES, found.mean(0), color=COLOURS[number], label=name)
            for line, case in zip(found, cases, strict=True):
                axes.plot(RATES, line, MARKERS[number], color=COLOURS[number], markersize=3, alpha=0.5)
                rows += [
                    (name, case.result.run.seed, rate, f"{value:.5g}") for rate, value in zip(RATES, line, strict=True)
                ]
        axes.set_xscale("log")
        axes.set_ylim(0, 1)
        axes.set_xlabel("inhibited share of all values")
        axes.set_ylabel("share of hits on\nmonosemantic neurons")
        axes.legend(loc="upper left")
        caption = (
            "Values of neurons with r_i > 0.999 whose MS is among the highest of all. FKR counts as false a value from "
            "a sample with another label than l*; since a sample holds other features beside its label, many of these "
            "have the neuron's own feature in them after all. The lower line counts those that have not."
        )
        return finish(
            figure,
            "toy-bridge-fkr",
            "False killing where the truth is known",
            caption,
            ["kind", "seed", "rate", "share"],
            rows,
        )


def bridge_tables(cases: Sequence[Case]) -> list[Table]:
    """Areas under the curves by what counts as monosemantic; and how often l* and the hits are right."""
    return [_areas(cases), _rightness(cases)]


def _areas(cases: Sequence[Case]) -> Table:
    rows = []
    for name, text in DETECTORS.items():
        found = [[roc(case.judged.detectors[name], case.judged.r > cut)[2] for case in cases] for cut in CUTS]
        ranks = [float(spearmanr(case.judged.detectors[name], case.judged.r).statistic) for case in cases]
        rows.append([name, text, *(spread(values, 3) for values in [*found, ranks])])
    return Table(
        "Scores against the truth",
        "Area under the ROC curve for telling neurons with r_i above a cut from the others that any feature excites, "
        "and the rank correlation with r_i. 0.5 is chance; below it, the detector points the other way.",
        ["detector", "what", *(f"AUC, r > {cut:g}" for cut in CUTS), "rank correlation"],
        rows,
        text_columns=2,
    )


def _rightness(cases: Sequence[Case]) -> Table:
    rows = []
    for case in cases:
        judged = case.judged
        right, mono = judged.star == judged.answers_to, judged.monosemantic
        shares = [right[mono].mean() if mono.any() else np.nan, right[~mono].mean() if (~mono).any() else np.nan]
        counted, absent = killed(case.data, judged, alive(case.result), 0.02)
        numbers = map(empty, [*shares, counted, absent])
        rows.append([f"seed {case.result.run.seed}", str(len(mono)), str(int(mono.sum())), *numbers])
    return Table(
        "l* and hits against the truth",
        "Alive: neurons that any feature excites; mono: r_i > 0.999. l* right: it is the feature that the neuron "
        "answers to most. Of the hits on monosemantic neurons at 2%: outside l*, as FKR counts; without the neuron's "
        "feature.",
        ["run", "alive", "mono", "l* right, mono", "l* right, others", "outside l*", "feature absent"],
        rows,
    )


def story(name: str, title: str, caption: str) -> Story:
    """What is written about a response curve."""
    return Story(f"toy-bridge-{name}", title, caption)


def _killed(case: Case) -> tuple[list[float], list[float]]:
    chosen = alive(case.result)
    pairs = [killed(case.data, case.judged, chosen, rate) for rate in RATES]
    return [counted for counted, _ in pairs], [absent for _, absent in pairs]

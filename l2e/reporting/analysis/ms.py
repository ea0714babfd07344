"""Bars of MS: neurons that tell a label on that label and elsewhere, and random neurons (L06, L07; Fig 3, 7, 8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from l2e.analysis.bootstrap import Interval
from l2e.analysis.ms import ModelScores, MsResult, NeuronScores
from l2e.reporting import drawing
from l2e.reporting.analysis.scale import Place, by_size, errors, in_words, legend_over, scale_axis
from l2e.reporting.drawing import COLOURS
from l2e.reporting.pictures import Picture, finish

_WIDTH = 0.34

_REST = (
    "Mean Monosemanticity Score of the {top} neurons of each model that tell one label of {features} best (ranked by "
    "{ranked_by}): on the sequences of that label (blue) and on all others (orange). Points: single neurons; lines: "
    "95% intervals over resampled neurons. A neuron that knows no label scores about 1 on both (dotted). If MS "
    "detects what these neurons are active on, blue stands high above orange. {control}{findings}"
)
_RANDOM = (
    "The same {top} neurons on their label (blue) against {random} random neurons of the model, each on the label "
    "where it scores highest (orange). Points: single neurons; lines: 95% intervals over resampled neurons. The lower "
    "orange, the less MS fires where there is nothing to detect; a neuron that scores alike on all labels has 1 "
    "(dotted). {control}{findings}"
)
_CONTROL = (
    "Grey bars across: the score on the label of as many neurons chosen in the same way with shuffled labels, that "
    "is, by luck alone. "
)


@dataclass(frozen=True)
class _Group:
    """The bars of one colour."""

    label: str
    mean: Callable[[ModelScores], Interval]
    points: Callable[[ModelScores], list[float]]


_OWN = _Group("on their label", lambda model: model.own, lambda model: [one.own for one in model.top])
_ELSEWHERE = _Group("on all other labels", lambda model: model.rest, lambda model: [one.rest for one in model.top])
_CHANCE = _Group(
    "random neurons on their best label", lambda model: model.chance, lambda model: [one.own for one in model.random]
)


def draw(result: MsResult) -> list[Picture]:
    """Fig 3a or 7, and Fig 3b or 8, of one feature set."""
    first = result.models[0]
    words = {"features": result.features, "ranked_by": result.ranked_by, "top": len(first.top)}
    words |= {"random": len(first.random), "control": _CONTROL if first.control else ""}
    rest = _REST.format(**words, findings=_findings(result, lambda model: model.over_rest, "the label minus the rest"))
    random = _RANDOM.format(**words, findings=_findings(result, lambda model: model.over_random, "top minus random"))
    of_top = _Group("neurons that tell a label, on it", _OWN.mean, _OWN.points)
    return [
        _picture(result, (_OWN, _ELSEWHERE), "ms-label-and-rest", "MS on the label and elsewhere", rest),
        _picture(result, (of_top, _CHANCE), "ms-top-and-random", "MS of telling and of random neurons", random),
    ]


def _picture(result: MsResult, groups: Sequence[_Group], name: str, title: str, caption: str) -> Picture:
    places = [Place(model.name, model.parameters) for model in result.models]
    models = [result.models[index] for index in by_size(places)]
    with drawing.style():
        figure = drawing.new_figure(3.3)
        axes = figure.subplots()
        for number, group in enumerate(groups):
            _bars(axes, models, group, (number - 0.5) * (_WIDTH + 0.04), COLOURS[number])
        if models[0].control:
            _control(axes, models)
        axes.axhline(1, color=drawing.BASELINE, linewidth=0.9, linestyle=(0, (1, 1.5)))
        scale_axis(axes, places, side_by_side=True)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("mean MS\n(deviation² / variance)")
        legend_over(figure, axes, result.features, [group.label for group in groups])
        header = ("model", "parameters", "group", "layer", "neuron", "label", "ms_on_label", "ms_on_rest")
        return finish(figure, name, title, caption, header, [row for model in models for row in _rows(model)])


def _bars(axes: Axes, models: Sequence[ModelScores], group: _Group, shift: float, colour: str) -> None:
    means = [group.mean(model) for model in models]
    at = np.arange(len(models)) + shift
    axes.bar(at, [mean.value for mean in means], _WIDTH, color=colour, alpha=0.55, label=group.label)
    axes.errorbar(at, [mean.value for mean in means], errors(means), fmt="none", ecolor="#222222", elinewidth=1.2)
    for place, model in zip(at, models, strict=True):
        points = group.points(model)
        spread = np.linspace(-0.3, 0.3, len(points)) * _WIDTH if len(points) > 1 else np.zeros(1)
        axes.plot(place + spread, points, "o", color=colour, markersize=2.6, markeredgewidth=0, alpha=0.9)


def _control(axes: Axes, models: Sequence[ModelScores]) -> None:
    at = np.arange(len(models)) - 0.5 * (_WIDTH + 0.04)
    levels = [float(np.mean([one.own for one in model.control])) for model in models]
    reach = _WIDTH / 2
    axes.hlines(levels, at - reach, at + reach, colors="#6E6E6E", linewidth=2, label="chosen alike, labels shuffled")


def _findings(result: MsResult, difference: Callable[[ModelScores], Interval], what: str) -> str:
    """Each model's difference with its interval, and how many of them are clear of 0."""
    found = [difference(model) for model in result.models]
    clear = sum(one.low > 0 for one in found)
    listed = "; ".join(f"{model.name} {in_words(one)}" for model, one in zip(result.models, found, strict=True))
    return f"Difference ({what}): {listed}. Its interval lies above 0 in {clear} of {len(found)}."


def _rows(model: ModelScores) -> list[tuple[object, ...]]:
    """Single neurons of each group, then the means with their intervals."""
    front = (model.name, model.parameters)
    rows: list[tuple[object, ...]] = []
    groups: dict[str, Sequence[NeuronScores]] = {"top": model.top, "random": model.random, "shuffled": model.control}
    for group, neurons in groups.items():
        rows += [(*front, group, one.layer, one.neuron, one.label, one.own, one.rest) for one in neurons]
    for group, own, rest in (("top", model.own, model.rest), ("random", model.chance, None)):
        for key in ("value", "low", "high"):
            name = "mean" if key == "value" else f"95% {key}"
            rows.append((*front, f"{group}: {name}", "", "", "", getattr(own, key), getattr(rest, key, "")))
    return rows

"""The K-S statistic by scale (L08, Fig 4): one line for each feature set."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from l2e.analysis.ks import KsResult, ModelDistances
from l2e.reporting import drawing
from l2e.reporting.analysis.scale import Place, errors, in_words, legend_over, marker, positions, scale_axis
from l2e.reporting.drawing import COLOURS, plain
from l2e.reporting.pictures import Picture, finish

_CAPTION = (
    "How far the scores of a neuron's best label stand out: Kolmogorov-Smirnov distance between the MS of the "
    "sequences of l* and the MS of all sequences, mean over {neurons} random neurons of each model; whiskers: 95% "
    "interval over resampled neurons; faint bar: the middle half of the neurons. 0 means that the label is like any "
    "other; a neuron that answers to one of 9 equal labels alone would reach 8/9. {control}{trend}"
)
_CONTROL = "Open markers: the same neurons with shuffled labels. "


def draw(*results: KsResult) -> list[Picture]:
    """One figure of all feature sets; each result is about the same models."""
    places = _places(results)
    with drawing.style():
        figure = drawing.new_figure(3.2)
        axes = figure.subplots()
        at = dict(zip(places, positions(places), strict=True))
        scale_axis(axes, places)
        for index, result in enumerate(results):
            _line(axes, result, at, index, len(results))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("K-S statistic\n(0: no label stands out)")
        if results[0].models[0].control:
            axes.plot([], [], "o", color="#6E6E6E", markerfacecolor="white", markersize=4, label="labels shuffled")
        legend_over(figure, axes, "Best label against all labels", [plain(result.features) for result in results])
        rows = [row for result in results for model in result.models for row in _rows(result.features, model)]
        header = ("features", "model", "parameters", "neurons", "kind", "ks_mean", "low", "high", "lower_quartile")
        caption = _CAPTION.format(
            neurons=_neurons(results),
            control=_CONTROL if results[0].models[0].control else "",
            trend=" ".join(map(_trend, results)),
        )
        title = "K-S statistic by scale" if len(places) > 1 else "K-S statistic"
        return [finish(figure, "ks-by-scale", title, caption, (*header, "upper_quartile"), rows)]


def _places(results: Sequence[KsResult]) -> list[Place]:
    return list(dict.fromkeys(_place(model) for result in results for model in result.models))


def _place(model: ModelDistances) -> Place:
    return Place(model.sample.name, model.sample.parameters)


def _line(axes: Axes, result: KsResult, at: dict[Place, float], index: int, lines: int) -> None:
    models = sorted(result.models, key=lambda model: at[_place(model)])
    colour = COLOURS[index % len(COLOURS)]
    apart = index - (lines - 1) / 2  # lines side by side, so that their whiskers do not hide each other
    logarithmic = axes.get_xscale() == "log"
    x = np.array([at[_place(model)] for model in models])
    x = x * 1.035**apart if logarithmic else x + 0.09 * apart
    for place, model in zip(x, models, strict=True):
        low, high = np.quantile(model.sample.scores, [0.25, 0.75])
        axes.plot([place, place], [low, high], color=colour, alpha=0.2, linewidth=6, solid_capstyle="butt")
    means = [model.mean for model in models]
    joined = "-" if logarithmic else "none"  # side by side, models are no points of one curve
    axes.errorbar(
        x,
        [mean.value for mean in means],
        errors(means),
        color=colour,
        marker=marker(index),
        markersize=4.5,
        linestyle=joined,
        linewidth=1.3,
        capsize=2.5,
        label=plain(result.features),
    )
    controls = [model.control.value for model in models if model.control]
    if controls:
        axes.plot(x, controls, marker(index), color=colour, markerfacecolor="white", markersize=4)


def _neurons(results: Sequence[KsResult]) -> str:
    counts = sorted({len(model.sample.scores) for result in results for model in result.models})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _trend(result: KsResult) -> str:
    """The smallest and the largest model with their intervals, and whether these are apart."""
    models = sorted(result.models, key=lambda model: model.sample.parameters)
    if len({model.sample.parameters for model in models}) < 2:
        listed = "; ".join(f"{model.sample.name} {in_words(model.mean, 3)}" for model in models)
        return f"{result.features}: {listed}."
    first, last = models[0], models[-1]
    if last.mean.high < first.mean.low:
        verdict = "lower for the larger"
    elif last.mean.low > first.mean.high:
        verdict = "higher for the larger"
    else:
        verdict = "the intervals overlap"
    return (
        f"{result.features}: {first.sample.name} {in_words(first.mean, 3)}, {last.sample.name} "
        f"{in_words(last.mean, 3)}: {verdict}."
    )


def _rows(features: str, model: ModelDistances) -> list[tuple[object, ...]]:
    front = (features, model.sample.name, model.sample.parameters, len(model.sample.scores))
    rows = [(*front, "labels", *model.mean, *np.quantile(model.sample.scores, [0.25, 0.75]).tolist())]
    if model.control:
        quartiles = np.quantile(model.sample.control, [0.25, 0.75]).tolist()
        rows.append((*front, "labels shuffled", *model.control, *quartiles))
    return rows

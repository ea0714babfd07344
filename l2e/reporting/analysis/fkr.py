"""The False Killing Rate by inhibition rate with its minimum (L11, Fig 6), and by layer (L12, Fig 11)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from l2e.analysis.fkr import FkrConfig, FkrResult, ModelRates
from l2e.reporting import drawing
from l2e.reporting.analysis.scale import Place, by_size, depth_axis, in_words, legend_over, shade, size
from l2e.reporting.drawing import COLOURS, plain
from l2e.reporting.pictures import Picture, finish

_MINIMUM = "#C1121F"
_PAPER_RATE = 0.02

_BY_RATE = (
    "Of the values that inhibition would hit, the share outside their neuron's label l*, by the inhibited share of "
    "all values; mean over the layers, band: 95% interval over resampled sequences. Red: the lowest point{spread}. "
    "Dashed: what hitting everything gives, whatever the model; a curve near it has nothing to aim at. Dotted: the "
    "published 2%. A U shape says that the highest scores are stray outliers, the next belong to labels. {how}{found}"
)
_BY_LAYER = (
    "The False Killing Rate at {rate:g}% inhibition, layer by layer; bands: 95% intervals over resampled sequences. "
    "Higher means that more of what would be inhibited lies outside the neuron's label{darker}. Dashed: hitting "
    "everything. {how}"
)


def draw(result: FkrResult) -> list[Picture]:
    """The curves by rate, a panel for each model; the curves by layer, a line for each model."""
    return [_by_rate(result), _by_layer(result)]


def _by_rate(result: FkrResult) -> Picture:
    places = _places(result)
    columns = min(len(places), 2)
    height = -(-len(places) // columns)
    with drawing.style():
        figure = drawing.new_figure(0.9 + (1.75 if height > 1 or columns > 1 else 2.5) * height)
        grid = figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, index in zip(grid, by_size(places), strict=False):
            _panel(axes, result, result.models[index])
        for axes in grid[len(places) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("false killing rate")
        for axes in grid[max(0, len(places) - columns) : len(places)]:
            axes.set_xlabel("inhibited share of the values" if columns == 1 else "inhibited share")
            axes.xaxis.set_tick_params(labelbottom=True)
        legend_over(figure, grid[0], result.features)
        caption = _BY_RATE.format(
            spread=", with the range it has in 95% of the resamples shaded",
            how=_how(result.settings),
            found=_minima(result),
        )
        header = ("model", "parameters", "layer", "inhibited_share", "false_killing_rate", "low", "high")
        rows = [row for model in result.models for row in _rate_rows(model, result.rates)]
        return finish(figure, "fkr-by-rate", "False killing rate by inhibition rate", caption, header, rows)


def _panel(axes: Axes, result: FkrResult, model: ModelRates) -> None:
    colour = COLOURS[0]
    low, high = ([getattr(one, key) for one in model.by_rate] for key in ("low", "high"))
    axes.axhline(model.chance, color=drawing.BASELINE, linewidth=0.9, linestyle=(0, (4, 2)), label="hitting everything")
    if result.rates[0] <= _PAPER_RATE <= result.rates[-1]:
        look: dict[str, Any] = {"color": drawing.BASELINE, "linewidth": 0.9, "linestyle": (0, (1, 1.5))}
        axes.axvline(_PAPER_RATE, label="published 2%", **look)
    axes.axvspan(model.minimum.low, model.minimum.high, color=_MINIMUM, alpha=0.12, linewidth=0)
    axes.axvline(model.minimum.value, color=_MINIMUM, linewidth=1.4, label="lowest point")
    axes.fill_between(result.rates, low, high, color=colour, alpha=0.2, linewidth=0)
    values = [one.value for one in model.by_rate]
    axes.plot(result.rates, values, "o-", color=colour, markersize=3, linewidth=1.3, label="mean over layers")
    axes.set_title(f"{plain(model.name, 22)} ({size(model.parameters)})", loc="left", fontsize=9)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.001, 0.01, 0.1, 1.0) if result.rates[0] <= tick <= result.rates[-1]]
    axes.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, 1)


def _by_layer(result: FkrResult) -> Picture:
    places = _places(result)
    with drawing.style():
        figure = drawing.new_figure(3.3)
        axes = figure.subplots()
        for index in by_size(places):
            model, look = result.models[index], shade(places, index)
            x = [layer.depth for layer in model.by_layer]
            low, high = ([getattr(layer.rate, key) for layer in model.by_layer] for key in ("low", "high"))
            axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
            label = f"{plain(model.name)} ({size(model.parameters)})"
            values = [layer.rate.value for layer in model.by_layer]
            axes.plot(x, values, marker="o", markersize=3, linewidth=1.3, label=label, **look)
        chance = float(np.mean([model.chance for model in result.models]))
        axes.axhline(chance, color=drawing.BASELINE, linewidth=0.9, linestyle=(0, (4, 2)), label="hitting everything")
        depth_axis(axes)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1)
        axes.set_ylabel(f"false killing rate at {100 * result.settings.rate:g}%")
        legend_over(figure, axes, result.features)
        darker = len({place.parameters for place in places}) == len(places) > 1
        caption = _BY_LAYER.format(
            rate=100 * result.settings.rate,
            darker="; the larger the model, the darker the line" if darker else "",
            how=_how(result.settings),
        )
        header = ("model", "parameters", "layer", "relative_depth", "false_killing_rate", "low", "high", "everything")
        rows = [
            (model.name, model.parameters, layer.layer, layer.depth, *layer.rate, layer.chance)
            for model in result.models
            for layer in model.by_layer
        ]
        return finish(figure, "fkr-by-layer", "False killing rate by layer", caption, header, rows)


def _places(result: FkrResult) -> list[Place]:
    return [Place(model.name, model.parameters) for model in result.models]


def _how(settings: FkrConfig) -> str:
    threshold = "One threshold for each sequence" if settings.per_input else "One threshold for all values of a layer"
    label = (
        "l* chosen on one half of the sequences, counted on the other. "
        if settings.held_out
        else "l* chosen on the same sequences, which flatters the rate. "
    )
    return f"{threshold}; {label}"


def _minima(result: FkrResult) -> str:
    found = []
    for model in result.models:
        at = result.rates.index(model.minimum.value)
        inner = 0 < at < len(result.rates) - 1
        shape = "" if inner else " (an end of the curve, so no U)"
        low, high = 100 * model.minimum.low, 100 * model.minimum.high
        found.append(
            f"{model.name}: lowest at {100 * model.minimum.value:g}% [{low:g}, {high:g}]{shape}, "
            f"{in_words(model.by_rate[at])}"
        )
    return "; ".join(found) + "."


def _rate_rows(model: ModelRates, rates: Sequence[float]) -> list[tuple[object, ...]]:
    front = (model.name, model.parameters)
    rows: list[tuple[object, ...]] = [
        (*front, "mean", rate, *one) for rate, one in zip(rates, model.by_rate, strict=True)
    ]
    for layer, values in enumerate(model.all_layers.tolist()):
        rows += [(*front, layer, rate, value, "", "") for rate, value in zip(rates, values, strict=True)]
    return [*rows, (*front, "lowest point", *model.minimum[:1], "", *model.minimum[1:])]

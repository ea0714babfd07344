"""phi_{l*} by layer, one line for each model (L09, Fig 5 and 9), and its mean by scale."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from l2e.analysis.layers import LayersResult, ModelLayers
from l2e.reporting import drawing
from l2e.reporting.analysis.scale import (
    Place,
    depth_axis,
    errors,
    in_words,
    legend_over,
    positions,
    scale_axis,
    shade,
    size,
)
from l2e.reporting.drawing import plain
from l2e.reporting.pictures import Picture, finish

_LAYERS = (
    "Mean MS on the best label l* of random neurons, layer by layer; bands: 95% intervals over resampled neurons. "
    "Each line is one model{darker}. 1 would be a neuron that scores alike on all labels; higher means that one label "
    "stands out. {control}"
)
_SCALE = (
    "The same scores averaged over all sampled neurons of each model, with 95% intervals over resampled neurons. "
    "{control}{models}"
)
_CONTROL = "{how}: the same neurons with shuffled labels; above 1 because l* is the best of several labels. "


def draw(result: LayersResult) -> list[Picture]:
    """Lines over the layers; with several models also the mean by scale."""
    pictures = [_by_layer(result)]
    return [*pictures, _by_scale(result)] if len(result.models) > 1 else pictures


def _by_layer(result: LayersResult) -> Picture:
    places = _places(result.models)
    sizes = len({place.parameters for place in places})
    with drawing.style():
        figure = drawing.new_figure(3.3)
        axes = figure.subplots()
        for index in sorted(range(len(places)), key=lambda index: places[index].parameters):
            _line(axes, result.models[index], places, index)
        controls = [model.control.value for model in result.models if model.control]
        if controls:
            mean = sum(controls) / len(controls)
            axes.axhline(mean, color=drawing.BASELINE, linewidth=1, linestyle=(0, (1, 1.5)), label="labels shuffled")
        depth_axis(axes)
        axes.set_ylabel("mean MS on the best label")
        legend_over(figure, axes, result.features)
        caption = _LAYERS.format(
            darker=", the larger the darker" if sizes == len(places) > 1 else "",
            control=_CONTROL.format(how="Dotted") if controls else "",
        )
        header = ("model", "parameters", "layer", "relative_depth", "neurons", "mean_ms", "low", "high")
        rows = [row for model in result.models for row in _rows(model)]
        return finish(figure, "layers", "MS by layer", caption, header, rows)


def _line(axes: Axes, model: ModelLayers, places: Sequence[Place], index: int) -> None:
    look = shade(places, index)
    x = [layer.depth for layer in model.layers]
    axes.fill_between(
        x,
        [layer.mean.low for layer in model.layers],
        [layer.mean.high for layer in model.layers],
        color=look["color"],
        alpha=0.15 if len(places) < 4 else 0.07,
        linewidth=0,
    )
    label = f"{plain(model.sample.name)} ({size(model.sample.parameters)})"
    values = [layer.mean.value for layer in model.layers]
    axes.plot(x, values, marker="o", markersize=3, linewidth=1.3, label=label, **look)


def _by_scale(result: LayersResult) -> Picture:
    places = _places(result.models)
    models, x = result.models, positions(places)
    with drawing.style():
        figure = drawing.new_figure(2.9)
        axes = figure.subplots()
        scale_axis(axes, places)
        for index, model in enumerate(models):
            look = {"color": shade(places, index)["color"], "fmt": "o", "markersize": 5, "capsize": 3}
            axes.errorbar([x[index]], [model.mean.value], errors([model.mean]), **look)
            if model.control:
                axes.plot([x[index]], [model.control.value], "o", color=look["color"], markerfacecolor="white")
        axes.set_ylabel("mean MS on the best label")
        axes.plot([], [], "o", color="#6E6E6E", label="mean over neurons and layers")
        if models[0].control:
            axes.plot([], [], "o", color="#6E6E6E", markerfacecolor="white", label="labels shuffled")
        legend_over(figure, axes, result.features)
        caption = _SCALE.format(
            control=_CONTROL.format(how="Open circles") if models[0].control else "",
            models="; ".join(f"{model.sample.name} {in_words(model.mean)}" for model in models) + ".",
        )
        rows = [
            (model.sample.name, model.sample.parameters, kind, len(model.sample.scores), *mean)
            for model in models
            for kind, mean in (("labels", model.mean), ("labels shuffled", model.control))
            if mean is not None
        ]
        header = ("model", "parameters", "kind", "neurons", "mean_ms", "low", "high")
        return finish(figure, "layers-by-scale", "MS by scale", caption, header, rows)


def _places(models: Sequence[ModelLayers]) -> list[Place]:
    return [Place(model.sample.name, model.sample.parameters) for model in models]


def _rows(model: ModelLayers) -> list[tuple[object, ...]]:
    front = (model.sample.name, model.sample.parameters)
    return [(*front, layer.layer, layer.depth, layer.neurons, *layer.mean) for layer in model.layers]

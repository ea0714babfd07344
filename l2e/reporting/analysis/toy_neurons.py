"""Single toy models from inside: biases, answers to single features, response curves, the linear map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from l2e.analysis.toy.experiments import Finished
from l2e.analysis.toy.measures import MONOSEMANTIC, POSITIVE
from l2e.analysis.toy.model import activate
from l2e.analysis.toy.results import ToyResult
from l2e.reporting import drawing
from l2e.reporting.analysis.toy_lines import Story
from l2e.reporting.drawing import COLOURS
from l2e.reporting.pictures import Picture, finish

FAINT = 0.01
"""Fainter answers are not told apart by eye, and are left out of the CSV."""
POINTS = 101
"""Of a response curve."""


def bias_figure(series: Finished, story: Story) -> Picture:
    """Figure 5: biases of the first seed, the most monosemantic neurons first, for each value."""
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure = drawing.new_figure(2.9)
        axes = figure.add_subplot()
        for number, (value, results) in enumerate(series.results.items()):
            biases = results[0].bias[_by_monosemanticity(results[0])].tolist()
            axes.plot(biases, color=COLOURS[number % len(COLOURS)], linewidth=1, label=f"{value:g}")
            rows += [(f"{value:g}", place, f"{bias:.6g}") for place, bias in enumerate(biases)]
        axes.axvline(results[0].run.features, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_xlabel("neuron, the most monosemantic first (dotted: number of features)")
        axes.set_ylabel("bias")
        figure.legend(loc="outside upper left", ncols=6, title="learning rate", title_fontsize=8.5)
        return finish(figure, *story, ["value", "place", "bias"], rows)


def answers_figure(chosen: Sequence[tuple[str, ToyResult]], story: Story) -> Picture:
    """Figure 10: h_i(F_j), the most monosemantic neurons first, the features in the order of their neurons."""
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure = drawing.new_figure(4.2)
        grid = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
        for axes, (name, result) in zip(grid, chosen, strict=True):
            sorted_answers = _sorted_answers(result)
            shown = _image(axes, sorted_answers.numpy(), vmin=0, vmax=1)
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("feature")
            rows += [
                (name, neuron, feature, f"{answer:.3f}")
                for neuron, line in enumerate(sorted_answers.tolist())
                for feature, answer in enumerate(line)
                if answer >= FAINT
            ]
        grid[0].set_ylabel("neuron")
        figure.colorbar(shown, ax=list(grid), label="answer to the feature alone", shrink=0.6)
        return finish(figure, *story, ["model", "neuron", "feature", "answer"], rows)


def response_figure(chosen: Sequence[tuple[str, ToyResult]], story: Story) -> Picture:
    """Figure 24: output j against feature j, all others absent; median and range of the features."""
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure, grid = _columns(len(chosen), "output of the feature")
        for axes, (name, result) in zip(grid, chosen, strict=True):
            size, total, _ = response_curves(result)
            _band(axes, size, total, COLOURS[0], "all neurons")
            axes.plot(size, size, color="#888888", linewidth=0.8, linestyle=":")
            axes.set_title(name, fontsize=9)
            rows += _curve_rows(name, "all", size, total)
        return finish(figure, *story, ["model", "neurons", "feature_size", "low", "median", "high"], rows)


def parts_figure(chosen: Sequence[tuple[str, ToyResult]], story: Story) -> Picture:
    """Figure 25: the same output in parts, from the feature's strongest neuron and from all others."""
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure, grid = _columns(len(chosen), "part of the output")
        for axes, (name, result) in zip(grid, chosen, strict=True):
            size, total, strongest = response_curves(result)
            for part, curves, colour in (("strongest", strongest, 1), ("all others", total - strongest, 2)):
                _band(axes, size, curves, COLOURS[colour], part)
                rows += _curve_rows(name, part, size, curves)
            axes.set_title(name, fontsize=9)
        grid[0].legend(loc="upper left")
        return finish(figure, *story, ["model", "neurons", "feature_size", "low", "median", "high"], rows)


def linear_figure(chosen: Sequence[tuple[str, ToyResult]], story: Story) -> Picture:
    """Figure 26: the linear map of the neurons of positive bias (J12), and its singular values."""
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure = drawing.new_figure(5.6)
        grid = figure.subplots(2, len(chosen), squeeze=False, height_ratios=(2.2, 1))
        for column, (name, result) in enumerate(chosen):
            upper, lower = grid[:, column]
            linear = result.linear_map()
            shown = _image(upper, linear.numpy(), vmin=-0.5, vmax=0.5, cmap="RdBu_r")
            values = torch.linalg.svdvals(linear).tolist()
            lower.plot(range(1, len(values) + 1), values, "o", markersize=2.5, color=COLOURS[0])
            lower.axvline(result.run.inputs + 0.5, color="#888888", linewidth=0.8, linestyle=":")
            positive = int((result.bias > POSITIVE).sum())
            upper.set_title(f"{name}, {positive} positive biases", fontsize=9)
            lower.set_xlabel("singular value (dotted: d)")
            rows += [(name, place, f"{value:.6g}") for place, value in enumerate(values, start=1)]
        grid[0, 0].set_ylabel("feature")
        grid[1, 0].set_ylabel("size")
        figure.colorbar(shown, ax=list(grid[0]), shrink=0.8)
        return finish(figure, *story, ["model", "singular_value", "size"], rows)


def response_curves(result: ToyResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output j for feature j of growing size and no other.

    Returns:
        Sizes [points], outputs [points, features], and their parts from the neuron that weighs most when the feature
        is 1, [points, features].
    """
    if result.run.outputs != result.run.features:
        raise ValueError("response curves need an output for each feature")
    size = torch.linspace(0, 1, POINTS)
    hidden = activate(
        size[:, None, None] * (result.projection @ result.weight_in) + result.bias, result.run.activation
    )  # [points, features, neurons]
    parts = hidden * result.weight_out.T  # [features, neurons]
    silent = activate(result.bias, result.run.activation) @ result.weight_out  # without any feature
    strongest = parts[-1].argmax(1)
    own = parts.gather(2, strongest.expand(POINTS, -1)[..., None]).squeeze(2)
    own_silent = own[0]
    return size.numpy(), (parts.sum(2) - silent).numpy(), (own - own_silent).numpy()


def _by_monosemanticity(result: ToyResult) -> Tensor:
    return result.monosemanticity().argsort(descending=True, stable=True)


def _sorted_answers(result: ToyResult) -> Tensor:
    """h_i(F_j), [neurons, features], in the published code's order."""
    answers = result.responses().T[_by_monosemanticity(result)]
    return answers[:, answers.argmax(0).argsort(stable=True)]


def _columns(count: int, label: str) -> tuple[Figure, Any]:
    figure = drawing.new_figure(2.6)
    grid = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    grid[0].set_ylabel(label)
    for axes in grid:
        axes.set_xlabel("size of the feature")
    return figure, grid


def _image(axes: Axes, values: np.ndarray, **settings: Any) -> Any:
    axes.grid(False)
    return axes.imshow(values, interpolation="nearest", aspect="auto", **settings)


def _band(axes: Axes, size: np.ndarray, curves: np.ndarray, colour: str, label: str) -> None:
    low, middle, high = np.quantile(curves, [0.1, 0.5, 0.9], axis=1)
    axes.plot(size, middle, color=colour, label=label)
    axes.fill_between(size, low, high, color=colour, alpha=0.2, linewidth=0)


def _curve_rows(name: str, part: str, size: np.ndarray, curves: np.ndarray) -> list[tuple[object, ...]]:
    bands = np.quantile(curves, [0.1, 0.5, 0.9], axis=1).T
    return [(name, part, f"{x:.2f}", *(f"{edge:.5g}" for edge in band)) for x, band in zip(size, bands, strict=True)]


def monosemantic_features(result: ToyResult) -> dict[int, int]:
    """How many features have 0, 1, 2 ... monosemantic neurons, as the paper counts them for its lr of 0.03."""
    mono = result.monosemanticity() > MONOSEMANTIC
    owners = result.responses()[:, mono].argmax(0)
    each = torch.bincount(owners, minlength=result.run.features)
    return {int(count): int((each == count).sum()) for count in each.unique()}

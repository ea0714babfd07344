"""Histograms of single neurons by label (L33, Fig 1 and 2): the same axes for all, both sides of the mean."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from l2e.analysis.distributions import DistributionsResult, Outputs
from l2e.reporting import drawing
from l2e.reporting.drawing import COLOURS, plain
from l2e.reporting.pictures import Picture, finish

_OTHERS = "#9A9A9A"
_ROOM = 0.94  # of the distance between two rows, for the highest bar of the figure

_CAPTION = (
    "Outputs of single neurons by label of {features}: a histogram for each label, the share of the label's sequences "
    "at each distance from the neuron's mean (dashed), in standard deviations; the same scale in every row and panel. "
    "The number at the right is the label's mean MS (squared distance); the label with the highest is blue. A neuron "
    "that tells a label has one row off the mean, on whichever side, and the others near it; one that does not has "
    "rows of one shape. What lies beyond the axis is counted in the outermost bins. {neurons}"
)


def draw(result: DistributionsResult) -> list[Picture]:
    """One figure with a panel for each neuron."""
    count, labels = len(result.neurons), len(result.label_names)
    columns = min(count, 2)
    rows = -(-count // columns)
    with drawing.style():
        figure = drawing.new_figure(0.55 + rows * (1.0 + 0.24 * labels))
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        top = float(np.nanmax([neuron.shares for neuron in result.neurons]))
        for axes, neuron in zip(grid, result.neurons, strict=False):
            _panel(axes, result, neuron, top)
        for axes in grid[count:]:
            axes.set_visible(False)
        for axes in grid[max(0, count - columns) : count]:
            axes.set_xlabel("standard deviations\nfrom the neuron's mean")
            axes.xaxis.set_tick_params(labelbottom=True)
        figure.suptitle(plain(result.features, 60), x=0.01, ha="left", fontsize=9, fontweight="bold")
        figure.supylabel(f"label; height: share of its sequences (full row {100 * top / _ROOM:.0f}%)", fontsize=8.5)
        caption = _CAPTION.format(features=result.features, neurons=" ".join(map(_in_words, result.neurons)))
        header = ("model", "layer", "neuron", "chosen", "label", "mean_ms", "from", "to", "share_of_label")
        numbers = [row for neuron in result.neurons for row in _rows(result, neuron)]
        return [finish(figure, "distributions", "Outputs by label", caption, header, numbers)]


def _panel(axes: Axes, result: DistributionsResult, neuron: Outputs, top: float) -> None:
    """Rows from the top in the order of the labels."""
    labels = len(result.label_names)
    axes.axvline(0, color=drawing.BASELINE, linewidth=0.9, linestyle=(0, (4, 2)))
    for label, shares in enumerate(neuron.shares):
        base = labels - 1 - label
        colour = COLOURS[0] if label == neuron.feature else _OTHERS
        heights = np.nan_to_num(shares) / top * _ROOM
        axes.stairs(base + heights, result.edges, baseline=base, fill=True, color=colour, alpha=0.55)
        axes.stairs(base + heights, result.edges, baseline=base, color=colour, linewidth=0.8)
        score = "" if np.isnan(neuron.scores[label]) else f"{neuron.scores[label]:.2f}"
        weight = "bold" if label == neuron.feature else "normal"
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        axes.text(0.995, base + 0.12, score, fontsize=7.5, color="#333333", weight=weight, **place)
    axes.set_yticks(range(labels), [plain(name, 14) for name in reversed(result.label_names)], va="bottom")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(0, labels)
    axes.set_xlim(result.edges[0], result.edges[-1])
    axes.grid(visible=False, axis="x")
    title = f"{plain(neuron.model, 24)}\nlayer {neuron.layer}, neuron {neuron.neuron}"
    axes.set_title(f"{title}\n({plain(neuron.why, 40)})", loc="left", fontsize=8.5)
    axes.set_title("MS", loc="right", fontsize=7.5, color="#333333")


def _in_words(neuron: Outputs) -> str:
    return (
        f"{neuron.model}, layer {neuron.layer}, neuron {neuron.neuron} ({neuron.why}): mean output {neuron.mean:.4g}, "
        f"standard deviation {neuron.deviation:.4g}."
    )


def _rows(result: DistributionsResult, neuron: Outputs) -> list[tuple[object, ...]]:
    front = (neuron.model, neuron.layer, neuron.neuron, neuron.why)
    return [
        (*front, name, neuron.scores[label], result.edges[place], result.edges[place + 1], share)
        for label, name in enumerate(result.label_names)
        for place, share in enumerate(neuron.shares[label].tolist())
    ]

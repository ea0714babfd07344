"""The axis of scale: several models side by side, by their numbers of parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from l2e.analysis.bootstrap import Interval
from l2e.reporting.drawing import COLOURS, LINES, MARKERS, columns_for, plain

DARKEST, LIGHTEST = to_rgb("#08306B"), to_rgb("#9ECAE1")
ROTATE_FROM = 5  # models beside each other whose names would run into each other


@dataclass(frozen=True)
class Place:
    """A model on the axis."""

    name: str
    parameters: int


def size(parameters: int) -> str:
    """70M, 1.4B: as the papers write sizes, of whatever is counted."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= 0.9995 * unit:
            number = parameters / unit
            return f"{number:.0f}{letter}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0") + letter
    return str(parameters)


def by_size(places: Sequence[Place]) -> list[int]:
    """The order in which models stand on the axis: smallest first, else as they were named."""
    return sorted(range(len(places)), key=lambda index: places[index].parameters)


def positions(places: Sequence[Place]) -> list[float]:
    """Where the models stand: at their parameters if these tell them apart, else side by side."""
    if _logarithmic(places):
        return [float(place.parameters) for place in places]
    order = by_size(places)
    return [float(order.index(index)) for index in range(len(places))]


def scale_axis(axes: Axes, places: Sequence[Place], side_by_side: bool = False) -> None:
    """Label the axis that `positions` stand on; logarithmic where they are parameters.

    Args:
        axes: to be labelled.
        places: all models.
        side_by_side: positions are 0, 1, ... in the order of size, as for bars.
    """
    if _logarithmic(places) and not side_by_side:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([place.parameters for place in places]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([place.parameters for place in places], [size(place.parameters) for place in places])
        low, high = (end(place.parameters for place in places) for end in (min, max))
        room = (high / low) ** 0.06
        axes.set_xlim(low / room, high * room)
        axes.set_xlabel("parameters (logarithmic)")
        return
    ordered = [places[index] for index in by_size(places)]
    several = len({place.parameters for place in places}) > 1
    crowded = len(ordered) >= ROTATE_FROM
    names = [plain(place.name, 18) + ("" if crowded else f"\n{size(place.parameters)}") for place in ordered]
    axes.set_xticks(range(len(ordered)), names, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    room = max(0.6, 1.4 - 0.4 * len(ordered))  # a single model does not fill the figure
    axes.set_xlim(-room, len(ordered) - 1 + room)
    axes.set_xlabel("model, by parameters" if several else "model (all of one size)" if len(ordered) > 1 else "model")
    axes.grid(visible=False, axis="x")


def depth_axis(axes: Axes) -> None:
    """Layers of models of different depth along one axis, from the first (0) to the last (1)."""
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["first", "1/4", "middle", "3/4", "last"])
    axes.set_xlabel("layer (relative depth)")


def shade(places: Sequence[Place], index: int) -> dict[str, Any]:
    """A model's line: the larger the darker, as in the papers; models of one size by colour instead."""
    if len({place.parameters for place in places}) < len(places):
        return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}
    rank = by_size(places).index(index) / max(len(places) - 1, 1)
    dark = rank if len(places) > 1 else 1.0
    colour = tuple(dark * end + (1 - dark) * start for start, end in zip(LIGHTEST, DARKEST, strict=True))
    return {"color": colour, "linestyle": "-"}


def legend_over(figure: Figure, axes: Axes, heading: str, first: Sequence[str] = ()) -> None:
    """The legend above everything under a heading; labels in `first` lead, the rest follow as drawn."""
    entries = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    labels = [*first, *(label for label in entries if label not in first)]
    handles = [entries[label] for label in labels]
    legend = figure.legend(
        handles, labels, title=plain(heading, 60), loc="outside upper left", ncols=columns_for(labels), alignment="left"
    )
    legend.get_title().set_fontsize(9)
    legend.get_title().set_fontweight("bold")


def marker(index: int) -> str:
    """One for each line."""
    return MARKERS[index % len(MARKERS)]


def errors(intervals: Sequence[Interval]) -> np.ndarray:
    """Distances below and above for matplotlib's error bars, [2, points]; 0 where there is no interval."""
    ends = [(one.value - one.low, one.high - one.value) for one in intervals]
    return np.nan_to_num(np.maximum(np.array(ends, dtype=np.float64).T, 0))


def in_words(interval: Interval, digits: int = 2) -> str:
    """1.23 [1.10, 1.40]; without an interval the number alone."""
    if np.isnan(interval.low):
        return f"{interval.value:.{digits}f}"
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _logarithmic(places: Sequence[Place]) -> bool:
    return len(places) > 1 and len({place.parameters for place in places}) == len(places)

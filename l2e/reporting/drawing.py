"""How figures look: one style, one colour per run, the same on every machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from l2e.reporting.curves import Values
from l2e.reporting.results import find_baseline
from l2e.reporting.runs import RunRecord

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, told apart by colour-blind readers; more runs differ by line style as well."""
BASELINE = "#4D4D4D"
UNTRAINED = "#C9C9C9"
LINES = ("-", (0, (4, 1.5)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 4.8  # inches; narrow: on a phone of 390 px a point is then about a pixel

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "l2e",
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's defaults plus ours, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(height: float) -> Figure:
    """An empty white figure with an Agg canvas; no pyplot, no global state."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def line_style(runs: Sequence[RunRecord], run: RunRecord) -> dict[str, Any]:
    """A run's colour and line, the same in every figure; the baseline is grey."""
    baseline = find_baseline(runs)
    if run is baseline:
        return {"color": BASELINE, "linestyle": "-"}
    index = [other is run for other in runs if other is not baseline].index(True)
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}


def step_axis(axes: Axes, ticks: int = 6) -> None:
    """Whole updates along the bottom."""
    axes.set_xlabel("step (optimizer updates)")
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def finite(values: Values) -> Values:
    """NaN for what cannot be drawn."""
    return np.where(np.isfinite(values), values, np.nan)


def plain(text: str, limit: int = 32) -> str:
    """Text from a file as a legend entry: no mathtext, nothing unprintable, not too long, not hidden by a `_`.

    What is too long loses its middle: runs of a study differ at their names' ends.
    """
    text = "".join(char if char.isprintable() else " " for char in text)
    text = text if len(text) <= limit else text[: limit - limit // 3 - 1] + "…" + text[-(limit // 3) :]
    return (" " + text if text.startswith("_") else text).replace("$", r"\$")


def legend_above(axes: Axes) -> None:
    """A legend over the axes, out of the way of every curve; in two columns where the labels leave room for it."""
    labels = axes.get_legend_handles_labels()[1]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.01), "borderaxespad": 0, "handlelength": 2.2}
    axes.legend(ncols=columns_for(labels), **place)


def legend_of(figure: Figure, looks: dict[str, dict[str, Any]]) -> None:
    """A legend over all axes of a figure: labels and how their lines look."""
    handles = [Line2D([], [], linewidth=1.6, **look) for look in looks.values()]
    labels = [plain(name) for name in looks]
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=min(len(labels), 4) if max(map(len, labels)) <= 12 else columns_for(labels),
    )


def columns_for(labels: Sequence[str]) -> int:
    """Columns of a legend that fits the figure's width."""
    return 2 if max(map(len, labels), default=0) <= 20 else 1

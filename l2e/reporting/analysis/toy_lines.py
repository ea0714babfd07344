"""Lines over training and over a swept value, for toy models: mean over seeds, and each seed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from l2e.analysis.toy.experiments import Finished
from l2e.analysis.toy.results import ToyResult
from l2e.reporting import drawing
from l2e.reporting.cells import MISSING, Table, decimals
from l2e.reporting.drawing import COLOURS, LINES, MARKERS, WIDTH
from l2e.reporting.pictures import Picture, finish

Numbers = NDArray[np.float64]


class Panel(NamedTuple):
    """One pair of axes over a swept value: its label, what it shows, and its column in the CSV."""

    label: str
    measure: Callable[[ToyResult], float]
    column: str


class Story(NamedTuple):
    """What is written about a figure: file name, title, caption."""

    name: str
    title: str
    caption: str


LOSS = Panel("loss", lambda r: r.clean_loss if r.run.inhibition == "memel" else r.loss, "loss")
PER_FEATURE = Panel("monosemantic\nper feature", lambda result: result.per_feature, "monosemantic_per_feature")
PER_NEURON = Panel("monosemantic\nper neuron", lambda result: result.per_neuron, "monosemantic_per_neuron")
SETTLED = Panel(
    "settled: mono-\nsemantic / N",
    lambda result: result.count("monosemantic", 1) / result.run.features,
    "monosemantic_per_feature_at_lr_0",
)
MEAN_BIAS = Panel("mean bias", lambda result: result.count("mean_bias"), "mean_bias")
POSITIVE = Panel("positive biases", lambda result: result.count("positive"), "positive_biases")


def sweep_figure(
    found: Sequence[Finished],
    panels: Sequence[Panel],
    story: Story,
    label: str,
    scale: str = "linear",
    marked: float | None = None,
) -> Picture:
    """Panels below each other over the swept value, a line for each series.

    Args:
        found: the series.
        panels: from top to bottom.
        story: name, title and caption.
        label: of the swept value.
        scale: of its axis; "even" puts the values at even distances.
        marked: a value for a dotted line.
    """
    with drawing.style():
        figure = drawing.new_figure(0.7 + 1.35 * len(panels))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(grid, panels, strict=True):
            for number, series in enumerate(found):
                _over_values(axes, series, panel, number, scale == "even")
            axes.set_ylabel(panel.label)
            if panel is LOSS and axes.get_ylim()[1] > 10:  # a training that failed
                axes.set_yscale("log")
            if marked is not None:
                axes.axvline(marked, color="#888888", linewidth=0.8, linestyle=":")
        if scale == "even":
            values = list(found[0].results)
            grid[-1].set_xticks(range(len(values)), [f"{value:g}" for value in values])
        else:
            grid[-1].set_xscale(scale)
            values = list(dict.fromkeys(value for series in found for value in series.results))
            grid[-1].set_xticks(values, [f"{value:.3g}" for value in values])
            grid[-1].minorticks_off()
        grid[-1].set_xlabel(label)
        if len(found) > 1:
            handles, labels = grid[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=3)
        return finish(
            figure,
            *story,
            ["series", "value", "seed", *(panel.column for panel in panels)],
            [
                (series.name, f"{value:.6g}", result.run.seed, *(f"{panel.measure(result):.6g}" for panel in panels))
                for series in found
                for value, results in series.results.items()
                for result in results
            ],
        )


def _over_values(axes: Axes, series: Finished, panel: Panel, number: int, even: bool) -> None:
    found = series.numbers(panel.measure)
    places = list(range(len(found))) if even else list(found)
    colour = COLOURS[number % len(COLOURS)]
    line, marker = LINES[number // len(COLOURS) % len(LINES)], MARKERS[number % len(MARKERS)]
    means = [float(np.mean(numbers)) for numbers in found.values()]
    axes.plot(places, means, color=colour, linestyle=line, label=series.name)
    for place, numbers in zip(places, found.values(), strict=True):
        axes.plot([place] * len(numbers), numbers, marker, color=colour, markersize=3, alpha=0.6)


def training_figure(columns: Sequence[Finished], panels: Sequence[str], story: Story) -> Picture:
    """Loss, monosemantic neurons or mean bias over training, one line for each value, a column for each series.

    Args:
        columns: series of one set of values.
        panels: of `OVER_STEPS`, from top to bottom.
        story: name, title and caption.
    """
    rows: list[tuple[object, ...]] = []
    with drawing.style():
        figure = drawing.new_figure(0.8 + 1.5 * len(panels))
        figure.set_figwidth(WIDTH)
        grid = figure.subplots(len(panels), len(columns), sharex=True, sharey="row", squeeze=False)
        for place, series in enumerate(columns):
            for axes, name in zip(grid[:, place], panels, strict=True):
                for number, (value, results) in enumerate(series.results.items()):
                    steps, lines = OVER_STEPS[name](results)
                    look = {"color": COLOURS[number % len(COLOURS)], "label": f"{value:g}"}
                    axes.plot(steps, lines.mean(0), linewidth=1.2, **look)
                    axes.fill_between(steps, lines.min(0), lines.max(0), color=look["color"], alpha=0.15, linewidth=0)
                    rows += [
                        (series.name, f"{value:g}", result.run.seed, name, int(step), f"{number:.6g}")
                        for result, line in zip(results, lines, strict=True)
                        for step, number in zip(steps, line, strict=True)
                    ]
                axes.set_xscale("log", base=2)
                if not place:
                    axes.set_ylabel(name)
            if len(columns) > 1:
                grid[0, place].set_title(series.name, fontsize=9)
            grid[-1, place].set_xlabel("step")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=6, title="learning rate", title_fontsize=8.5)
        return finish(figure, *story, ["series", "value", "seed", "measure", "step", "number"], rows)


def _loss_over_steps(results: Sequence[ToyResult]) -> tuple[Numbers, Numbers]:
    """Means over whole cycles; until the first one ends, over the steps from one power of two to the next."""
    cycle = 2 * results[0].run.half_cycle
    early = [2**power for power in range(cycle.bit_length()) if 2**power < cycle]
    ends = np.array([*early, *range(cycle, results[0].run.steps + 1, cycle)], dtype=float)
    lines = []
    for result in results:
        sums = np.concatenate([[0.0], np.cumsum(result.losses)])
        starts = np.concatenate([[0], ends[:-1]]).astype(int)
        stops = ends.astype(int)
        lines.append((sums[stops] - sums[starts]) / (stops - starts))
    return ends, np.array(lines)


def _at_top(results: Sequence[ToyResult], name: str) -> tuple[Numbers, Numbers]:
    """Counts at powers of two and at the ends of cycles, where the learning rate is at its top."""
    half = results[0].run.half_cycle
    shown = [index for index, step in enumerate(results[0].steps) if step < half or step % (2 * half) == 0]
    return results[0].steps[shown].astype(float), np.array([result.counts[name][shown] for result in results])


def _share(results: Sequence[ToyResult]) -> tuple[Numbers, Numbers]:
    steps, lines = _at_top(results, "monosemantic")
    return steps, lines / results[0].run.features


OVER_STEPS: dict[str, Callable[[Sequence[ToyResult]], tuple[Numbers, Numbers]]] = {
    "loss": _loss_over_steps,
    "monosemantic / N": _share,
    "mean bias": lambda results: _at_top(results, "mean_bias"),
}
"""Panels over training: steps, and a line for each seed."""


def numbers_table(found: Sequence[Finished], title: str, label: str) -> Table:
    """Mean and standard deviation over seeds of what is measured at the end of training."""
    shown = [LOSS, PER_FEATURE, SETTLED, PER_NEURON, MEAN_BIAS, POSITIVE]
    header = ["loss", "mono / N", "mono / N, settled", "mono / k", "mean bias", "positive biases"]
    rows = []
    for series in found:
        for value, results in series.results.items():
            cells = [spread([panel.measure(result) for result in results], 3) for panel in shown[:-1]]
            rows.append([series.name, f"{value:.4g}", *cells, spread([POSITIVE.measure(r) for r in results], 1)])
    caption = (
        f"Mean ± standard deviation over {len(next(iter(found[0].results.values())))} seeds. Loss: mean over the last "
        "cycle of the learning rate, without a deactivation at work. Counts: after the last step, at the top of a "
        "cycle; settled: half a cycle before, at a learning rate of 0."
    )
    return Table(title, caption, ["series", label, *header], rows, text_columns=1)


def spread(numbers: Sequence[float], places: int) -> str:
    """Mean ± standard deviation; the number alone if there is but one."""
    mean = decimals(float(np.mean(numbers)), places)
    return f"{mean} ± {np.std(numbers, ddof=1):.{places}f}" if len(numbers) > 1 else mean


def empty(value: float) -> str:
    """A cell for a number that may not be."""
    return MISSING if np.isnan(value) else decimals(value, 3)

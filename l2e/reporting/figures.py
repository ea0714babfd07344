"""All figures of a report, in reading order."""

from collections.abc import Sequence

from l2e.reporting.accuracy_figure import accuracy_figure
from l2e.reporting.inhibition_figures import strength_figure, threshold_figure
from l2e.reporting.loss_figure import loss_figure
from l2e.reporting.pictures import Picture
from l2e.reporting.runs import RunRecord


def draw_figures(runs: Sequence[RunRecord]) -> list[Picture]:
    """The figures for which these runs have numbers."""
    drawn = (draw(runs) for draw in (loss_figure, accuracy_figure, threshold_figure, strength_figure))
    return [picture for picture in drawn if picture is not None]

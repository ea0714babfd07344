"""How large the feature sets are, as Table 3 of L2E (L28), and how long their sequences."""

from collections.abc import Sequence

import numpy as np

from l2e.analysis.features import TextFeatures
from l2e.analysis.statistics_settings import StatisticsSettings
from l2e.reporting.cells import MISSING, Table
from l2e.reporting.drawing import COLOURS, legend_above, new_figure, plain, style
from l2e.reporting.pictures import Picture, finish

PUBLISHED = {
    "natural_language": (28_084, 512, 9, 14_350_924),
    "data_subset": (8_413, 512, 9, 4_299_043),
    "code_language": (5_397, 512, 9, 2_757_867),
}
"""Size, length and number of labels from Table 3 of L2E; non-padding tokens from Gurnee et al.'s own table."""


def draw_statistics(settings: StatisticsSettings, feature_sets: Sequence[TextFeatures]) -> list[Picture | Table]:
    """Table 3 with the published rows below ours, the counts of each label, a histogram of valid lengths."""
    return [
        lengths_figure(settings, feature_sets),
        sizes_table(feature_sets),
        *(labels_table(features) for features in feature_sets),
    ]


def sizes_table(feature_sets: Sequence[TextFeatures]) -> Table:
    """One row for each set, and the published one where the set has its name."""
    rows = []
    for features in feature_sets:
        size, length = features.tokens.shape
        valid = int((features.ends - features.starts).sum())
        numbers = [size, length, len(features.label_names), features.non_padding, valid]
        rows.append(_row(f"{features.name}", [*numbers, sum(features.dropped), features.ignored]))
        if features.name in PUBLISHED:
            rows.append(_row(f"{features.name}, published", [*PUBLISHED[features.name]]))
    return Table(
        "Feature datasets",
        "Size: sequences; |L|: labels; non-padding: tokens of text; valid: positions that are averaged over; dropped: "
        "texts with too few of those; left out: texts whose label was not asked for or had enough. Published: Table 3 "
        "of L2E, whose sets are those of Gurnee et al.",
        ["set", "size", "length", "|L|", "non-padding", "valid", "dropped", "left out"],
        rows,
    )


def labels_table(features: TextFeatures) -> Table:
    """Sequences, valid positions and dropped texts of each label."""
    valid = np.bincount(features.labels, features.ends - features.starts, len(features.label_names))
    sizes = np.bincount(features.labels, minlength=len(features.label_names))
    rows = [
        _row(label, [int(size), int(positions), dropped])
        for label, size, positions, dropped in zip(features.label_names, sizes, valid, features.dropped, strict=True)
    ]
    return Table(f"Labels of {features.name}", "", ["label", "size", "valid", "dropped"], rows)


def lengths_figure(settings: StatisticsSettings, feature_sets: Sequence[TextFeatures]) -> Picture:
    """Valid positions of a sequence: share of sequences in bins as wide as one another."""
    longest = max(features.tokens.shape[1] for features in feature_sets)
    edges = np.linspace(0, longest, settings.bins + 1)
    rows: list[tuple[object, ...]] = []
    with style():
        figure = new_figure(2.8)
        axes = figure.add_subplot()
        for number, features in enumerate(feature_sets):
            lengths = features.ends - features.starts
            counts, _ = np.histogram(lengths, edges)
            axes.stairs(
                counts / len(lengths),
                edges,
                label=plain(features.name),
                color=COLOURS[number % len(COLOURS)],
                fill=len(feature_sets) == 1,
                linewidth=1.4,
            )
            for label, name in enumerate(features.label_names):
                of_label, _ = np.histogram(lengths[features.labels == label], edges)
                spans = zip(edges[:-1].tolist(), edges[1:].tolist(), of_label.tolist(), strict=True)
                rows += [(features.name, name, *span) for span in spans]
        axes.set_xlabel("valid positions of a sequence")
        axes.set_ylabel("share of sequences")
        legend_above(axes)
        return finish(
            figure,
            "valid-lengths",
            "Valid positions",
            "How many positions of a sequence its mean activation is taken over.",
            ["set", "label", "from", "to", "sequences"],
            rows,
        )


def _row(name: str, numbers: Sequence[int]) -> list[str]:
    cells = [f"{number:,}" for number in numbers]
    return [name, *cells, *[MISSING] * (7 - len(cells))] if len(cells) > 3 else [name, *cells]

"""Tables of probes: Gurnee's CSV columns, the best neurons, and comparison with a table of somebody else."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from l2e.errors import UserError
from l2e.files import write_atomically

GURNEE_NAMES = {
    "natural_language": "natural_lang_id",
    "code_language": "programming_lang_id",
    "data_subset": "distribution_id",
}
"""How interpretable_neurons/*.csv begins its `dataset`, by the name of the feature set."""


@dataclass(frozen=True, order=True)
class Probe:
    """One neuron and one label: a row of the table, the published columns first."""

    model: str
    dataset: str
    feature: str
    layer: int
    neuron: int
    test_mcc: float
    test_f1_score: float
    test_precision: float
    test_recall: float
    coef: float
    """Of the normalised value; its sign says which way the neuron moves."""
    mean_dif: float
    """|mean of the label - mean of the rest| of the normalised values on the train part."""
    select_f1_score: float
    """On one half of the test part."""
    confirm_f1_score: float
    """On the other half."""


Choice = Literal["test_f1_score", "select_f1_score"]


def best_neurons(probes: Iterable[Probe], count: int = 10, by: Choice = "test_f1_score") -> list[Probe]:
    """The best neurons of a table, each once, with the label that it tells best (L06).

    Ties (perfect neurons are no rarity) go to the higher MCC, then to the wider gap on the train part.

    Args:
        probes: of one model and feature set.
        count: how many at most.
        by: `test_f1_score` is the published choice; what `select_f1_score` chose, `confirm_f1_score` judges fairly.
    """
    ranked = sorted(
        probes, key=lambda row: (-getattr(row, by), -row.test_mcc * (by == "test_f1_score"), -row.mean_dif, row)
    )
    found: dict[tuple[int, int], Probe] = {}
    for row in ranked:
        found.setdefault((row.layer, row.neuron), row)
    return list(found.values())[:count]


def above_cut(probes: Iterable[Probe], cut: float = 0.9) -> list[Probe]:
    """The neurons of each label: rows whose test F1 lies above the cut (L30), best first."""
    return sorted((row for row in probes if row.test_f1_score > cut), key=lambda row: (-row.test_f1_score, row))


def count_by_label(probes: Iterable[Probe], labels: Sequence[str]) -> dict[str, int]:
    """How many rows each label has, 0 included."""
    counts = dict.fromkeys(labels, 0)
    for row in probes:
        counts[row.feature] += 1
    return counts


def write_table(path: Path, probes: Iterable[Probe]) -> None:
    """Write probes as CSV: the columns of interpretable_neurons/*.csv, then ours."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.name for field in fields(Probe)])
    writer.writerows(astuple(row) for row in probes)
    write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class Listed:
    """A row of somebody's table."""

    model: str
    dataset: str
    feature: str
    layer: int
    neuron: int
    f1: float

    @property
    def key(self) -> tuple[int, int, str]:
        """What it is about."""
        return self.layer, self.neuron, self.feature


def read_listed(path: Path, dataset: str, labels: Sequence[str]) -> list[Listed]:
    """Rows of a table like interpretable_neurons/*/*.csv that are about one feature set.

    Args:
        path: CSV with columns model, dataset, feature, layer, neuron and test_f1_score.
        dataset: how their `dataset` begins.
        labels: of the feature set; rows of other features are left out.

    Raises:
        UserError: no such file, no such columns, a cell that is no number, or no row that fits.
    """
    needed = ("model", "dataset", "feature", "layer", "neuron", "test_f1_score")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"compare: {path} has no column {', '.join(missing)}; needed are {', '.join(needed)}")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"compare: {path} cannot be read: {error}") from None
    listed = [_listed(path, line, row) for line, row in rows]
    found = [row for row in listed if row.dataset.startswith(dataset) and row.feature in labels]
    if not found:
        there = sorted({f"{row.dataset} ({row.feature})" for row in listed})
        shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
        raise UserError(
            f"compare: {path} has no row whose dataset begins with {dataset!r} and whose feature is one of "
            f"{', '.join(labels)}; it has {shown or 'no rows'}. Set compare_dataset"
        )
    return found


def _listed(path: Path, line: int, row: dict[str, str]) -> Listed:
    try:
        numbers = int(row["layer"]), int(row["neuron"]), float(row["test_f1_score"])
    except (TypeError, ValueError):
        raise UserError(f"compare: {path}, line {line}: layer, neuron or test_f1_score is no number") from None
    return Listed(row["model"], row["dataset"], row["feature"], *numbers)


@dataclass(frozen=True)
class Comparison:
    """Somebody's table and ours, about the same labels."""

    rows: list[tuple[Listed, Probe]]
    """Each of their neurons with our probe of the very same one."""

    outside: list[Listed]
    """Theirs that this model does not have."""

    both: int
    """(layer, neuron, label) that both tables have above the cut."""

    theirs: int
    """How many theirs has above it."""

    ours: int
    """How many ours has above it."""


def compare(listed: Sequence[Listed], probed: Sequence[Probe], ours: Sequence[Probe], cut: float) -> Comparison:
    """Put tables beside each other.

    Neurons are told by number, so only tables of the same weights can agree: Gurnee's are of Pythia v0
    (EleutherAI/pythia-*-v0), and tell nothing about the numbers of today's pythia-*.

    Args:
        listed: theirs.
        probed: our probes of the neurons that theirs names (`probe_listed`).
        ours: our own table (`probe_neurons`).
        cut: F1 above which a neuron counts, in both.
    """
    by_key = {(row.layer, row.neuron, row.feature): row for row in probed}
    high = {row.key for row in listed if row.f1 > cut}
    mine = {(row.layer, row.neuron, row.feature) for row in above_cut(ours, cut)}
    return Comparison(
        rows=[(row, by_key[row.key]) for row in listed if row.key in by_key],
        outside=[row for row in listed if row.key not in by_key],
        both=len(high & mine),
        theirs=len(high),
        ours=len(mine),
    )

"""The numbers of the papers' tables (`published.yaml`), typed."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

SHOTS = (0, 5)


@dataclass(frozen=True)
class PublishedRow:
    """One row of an accuracy table of L2E.

    Attributes:
        scale: "70M", "410M" or "2.8B".
        setting: the paper's name of the method, "Pythia" being the baseline.
        accuracies: shares by number of shots, in the order of the table's columns.
        up: the printed column of that name by number of shots, e.g. "2.3%"; None where the paper has none.
    """

    scale: str
    setting: str
    accuracies: dict[int, tuple[float, ...]]
    up: dict[int, str | None]


@dataclass(frozen=True)
class PublishedTable:
    """An accuracy table of L2E: 1, 4, 5, 6, 7 or 8. `columns` are tasks."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    misprints: tuple[dict[str, Any], ...]

    @property
    def settings(self) -> list[str]:
        """The methods, in the paper's order."""
        return list(dict.fromkeys(row.setting for row in self.rows))

    @property
    def scales(self) -> list[str]:
        """The model sizes, smallest first."""
        return list(dict.fromkeys(row.scale for row in self.rows))


@cache
def published() -> dict[str, Any]:
    """The whole file."""
    return yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))


def accuracy_tables() -> list[int]:
    """Numbers of the tables that `accuracy_table` knows."""
    return sorted(published()["l2e"]["accuracy"])


def accuracy_table(number: int) -> PublishedTable:
    """Table `number` of L2E, as printed."""
    entry = published()["l2e"]["accuracy"][number]
    columns = tuple(entry["columns"])
    misprints = [one for one in published()["l2e"]["misprints"] if one["table"] == number]
    rows = tuple(_row(values, len(columns)) for values in entry["rows"])
    return PublishedTable(number, entry["title"], columns, rows, tuple(misprints))


def _row(values: list[Any], tasks: int) -> PublishedRow:
    scale, setting, *rest = values
    parts = [rest[start : start + tasks + 1] for start in (0, tasks + 1)]
    return PublishedRow(
        scale=scale,
        setting=setting,
        accuracies={shots: tuple(part[:tasks]) for shots, part in zip(SHOTS, parts, strict=True)},
        up={shots: part[tasks] for shots, part in zip(SHOTS, parts, strict=True)},
    )

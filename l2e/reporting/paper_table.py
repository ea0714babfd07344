"""The papers' tables, filled from the user's runs beside the published rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l2e.reporting.cells import MISSING, Best, Table, decimals
from l2e.reporting.effects import Effect, holm
from l2e.reporting.paired import LEVEL
from l2e.reporting.percent_up import up
from l2e.reporting.published import SHOTS, PublishedRow, PublishedTable
from l2e.reporting.study import BASELINE, Group, compare
from l2e.reporting.tables import ABOVE, BELOW

PAPER, HERE = "paper", "here"

Cell = tuple[str, str, str, int]
"""Scale, setting, column, shots."""


@dataclass(frozen=True)
class Judged:
    """A difference from the baseline; `p_value` corrected for all differences of the table (Holm)."""

    scale: str
    setting: str
    column: str
    shots: int
    effect: Effect
    p_value: float

    @property
    def beyond_noise(self) -> bool:
        """Below 0.05 after the correction."""
        return self.p_value < LEVEL


def judge(published: PublishedTable, groups: Sequence[Group]) -> list[Judged]:
    """Every method against the baseline of its size, on every task."""
    baselines = {group.scale: group for group in groups if group.setting == BASELINE}
    found: list[tuple[Cell, Effect]] = []
    for group in groups:
        if group.setting == BASELINE or group.scale not in baselines:
            continue
        for shots in SHOTS:
            for column in published.columns:
                effect = compare(group, baselines[group.scale], column, shots)
                if effect is not None:
                    found.append(((group.scale, group.setting, column, shots), effect))
    corrected = holm([effect.p_value for _, effect in found])
    return [Judged(*cell, effect, p) for (cell, effect), p in zip(found, corrected, strict=True)]


def paper_table(published: PublishedTable, groups: Sequence[Group], judged: Sequence[Judged]) -> Table:
    """The table in the paper's layout: for each size and setting the printed row, then the one of these runs."""
    ours = {(group.scale, group.setting): group for group in groups}
    printed = {(row.scale, row.setting): row for row in published.rows}
    marks = {(one.scale, one.setting, one.column, one.shots): one for one in judged if one.beyond_noise}
    rows: list[list[str]] = []
    for scale in dict.fromkeys([*published.scales, *(group.scale for group in groups)]):
        block = [printed[scale, name] for name in published.settings if (scale, name) in printed]
        best = {PAPER: _best([row.accuracies for row in block]), HERE: _best(_means(published, groups, scale))}
        for setting in dict.fromkeys([*published.settings, *(g.setting for g in groups if g.scale == scale)]):
            if (scale, setting) in printed:
                rows.append([scale, setting, PAPER, *_paper_cells(published, printed[scale, setting], best[PAPER])])
            group, baseline = ours.get((scale, setting)), ours.get((scale, BASELINE))
            cells = _our_cells(published, group, baseline, marks, best[HERE]) if group else _not_run(published)
            rows.append([scale, setting, _source(group), *cells])
    header = ["size", "setting", "source", *_header(published)]
    return Table(f"Table {published.number}: {published.title}", _caption(published, groups), header, rows, 3)


def _header(published: PublishedTable) -> list[str]:
    return [f"{name}\n{shots}-shot" for shots in SHOTS for name in [*published.columns, *_up_name(published)]]


def _up_name(published: PublishedTable) -> list[str]:
    return ["up"] if any(row.up[shots] for row in published.rows for shots in SHOTS) else []


def _paper_cells(published: PublishedTable, row: PublishedRow, best: dict[tuple[int, int], float]) -> list[str]:
    cells = []
    for shots in SHOTS:
        for place, value in enumerate(row.accuracies[shots]):
            text = f"{value:.4f}{_misprint(published, row, f'{shots}-shot {published.columns[place]}')}"
            cells.append(Best(text) if value == best[shots, place] else text)
        if _up_name(published):
            text = (row.up[shots] or MISSING).replace("-", "\N{MINUS SIGN}")
            cells.append(text + _misprint(published, row, f"{shots}-shot up"))
    return cells


def _misprint(published: PublishedTable, row: PublishedRow, cell: str) -> str:
    known = [(one["scale"], one["setting"], one["cell"]) for one in published.misprints]
    return "*" if (row.scale, row.setting, cell) in known else ""


def _our_cells(
    published: PublishedTable,
    group: Group,
    baseline: Group | None,
    marks: dict[Cell, Judged],
    best: dict[tuple[int, int], float],
) -> list[str]:
    cells = []
    for shots in SHOTS:
        for place, column in enumerate(published.columns):
            mark = marks.get((group.scale, group.setting, column, shots))
            text = _accuracy(group, shots, column) + ("" if mark is None else ABOVE if _rose(mark) else BELOW)
            mean = _mean(group, shots, column)
            cells.append(Best(text) if mean == best.get((shots, place)) else text)
        if _up_name(published):
            cells.append(_up(published, group, baseline, shots))
    return cells


def _rose(one: Judged) -> bool:
    return one.effect.difference > 0


def _not_run(published: PublishedTable) -> list[str]:
    return [MISSING] * len(_header(published))


def _source(group: Group | None) -> str:
    if group is None:
        return "not run"
    return f"{HERE}, {len(group.runs)} seeds" if len(group.runs) > 1 else f"{HERE}, 1 seed"


def _accuracy(group: Group, shots: int, column: str) -> str:
    """One seed: ± the items' standard error. Several: the mean ± the seeds' standard deviation."""
    results = list(group.results(shots, column).values())
    if not results:
        return MISSING
    if len(results) == 1:
        return f"{results[0].acc:.4f} ± {decimals(results[0].acc_stderr, 4)}"
    found = [result.acc for result in results]
    return f"{np.mean(found):.4f} ± {np.std(found, ddof=1):.4f}"


def _mean(group: Group, shots: int, column: str) -> float:
    found = [result.acc for result in group.results(shots, column).values()]
    return float(np.mean(found)) if found else math.nan


def _up(published: PublishedTable, group: Group, baseline: Group | None, shots: int) -> str:
    """L20 for each seed that both have; the mean, ± the standard deviation over several."""
    if baseline is None or group is baseline:
        return MISSING
    found = []
    for seed in sorted(set(group.runs) & set(baseline.runs)):
        ours, theirs = (
            [one.results(shots, column)[seed].acc for column in published.columns if seed in one.results(shots, column)]
            for one in (group, baseline)
        )
        if len(ours) == len(theirs) == len(published.columns) and sum(theirs) > 0:
            found.append(up(ours, theirs))
    if not found:
        return MISSING
    spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
    return decimals(float(np.mean(found)), 1, sign=True) + "%" + spread


def _means(published: PublishedTable, groups: Sequence[Group], scale: str) -> list[dict[int, tuple[float, ...]]]:
    return [
        {shots: tuple(_mean(group, shots, column) for column in published.columns) for shots in SHOTS}
        for group in groups
        if group.scale == scale
    ]


def _best(accuracies: Sequence[dict[int, tuple[float, ...]]]) -> dict[tuple[int, int], float]:
    """The highest accuracy of each column, where there are several to choose from."""
    if len(accuracies) < 2:
        return {}
    found = {}
    for shots in SHOTS:
        for place in range(len(accuracies[0][shots])):
            values = [one[shots][place] for one in accuracies if not math.isnan(one[shots][place])]
            if len(values) > 1:
                found[shots, place] = max(values)
    return found


def _caption(published: PublishedTable, groups: Sequence[Group]) -> str:
    stands_in = any(
        result.task.startswith("world_")
        for group in groups
        for shots in SHOTS
        for column in published.columns
        for result in group.results(shots, column).values()
    )
    return " ".join(
        [
            "acc as shares of the items, best of a size and source in bold.",
            "Rows marked paper are as printed"
            + (", * a number that contradicts another of the paper." if published.misprints else "."),
            "Here: one seed ± the items' standard error, or the mean of several ± their standard deviation;",
            f"{ABOVE.strip()} or {BELOW.strip()}: above or below Pythia here with p < {LEVEL} after Holm's correction",
            "for all differences of this table.",
            "up: summed accuracy of the tasks relative to Pythia's (L20)." if _up_name(published) else "",
            "The built-in world's tasks stand in for the real ones of the same form." if stands_in else "",
        ]
    ).strip()

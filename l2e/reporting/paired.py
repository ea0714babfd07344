"""A run against the baseline on the same items.

Two accuracies on the same items are not independent: most items are answered alike. The difference per item has a
much smaller spread than the unpaired standard errors suggest, and it is the only thing that the report judges by.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l2e.reporting.effects import mcnemar
from l2e.reporting.results import Column, ResultRow, find_baseline, result_rows
from l2e.reporting.runs import RunRecord

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """One run against the baseline on one task.

    `difference` and `error` (one standard error) are shares, not percent. `gained` and `lost` count the items that
    only this run, or only the baseline, answers right. `p_value` is the exact two-sided sign test on those items.
    """

    run: RunRecord
    baseline: RunRecord
    column: Column
    n: int
    difference: float
    error: float
    gained: int
    lost: int
    p_value: float

    @property
    def beyond_error(self) -> bool:
        """More than two standard errors; False if there is no standard error to go by."""
        return self.error > 0 and abs(self.difference) > 2 * self.error

    @property
    def beyond_noise(self) -> bool:
        """Beyond two standard errors, and the exact test agrees (with few changed items the former is too easy)."""
        return self.beyond_error and self.p_value < LEVEL


def compare_runs(runs: Sequence[RunRecord]) -> list[Comparison]:
    """Every other run against the baseline, on every task where both kept the same items."""
    baseline = find_baseline(runs)
    rows = {id(row.run): row for row in result_rows(runs) if row.run is not None and row.step > 0}
    if baseline is None or id(baseline) not in rows:
        return []
    found = []
    for run in runs:
        if run is not baseline and id(run) in rows:
            found += _compare_rows(rows[id(run)], rows[id(baseline)])
    return found


def _compare_rows(row: ResultRow, base: ResultRow) -> list[Comparison]:
    assert row.run is not None
    assert base.run is not None
    found = []
    for column in row.cells:
        if column in base.cells:
            ours = row.run.items(row.step, row.cells[column])
            theirs = base.run.items(base.step, base.cells[column])
            common = [key for key in ours if key in theirs]
            if common:
                change = np.array([ours[key] - theirs[key] for key in common])
                found.append(_comparison(row.run, base.run, column, change))
    return found


def _comparison(run: RunRecord, baseline: RunRecord, column: Column, change: np.ndarray) -> Comparison:
    n, gained, lost = len(change), int((change > 0).sum()), int((change < 0).sum())
    return Comparison(
        run=run,
        baseline=baseline,
        column=column,
        n=n,
        difference=float(change.mean()),
        error=float(change.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
    )

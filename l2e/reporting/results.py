"""Which accuracies a report shows: the columns (task x shots) and the rows (untrained, then each run)."""

from collections.abc import Sequence
from dataclasses import dataclass

from l2e.reporting.runs import RunRecord, TaskResult

Column = tuple[int, str]
"""Shots and task: what one accuracy is measured on."""


@dataclass(frozen=True)
class ResultRow:
    """One evaluated model. `run` is None for the untrained model that several runs share."""

    label: str
    run: RunRecord | None
    step: int
    cells: dict[Column, TaskResult]


def find_baseline(runs: Sequence[RunRecord]) -> RunRecord | None:
    """The first run without inhibition, if there are other runs of the same model to compare with it."""
    one_model = len({str(run.setting("model.name")) for run in runs}) == 1
    return next((run for run in runs if run.is_baseline), None) if len(runs) > 1 and one_model else None


def cells_at(run: RunRecord, step: int | None) -> dict[Column, TaskResult]:
    """The results of one evaluated step by column."""
    results = run.evaluations.get(step, ()) if step is not None else ()
    return {(result.num_fewshot, result.task): result for result in results}


def columns_of(rows: Sequence[ResultRow]) -> list[Column]:
    """All task x shots of all rows: fewer shots first, tasks in the order the files have them."""
    found = dict.fromkeys(column for row in rows for column in row.cells)
    return sorted(found, key=lambda column: column[0])


def result_rows(runs: Sequence[RunRecord]) -> list[ResultRow]:
    """The untrained model (once, if it is the same for all runs), then each run at its last evaluated step.

    A run that was also evaluated with its inhibition active has a second row, "-T" (M22).
    """
    trained = []
    for run in [each for one in runs for each in (one, one.at_test) if each is not None]:
        step = run.last_evaluated
        if step is not None:
            trained.append(ResultRow(f"{run.label}, step {step:,}", run, step, cells_at(run, step)))
    return _untrained_rows(runs) + trained


def _untrained_rows(runs: Sequence[RunRecord]) -> list[ResultRow]:
    starts = [(run, cells_at(run, 0)) for run in runs if 0 in run.evaluations]
    if len(runs) == 1 or (len(starts) == len(runs) and all(cells == starts[0][1] for _, cells in starts)):
        return [ResultRow("untrained", None, 0, cells) for _, cells in starts[:1]]
    return [ResultRow(f"{run.label}, untrained", run, 0, cells) for run, cells in starts]


def chance_of(rows: Sequence[ResultRow], column: Column) -> float:
    """The accuracy of guessing, as the evaluation gives it; NaN where it does not."""
    given = [row.cells[column].chance for row in rows if column in row.cells]
    return next((chance for chance in given if chance == chance), float("nan"))

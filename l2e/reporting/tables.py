"""The tables of a report, as plain text cells; how they look is for the pages to say."""

import math
from collections.abc import Sequence

from l2e.reporting.cells import MISSING, Table, decimals, loss_number, short
from l2e.reporting.curves import final_loss, last, non_finite_steps
from l2e.reporting.inhibition_figures import MEASURES, blocks_of, measure
from l2e.reporting.paired import Comparison
from l2e.reporting.percent_up import up
from l2e.reporting.results import Column, ResultRow, cells_at, chance_of, columns_of, find_baseline, result_rows
from l2e.reporting.runs import RunRecord

ABOVE, BELOW = " ▲", " ▼"


def accuracy_table(runs: Sequence[RunRecord], comparisons: Sequence[Comparison]) -> Table | None:
    """Chance, untrained, then each run at its last evaluated step; None if nothing was evaluated.

    The metric is acc, as in the paper (method.md 2.18). "up" is L20, over the tasks of one number of shots.
    """
    rows = result_rows(runs)
    columns = columns_of(rows)
    if not columns:
        return None
    baseline = find_baseline(runs)
    marks = {
        (id(one.run), one.column): ABOVE if one.difference > 0 else BELOW for one in comparisons if one.beyond_noise
    }
    places = _places(columns, with_up=baseline is not None)
    header, chance = ["model"], ["chance"]
    for shots, task in places:
        header.append(_heading(rows, (shots, task)) if task else f"up\n{shots}-shot")
        chance.append(decimals(chance_of(rows, (shots, task)), 3) if task else MISSING)
    body = [chance]
    for row in rows:
        known = {column: mark for (run, column), mark in marks.items() if row.step and run == id(row.run)}
        cells = [_cell(row, (shots, task), known) if task else _up_cell(row, baseline, shots) for shots, task in places]
        body.append([row.label, *cells])
    at_test = " -T: with the inhibition active at test time." if any(run.inhibited for run in runs) else ""
    return Table("Accuracy", _accuracy_caption(baseline) + at_test, header, body)


def _places(columns: Sequence[Column], with_up: bool) -> list[tuple[int, str | None]]:
    """The table's columns: the tasks of each number of shots, then "up" (no task) over them."""
    found: list[tuple[int, str | None]] = []
    for shots in sorted({column[0] for column in columns}):
        found += [column for column in columns if column[0] == shots]
        found += [(shots, None)] if with_up else []
    return found


def _heading(rows: Sequence[ResultRow], column: Column) -> str:
    sizes = sorted({row.cells[column].n for row in rows if column in row.cells})
    n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    return f"{column[1]}\n{column[0]}-shot\n(n = {n})"


def _cell(row: ResultRow, column: Column, marks: dict[Column, str]) -> str:
    found = row.cells.get(column)
    if found is None or math.isnan(found.acc):
        return MISSING
    return f"{decimals(found.acc, 3)} ± {decimals(found.acc_stderr, 3)}{marks.get(column, '')}"


def _up_cell(row: ResultRow, baseline: RunRecord | None, shots: int) -> str:
    """L20; a dash unless this row and the baseline have the same tasks."""
    if baseline is None or row.run is baseline or row.step == 0:
        return MISSING
    base = {c: found.acc for c, found in cells_at(baseline, baseline.last_evaluated).items() if c[0] == shots}
    ours = {c: found.acc for c, found in row.cells.items() if c[0] == shots}
    if not base or base.keys() != ours.keys() or sum(base.values()) == 0:
        return MISSING
    return decimals(up([ours[column] for column in base], list(base.values())), 1, sign=True) + "%"


def _accuracy_caption(baseline: RunRecord | None) -> str:
    text = "Share of items answered right (acc, not length-normalised) ± one standard error over the n items."
    if baseline is None:
        return text
    return (
        f"{text} {ABOVE.strip()} or {BELOW.strip()}: above or below the baseline {_named(baseline)}by more than the "
        "items' noise, judged by the paired differences below. up: summed accuracy of the tasks with that number of "
        "shots, relative to the baseline's (L20); it has no error of its own here."
    )


def _named(baseline: RunRecord) -> str:
    return "" if baseline.label == "baseline" else f"({baseline.label}) "


def paired_table(comparisons: Sequence[Comparison]) -> Table | None:
    """The differences to the baseline on the same items."""
    if not comparisons:
        return None
    header = ["run", "task", "n", "difference\n(points)", "items\ngained", "items\nlost", "p"]
    rows = [
        [
            one.run.label,
            f"{one.column[1]}, {one.column[0]}-shot",
            f"{one.n:,}",
            f"{points(one)}{(ABOVE if one.difference > 0 else BELOW) if one.beyond_noise else ''}",
            f"{one.gained:,}",
            f"{one.lost:,}",
            f"{one.p_value:.3f}" if one.p_value >= 0.001 else "< 0.001",
        ]
        for one in comparisons
    ]
    caption = (
        f"Accuracy minus that of the baseline {_named(comparisons[0].baseline)}on the same items, in percentage points "
        "± one standard error (sd of the differences per item / √n). Gained, lost: items that only this run, only "
        "the baseline, gets right; p: exact two-sided sign test on them. Marked where the difference exceeds two "
        "standard errors and p < 0.05."
    )
    return Table("Paired differences", caption, header, rows, text_columns=2)


def points(one: Comparison) -> str:
    """A paired difference in percentage points with its standard error."""
    return f"{decimals(100 * one.difference, 1, sign=True)} ± {decimals(100 * one.error, 1)}"


def loss_table(runs: Sequence[RunRecord]) -> Table | None:
    """The losses at the end of each run; None if nothing was trained."""
    baseline = find_baseline(runs)
    rows = [[run.label, *_loss_cells(run, baseline)] for run in runs if run.metrics]
    if not rows:
        return None
    header = ["run", "last\nstep", "training\nloss", "validation\nloss", "at\nstep", "perplexity"]
    caption = "In nats per token. Training loss: mean over the last smoothing window; perplexity: exp(validation loss)."
    if baseline is not None:
        header.append("minus\nbaseline")
        caption += " Minus baseline: of the validation loss, at the same step."
    if any(non_finite_steps(run) for run in runs):
        caption += " NaN: the loss was no finite number there."
    return Table("Loss", caption, header, rows)


def _loss_cells(run: RunRecord, baseline: RunRecord | None) -> list[str]:
    trained, validated = last(run.series("loss")), last(run.series("validation_loss"))
    cells = [f"{trained[0]:,}", loss_number(final_loss(run)[0])] if trained else [MISSING, MISSING]
    if validated:
        perplexity = math.exp(validated[1]) if validated[1] < 100 else math.nan
        cells += [loss_number(validated[1]), f"{validated[0]:,}", decimals(perplexity, 2)]
    else:
        cells += [MISSING] * 3
    if baseline is not None:
        theirs = last(baseline.series("validation_loss"))
        same = validated and theirs and validated[0] == theirs[0] and run is not baseline
        cells.append(decimals(validated[1] - theirs[1], 3, sign=True) if same and validated and theirs else MISSING)
    return cells


def inhibition_table(runs: Sequence[RunRecord]) -> Table | None:
    """What each tapped block last said about itself; None if no run was inhibited."""
    rows = []
    for run in runs:
        for block in blocks_of(run):
            ends = [last(measure(run, block, name)) for name in MEASURES]
            cells = [short(end[1]) if end else MISSING for end in ends]
            rows.append([run.label, block, f"{max(end[0] for end in ends if end):,}" if any(ends) else MISSING, *cells])
    if not rows:
        return None
    caption = (
        "The last logged values of each tapped block. Selected: share of its outputs above the threshold; strength: "
        "norm of the penalty's gradient over the cross-entropy's; absorbed: share of the selected outputs whose "
        "gradient the working precision leaves unchanged."
    )
    return Table("Inhibition", caption, ["run", "block", "step", *MEASURES], rows)

"""The contents of a study: one of the papers' tables first, then what the report of its runs shows anyway."""

from collections.abc import Sequence
from dataclasses import replace

from l2e.errors import UserError
from l2e.reporting.cells import Table
from l2e.reporting.contents import Contents, gather
from l2e.reporting.paper_findings import paper_findings
from l2e.reporting.paper_table import judge, paper_table
from l2e.reporting.published import accuracy_table, accuracy_tables, published
from l2e.reporting.runs import RunRecord
from l2e.reporting.step_time_table import step_time_table
from l2e.reporting.study import group_runs
from l2e.reporting.tables import inhibition_table, loss_table

TABLES = sorted([*accuracy_tables(), 2, 3])


def gather_study(runs: Sequence[RunRecord], number: int) -> tuple[Contents, Table]:
    """The report of these runs with Table `number` of L2E at its head, and that table.

    The pages for runs of one size compare all runs with one baseline; here each size has its own, so those tables
    are left out.

    Raises:
        UserError: no such table, or two runs for one row and seed.
    """
    if number not in TABLES:
        raise UserError(f"table: L2E has the tables {', '.join(map(str, TABLES))}, not {number}")
    table, findings, notes = _table(runs, number)
    base = gather(runs) if runs else Contents("", {}, None, [], [], [], [])
    others = [loss_table(runs), inhibition_table(runs)] if runs else []
    contents = replace(
        base,
        title=table.title,
        tables=[table, *(other for other in others if other is not None)],
        findings=findings,
        warnings=[*notes, *base.warnings],
    )
    return contents, table


def _table(runs: Sequence[RunRecord], number: int) -> tuple[Table, list[str], list[str]]:
    """The table, sentences about it, and notes about runs that it does not show."""
    if number == 2:
        table, notes = step_time_table(runs)
        return table, [], notes
    if number == 3:
        return _feature_data(), [], [f"{run.label}: Table 3 is about data sets, not runs." for run in runs]
    printed = accuracy_table(number)
    groups, notes = group_runs(runs, number)
    judged = judge(printed, groups)
    return paper_table(printed, groups, judged), paper_findings(printed, groups, judged), notes


def _feature_data() -> Table:
    entry = published()["l2e"]["feature_data"]
    rows = [[row["name"], *(f"{row[key]:,}" for key in ("sequences", "length", "labels"))] for row in entry["rows"]]
    caption = "As printed: sequences of so many tokens, and the number of labels."
    return Table(f"Table 3: {entry['title']}", caption, ["data set", "sequences", "tokens", "labels"], rows)

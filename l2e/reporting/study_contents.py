"""The contents of a study: one of the papers' tables first, then what the report of its runs shows anyway."""

import os
from collections.abc import Sequence
from pathlib import Path

from l2e.errors import UserError
from l2e.reporting.cells import Link, Table
from l2e.reporting.contents import Contents
from l2e.reporting.facts import split_facts
from l2e.reporting.figures import draw_figures
from l2e.reporting.paper_findings import paper_findings
from l2e.reporting.paper_table import judge, paper_table
from l2e.reporting.pictures import Picture
from l2e.reporting.published import accuracy_table, accuracy_tables, published
from l2e.reporting.runs import RunRecord
from l2e.reporting.step_time_table import step_time_table
from l2e.reporting.study import group_runs
from l2e.reporting.study_curves import study_loss_table
from l2e.reporting.study_figures import study_figures
from l2e.reporting.tables import inhibition_table, loss_table

TABLES = sorted([*accuracy_tables(), 2, 3])


def gather_study(runs: Sequence[RunRecord], number: int, folder: Path) -> tuple[Contents, Table]:
    """The report of these runs with Table `number` of L2E at its head, and that table.

    Figures are by method where the table is one of accuracies, else by run. What compares all runs with one baseline is
    left out: here each size has its own.

    Args:
        runs: of any methods and sizes.
        number: of the table.
        folder: of the report, which links to the runs' own.

    Raises:
        UserError: no such table, or two runs for one row and seed.
    """
    if number not in TABLES:
        raise UserError(f"table: L2E has the tables {', '.join(map(str, TABLES))}, not {number}")
    table, findings, pictures, losses, notes = _table(runs, number)
    tables = [losses, inhibition_table(runs), runs_table(runs, folder)] if runs else []
    contents = Contents(
        title=table.title,
        facts=split_facts(runs)[0] if runs else {},
        differing=None,
        pictures=pictures,
        tables=[other for other in tables if other is not None],
        findings=findings,
        warnings=[*notes, *(f"{run.label}: {warning}" for run in runs for warning in run.warnings)],
        answer=table,
    )
    return contents, table


def runs_table(runs: Sequence[RunRecord], folder: Path) -> Table:
    """What sets the runs apart, a row for each, with links to their own reports where they have one."""
    differing = split_facts(runs)[1]
    rows = [[_linked(run, folder), *(texts[place] for texts in differing.values())] for place, run in enumerate(runs)]
    caption = "What differs between them; a name leads to the run's own report."
    return Table("Runs", caption, ["run", *differing], rows, len(differing) + 1)


def _linked(run: RunRecord, folder: Path) -> str:
    report = run.path / "report.html"
    if not report.is_file():
        return run.label
    return Link(run.label, Path(os.path.relpath(report.resolve(), folder.resolve())).as_posix())


def _table(runs: Sequence[RunRecord], number: int) -> tuple[Table, list[str], list[Picture], Table | None, list[str]]:
    """The table, sentences about it, the figures, the losses, and notes about runs that it does not show."""
    if number in (2, 3):
        table, notes = step_time_table(runs) if number == 2 else (_feature_data(), [])
        if number == 3:
            notes = [f"{run.label}: Table 3 is about data sets, not runs." for run in runs]
        return table, [], draw_figures(runs), loss_table(runs), notes
    printed = accuracy_table(number)
    groups, notes = group_runs(runs, number)
    judged = judge(printed, groups)
    findings = paper_findings(printed, groups, judged)
    pictures = study_figures(groups, judged)
    return paper_table(printed, groups, judged), findings, pictures, study_loss_table(groups), notes


def _feature_data() -> Table:
    entry = published()["l2e"]["feature_data"]
    rows = [[row["name"], *(f"{row[key]:,}" for key in ("sequences", "length", "labels"))] for row in entry["rows"]]
    caption = "As printed: sequences of so many tokens, and the number of labels."
    return Table(f"Table 3: {entry['title']}", caption, ["data set", "sequences", "tokens", "labels"], rows)

"""What a report says, before it is a page: the Markdown and the HTML page show the same contents."""

from collections.abc import Sequence
from dataclasses import dataclass

from l2e.reporting.cells import Table
from l2e.reporting.facts import split_facts
from l2e.reporting.figures import draw_figures
from l2e.reporting.findings import findings
from l2e.reporting.paired import compare_runs
from l2e.reporting.pictures import Picture
from l2e.reporting.runs import RunRecord
from l2e.reporting.tables import accuracy_table, inhibition_table, loss_table, paired_table


@dataclass(frozen=True)
class Contents:
    """`facts` hold for all runs; `differing` is the table of those that do not, if there are several runs.

    `answer` stands before everything else: the table that a study is about.
    """

    title: str
    facts: dict[str, str]
    differing: Table | None
    pictures: list[Picture]
    tables: list[Table]
    findings: list[str]
    warnings: list[str]
    answer: Table | None = None


def gather(runs: Sequence[RunRecord]) -> Contents:
    """Everything that a report of these runs shows, in reading order."""
    labels = [run.label for run in runs]
    shared, differing = split_facts(runs)
    comparisons = compare_runs(runs)
    tables = (accuracy_table(runs, comparisons), paired_table(comparisons), loss_table(runs), inhibition_table(runs))
    return Contents(
        title=labels[0] if len(labels) == 1 else ", ".join(labels[:-1]) + " and " + labels[-1],
        facts=shared,
        differing=_per_run(labels, differing) if differing else None,
        pictures=draw_figures(runs),
        tables=[table for table in tables if table is not None],
        findings=findings(runs),
        warnings=[f"{run.label}: {warning}" for run in runs for warning in run.warnings],
    )


def _per_run(labels: Sequence[str], differing: dict[str, list[str]]) -> Table:
    return Table(
        "Where the runs differ",
        "",
        ["", *labels],
        [[name, *texts] for name, texts in differing.items()],
        len(labels) + 1,
    )

"""The report of one run, or of several side by side."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from l2e.errors import UserError
from l2e.files import write_atomically
from l2e.reporting.contents import gather
from l2e.reporting.html_page import html_page
from l2e.reporting.latex import latex_table
from l2e.reporting.markdown_page import markdown_page
from l2e.reporting.pictures import save
from l2e.reporting.runs import RunRecord, load_run
from l2e.reporting.study_contents import gather_study


def write_report(
    run_dirs: Sequence[Path], output_dir: Path, table: int | None = None, notes: Sequence[str] = ()
) -> Path:
    """Write report.md, report.html and figures/ about these runs into `output_dir`.

    The same runs give the same bytes. Among several runs the first that inhibits nothing is the baseline. With
    `table`, that table of L2E stands first, its rows filled from these runs, and lies beside the pages as LaTeX.
    `notes` stand before the warnings about the files.

    Returns:
        The path of report.html.

    Raises:
        UserError: no runs (unless a table is asked for), the same run twice, a folder that is no run, no such table,
            or two runs for one row and seed.
    """
    paths = [Path(path) for path in run_dirs]
    if not paths and table is None:
        raise UserError("no run to report on; give at least one run directory, e.g. runs/<name>")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("the same run directory is given twice; name each run once")
    runs = unique_labels([load_run(path) for path in paths])
    output_dir = Path(output_dir)
    if table is None:
        contents = gather(runs)
    else:
        contents, filled = gather_study(runs, table, output_dir)
        write_atomically(output_dir / f"table{table}.tex", latex_table(filled, f"tab:l2e-{table}").encode())
    contents.warnings[:0] = notes
    for picture in contents.pictures:
        save(picture, output_dir / "figures")
    write_atomically(output_dir / "report.md", markdown_page(contents).encode())
    write_atomically(output_dir / "report.html", html_page(contents).encode())
    return output_dir / "report.html"


def unique_labels(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Two runs of one name get a number, so that every row says which it is."""
    labels: list[str] = []
    for run in runs:
        label, number = run.label, 2
        while label in labels:
            label, number = f"{run.label} ({number})", number + 1
        labels.append(label)
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]

"""The report of one run, or of several side by side."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from l2e.errors import UserError
from l2e.files import write_atomically
from l2e.reporting.contents import gather
from l2e.reporting.html_page import html_page
from l2e.reporting.markdown_page import markdown_page
from l2e.reporting.pictures import save
from l2e.reporting.runs import RunRecord, load_run


def write_report(run_dirs: Sequence[Path], output_dir: Path) -> Path:
    """Write report.md, report.html and figures/ about these runs into `output_dir`.

    The same runs give the same bytes. Among several runs the first that inhibits nothing is the baseline.

    Returns:
        The path of report.html.

    Raises:
        UserError: no runs, the same run twice, or a folder that is no run.
    """
    paths = [Path(path) for path in run_dirs]
    if not paths:
        raise UserError("no run to report on; give at least one run directory, e.g. runs/<name>")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("the same run directory is given twice; name each run once")
    contents = gather(_unique_labels([load_run(path) for path in paths]))
    output_dir = Path(output_dir)
    for picture in contents.pictures:
        save(picture, output_dir / "figures")
    write_atomically(output_dir / "report.md", markdown_page(contents).encode())
    write_atomically(output_dir / "report.html", html_page(contents).encode())
    return output_dir / "report.html"


def _unique_labels(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Two runs of one name get a number, so that every row says which it is."""
    labels: list[str] = []
    for run in runs:
        label, number = run.label, 2
        while label in labels:
            label, number = f"{run.label} ({number})", number + 1
        labels.append(label)
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]

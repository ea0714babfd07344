"""Settings of scripts/report.py."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ReportConfig:
    """What is reported on, and where to."""

    runs: list[str]
    """Run directories, or patterns such as runs/pythia-*."""

    output: str
    """Folder of the report."""

    table: int | None = None
    """A table of L2E, 1 to 8, to fill from the runs; null: none."""

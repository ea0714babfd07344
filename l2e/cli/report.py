"""A report about finished runs; the entry of scripts/report.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2e.cli.logs import start_logging
from l2e.reporting import write_report
from l2e.settings import build_settings


@dataclass(kw_only=True)
class ReportConfig:
    """What is reported on, and where to."""

    runs: list[str]
    """Run directories."""

    output: str
    """Folder of the report."""


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Write the report and say where it is."""
    config = build_settings(ReportConfig, tree)
    start_logging()
    print(f"report: {write_report([Path(path) for path in config.runs], Path(config.output))}")

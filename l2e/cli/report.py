"""A report about finished runs; the entry of scripts/report.py."""

from glob import glob
from pathlib import Path
from typing import Any

from l2e.cli.logs import start_logging
from l2e.cli.report_config import ReportConfig
from l2e.errors import UserError
from l2e.reporting import write_report
from l2e.settings import build_settings


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Write the report and say where it is."""
    config = build_settings(ReportConfig, tree)
    start_logging()
    written = write_report(_found(config.runs), Path(config.output), config.table)
    if config.table is not None:
        print((written.parent / "report.md").read_text(encoding="utf-8"))
    print(f"report: {written}")


def _found(given: list[str]) -> list[Path]:
    """The run directories; of a pattern those that it fits, in the order of their names."""
    paths: list[Path] = []
    for text in given:
        if Path(text).exists() or not set(text) & set("*?["):
            paths.append(Path(text))
            continue
        fitting = [Path(name) for name in sorted(glob(text)) if (Path(name) / "config.yaml").is_file()]
        if not fitting:
            raise UserError(f"runs: no run directory fits {text}")
        paths += [path for path in fitting if path not in paths]
    return paths

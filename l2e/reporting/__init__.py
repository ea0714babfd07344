"""Reports of finished, running and interrupted runs, made from their directories alone."""

from l2e.reporting.report import write_report
from l2e.reporting.runs import load_run
from l2e.reporting.up import up

__all__ = ["load_run", "up", "write_report"]

"""Reports of finished, running and interrupted runs, made from their directories alone."""

from typing import TYPE_CHECKING

from l2e.lazy import exports

if TYPE_CHECKING:
    from l2e.reporting.percent_up import up
    from l2e.reporting.report import write_report
    from l2e.reporting.runs import load_run
else:
    __getattr__ = exports(
        __name__,
        report="write_report",
        runs="load_run",
        percent_up="up",
    )

__all__ = ["load_run", "up", "write_report"]

"""Run one benchmark; the entry of scripts/benchmark.py."""

from importlib import import_module
from typing import Any

from l2e.benchmarks.report import print_result
from l2e.cli.benchmark_config import BenchmarkConfig
from l2e.cli.logs import quieten_libraries, start_logging
from l2e.settings import build_settings


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Measure, and end with one line of JSON."""
    config = build_settings(BenchmarkConfig, tree).benchmark
    start_logging()
    quieten_libraries()
    print_result(import_module(f"l2e.benchmarks.{config.kind}").run(config))

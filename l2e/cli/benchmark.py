"""Run one benchmark; the entry of scripts/benchmark.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from l2e.benchmarks import activations, data, overhead, table2, toy, trainer
from l2e.benchmarks.activations_config import ActivationsBenchmarkConfig
from l2e.benchmarks.data_config import DataBenchmarkConfig
from l2e.benchmarks.evaluation_config import EvaluationBenchmarkConfig
from l2e.benchmarks.overhead_config import OverheadConfig
from l2e.benchmarks.report import print_result
from l2e.benchmarks.table2_config import Table2Config
from l2e.benchmarks.toy import ToyBenchmarkConfig
from l2e.benchmarks.trainer_config import TrainerBenchmarkConfig
from l2e.cli.logs import quieten_libraries, start_logging
from l2e.settings import build_settings


def _run_evaluation(config: EvaluationBenchmarkConfig) -> dict[str, Any]:
    from l2e.benchmarks import evaluation  # seconds of imports that the others do not need

    return evaluation.run(config)


RUN: dict[str, Callable[[Any], dict[str, Any]]] = {
    "activations": activations.run,
    "data": data.run,
    "evaluation": _run_evaluation,
    "overhead": overhead.run,
    "table2": table2.run,
    "toy": toy.run,
    "trainer": trainer.run,
}
"""What runs a benchmark, by the `kind` of its settings."""


@dataclass(kw_only=True)
class BenchmarkConfig:
    """Which benchmark, with its settings; a further one joins the union and `RUN`."""

    benchmark: Annotated[
        ActivationsBenchmarkConfig
        | DataBenchmarkConfig
        | EvaluationBenchmarkConfig
        | OverheadConfig
        | Table2Config
        | ToyBenchmarkConfig
        | TrainerBenchmarkConfig,
        Field(discriminator="kind"),
    ]


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Measure, and end with one line of JSON."""
    config = build_settings(BenchmarkConfig, tree).benchmark
    start_logging()
    quieten_libraries()
    print_result(RUN[config.kind](config))

"""Settings of scripts/benchmark.py."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from l2e.benchmarks.activations_config import ActivationsBenchmarkConfig
from l2e.benchmarks.data_config import DataBenchmarkConfig
from l2e.benchmarks.evaluation_config import EvaluationBenchmarkConfig
from l2e.benchmarks.overhead_config import OverheadConfig
from l2e.benchmarks.table2_config import Table2Config
from l2e.benchmarks.toy_config import ToyBenchmarkConfig
from l2e.benchmarks.trainer_config import TrainerBenchmarkConfig


@dataclass(kw_only=True)
class BenchmarkConfig:
    """Which benchmark, with its settings. A further one joins the union; `l2e.benchmarks.<kind>.run` runs it."""

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

"""Workloads for the tests of this folder."""

from typing import Any

from l2e.cluster.workload import Workload
from l2e.data.config import BuiltinDataConfig, PileDataConfig
from l2e.inhibition import InhibitionConfig
from l2e.models import PYTHIA, ModelConfig
from l2e.training.config import CheckpointConfig, DeepSpeedConfig, TrainingConfig


def workload(model: str = "tiny", gpus: int = 1, stage: Any = 1, **options: Any) -> Workload:
    """One micro-batch of 2 x 16 tokens on each rank, no inhibition, unless `options` say otherwise.

    Options: `inhibition` and `checkpoint` are settings; `attention`, `data`; all others belong to training.
    """
    inhibition = options.pop("inhibition", {"method": "none"})
    checkpoint = options.pop("checkpoint", {})
    attention = options.pop("attention", "sdpa")
    data = options.pop("data", BuiltinDataConfig(kind="builtin"))
    training = {"steps": 10, "batch_size": 2 * gpus, "seq_length": 16, "lr": 1e-3} | options
    return Workload(
        model=ModelConfig(name=model, attention=attention),
        data=data,
        training=TrainingConfig(**training),
        deepspeed=DeepSpeedConfig(stage=stage),
        checkpoint=CheckpointConfig(**checkpoint),
        inhibition=InhibitionConfig(**inhibition),
        gpus=gpus,
    )


def pythia(name: str, gpus: int, stage: Any = 1, **options: Any) -> Workload:
    """A published run."""
    recipe = {
        "steps": 143_000,
        "batch_size": 1024,
        "seq_length": 2048,
        "lr": PYTHIA[name].lr,
        "micro_batch_size": PYTHIA[name].micro_batch_size,
        "precision": "fp16",
        "activation_checkpointing": True,
        "data": PileDataConfig(kind="pile", path="/rows"),
    }
    return workload(name, gpus, stage, **(recipe | options))

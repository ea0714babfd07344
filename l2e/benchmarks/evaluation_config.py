"""Settings of the evaluation benchmark."""

from dataclasses import dataclass, field
from typing import Literal

from l2e.evaluation import EvaluationConfig
from l2e.models import pythia_size

WORLD_TASKS = ["world_arc", "world_piqa", "world_sciq"]


@dataclass(kw_only=True)
class EvaluationBenchmarkConfig:
    """Which model is asked what, how often."""

    kind: Literal["evaluation"] = "evaluation"

    evaluation: EvaluationConfig = field(default_factory=lambda: EvaluationConfig(tasks=list(WORLD_TASKS)))
    """What is asked; `data_dir` null takes the built-in world's items, made for the occasion."""

    model: str = "tiny"
    """One of the Pythia sizes, or `tiny`; untrained, which takes as long."""

    tokenizer: str | None = None
    """Folder of the Hugging Face tokenizer; null: the built-in world's, which splits other texts finely."""

    max_length: int = 2048
    """Tokens that the model may see."""

    items: int = 60
    """Scored items of each of the built-in world's tasks."""

    checkpoints: int = 10
    """Models of the trajectory."""

    rounds: int = 3
    """Timings of each way."""

    threads: int = 1
    """Threads of torch, here and in the commands."""

    folder: str | None = None
    """Where the temporary folder is made, with the model in it; null: where the system keeps such."""

    def __post_init__(self) -> None:
        for key in ("max_length", "items", "rounds", "threads"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, not {getattr(self, key)}")
        if self.checkpoints < 2:
            raise ValueError(f"checkpoints must be at least 2, not {self.checkpoints}")
        if self.evaluation.data_dir is None and set(self.evaluation.tasks) - set(WORLD_TASKS):
            raise ValueError(f"evaluation.tasks: other tasks than {', '.join(WORLD_TASKS)} need evaluation.data_dir")
        if self.evaluation.inhibited:
            raise ValueError("evaluation.inhibited: an untrained model has no inhibition; leave it out")
        pythia_size(self.model)

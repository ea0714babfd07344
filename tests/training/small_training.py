"""A trainer on a small model and made-up rows, in this process: no files, no command line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from l2e.data import StepLoader
from l2e.models import build_pythia
from l2e.training.config import DeepSpeedConfig, TrainingConfig
from l2e.training.engine import Engine
from l2e.training.events import Callback
from l2e.training.trainer import Trainer

LENGTH, VOCABULARY, BATCH = 16, 96, 4


class MadeUpRows:
    """Walks in small steps, each a function of its position."""

    def __len__(self) -> int:
        return 1000

    def gather(self, positions: Sequence[int]) -> npt.NDArray[Any]:
        return np.stack([np.random.default_rng(p).integers(0, 4, LENGTH + 1).cumsum() % VOCABULARY for p in positions])

    def prefetch(self, positions: Sequence[int]) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        return {"rows": "made up"}


def build_trainer(callbacks: Sequence[Callback], stage: Any = 0, model: Any = None, **training: Any) -> Trainer:
    """Two micro-batches of two rows an update."""
    settings = {"steps": 6, "batch_size": BATCH, "seq_length": LENGTH, "lr": 2e-3, "schedule": "cosine", "warmup": 0.0}
    config = TrainingConfig(**{**settings, **training})
    if model is None:
        model = small_model()
    engine = Engine(
        model,
        config,
        DeepSpeedConfig(stage=stage),
        micro_batch_size=2,
        accumulation=BATCH // 2,
        device=torch.device("cpu"),
    )
    return Trainer(engine, StepLoader(MadeUpRows(), BATCH, 2, dist.get_rank(), 1), config, callbacks)


def small_model() -> Any:
    return build_pythia("tiny", vocab_size=VOCABULARY, max_length=LENGTH, seed=3).train()

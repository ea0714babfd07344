"""Hugging Face exports of the model in training."""

from pathlib import Path

import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from l2e.models import export
from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class ExportCallback(Callback):
    """Write `folder/step<N>` after chosen updates and after the last.

    Args:
        folder: the run's `hf` folder.
        tokenizer: exported with the model.
        steps: updates done at which to export; 0 is the untrained model.
    """

    priority = 20

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, steps: list[int]) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.steps = set(steps)

    def before_training(self, trainer: Trainer) -> None:
        """Export the untrained model when asked to."""
        if trainer.step == 0 and 0 in self.steps:
            self._export(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Export when this step is due."""
        if trainer.step in self.steps or trainer.step == trainer.config.steps:
            self._export(trainer)

    def _export(self, trainer: Trainer) -> None:
        with trainer.engine.whole_weights():
            if dist.get_rank() == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                export(trainer.engine.model, self.tokenizer, self.folder / f"step{trainer.step}")
        dist.barrier()

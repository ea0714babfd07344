"""Hugging Face exports of the model in training."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from l2e.inhibition import Inhibition, acts_at_test
from l2e.models import export
from l2e.training.events import Callback
from l2e.training.restart_points import Identity
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e.training")


class ExportCallback(Callback):
    """Write `folder/step<N>` after chosen updates and after the last.

    An export that fails on the way, on a full disk say, is told loudly and left out; the last one must succeed.

    Args:
        folder: the run's `hf` folder.
        tokenizer: exported with the model.
        steps: updates done at which to export; 0 is the untrained model.
        identity: of the run, for the manifests.
        inhibition: its statistics are exported with the model where they can act at test time.
    """

    priority = 20

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        steps: list[int],
        identity: Identity,
        inhibition: Inhibition | None = None,
    ) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.steps = set(steps)
        self.identity = identity
        self.inhibition = inhibition

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
                self._write(trainer)
        dist.barrier()

    def _write(self, trainer: Trainer) -> None:
        target = self.folder / f"step{trainer.step}"
        facts = self.identity.facts("export", trainer.step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            export(trainer.engine.model, self.tokenizer, target, facts, self._inhibition_state())
        except (OSError, SafetensorError) as error:
            if trainer.step == trainer.config.steps:
                raise
            shutil.rmtree(target.with_name(f".{target.name}.tmp"), ignore_errors=True)
            log.error("THE EXPORT %s WAS NOT WRITTEN: %s. Training goes on without it", target, error)

    def _inhibition_state(self) -> dict[str, Any] | None:
        if self.inhibition is None or not acts_at_test(self.inhibition.config.method):
            return None
        return self.inhibition.state_dict()

"""The validation loss."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from l2e.data import PackedRows
from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class ValidationCallback(Callback):
    """Measure the loss on the first validation rows: before, during and after training.

    Args:
        rows: validation rows.
        sequences: how many of them, over all ranks.
        every: updates between measurements; 0: before and after training alone.
    """

    priority = 10  # before metrics are written

    def __init__(self, rows: PackedRows, sequences: int, every: int) -> None:
        self.rows = rows
        self.sequences = min(sequences, len(rows))
        self.every = every

    def before_training(self, trainer: Trainer) -> None:
        """The untrained model's loss."""
        if trainer.step == 0:
            trainer.record = {"validation_loss": self.measure(trainer)}

    def after_step(self, trainer: Trainer) -> None:
        """Every so many updates, and after the last."""
        due = self.every and trainer.step % self.every == 0
        if due or trainer.step == trainer.config.steps:
            trainer.record["validation_loss"] = self.measure(trainer)

    @torch.no_grad()
    def measure(self, trainer: Trainer) -> float:
        """Mean loss over the rows; each rank takes a share and all get the same number."""
        totals = torch.zeros(2, dtype=torch.float64, device=trainer.engine.device)
        trainer.engine.eval()
        for tokens, counted in self._batches(trainer):
            loss = trainer.loss(tokens)
            totals += torch.stack([loss.double() * counted, torch.full_like(totals[0], counted)])
        trainer.engine.train()
        dist.all_reduce(totals)
        return float(totals[0] / totals[1])

    def _batches(self, trainer: Trainer) -> Iterator[tuple[Tensor, int]]:
        """This rank's rows, and how many count: every rank makes as many passes (ZeRO-3 needs that)."""
        loader = trainer.loader
        for start in range(0, self.sequences, loader.micro_batch_size * loader.ranks):
            first = start + loader.rank * loader.micro_batch_size
            mine = range(first, min(first + loader.micro_batch_size, self.sequences))
            yield torch.from_numpy(np.stack([self.rows[row] for row in mine or [0]])), len(mine)

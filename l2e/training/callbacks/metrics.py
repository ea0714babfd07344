"""metrics.jsonl, one line an update, written every so many updates."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from l2e.training.events import Callback
from l2e.training.telemetry import Measure
from l2e.training.trainer import Trainer

Row = dict[str, float | int | None]
Sink = Callable[[list[Row]], None]


class MetricsCallback(Callback):
    """Collect what each update recorded and hand it on, every `every` updates.

    Tensors are read, and the loss averaged over the ranks, only then: one wait for the device and one
    message for all updates since. The last row of each hand-over carries tokens_per_second and what `measure` gives.

    Args:
        every: updates between hand-overs.
        sinks: take the rows (on rank 0): the file, the progress line, wandb.
        measure: see `l2e.training.telemetry`.
    """

    priority = 100  # after all that records
    name = "metrics"

    def __init__(self, every: int, sinks: list[Sink], measure: Measure) -> None:
        self.every = every
        self.sinks = sinks
        self.measure = measure
        self._pending: list[dict[str, Any]] = []
        self._seconds = 0.0  # spent in updates: validation, exports and checkpoints are not training
        self._started = 0.0

    def before_training(self, trainer: Trainer) -> None:
        """Hand on what was measured before the first update."""
        if trainer.record:
            self._pending.append({"step": trainer.step, **trainer.record})
            self._hand_over(trainer)

    def before_step(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def after_update(self, trainer: Trainer) -> None:
        """Stop the clock."""
        self._seconds += time.perf_counter() - self._started

    def after_step(self, trainer: Trainer) -> None:
        """Keep the update's record."""
        tokens = trainer.step * trainer.tokens_per_step()
        self._pending.append({"step": trainer.step, "tokens": tokens, **trainer.record})
        if trainer.step % self.every == 0 or trainer.step == trainer.config.steps:
            self._hand_over(trainer)

    def before_save(self, trainer: Trainer) -> None:
        """A run that continues from here has no rows of the updates before."""
        self.flush(trainer)

    def flush(self, trainer: Trainer) -> None:
        """Hand on what is left, before the run stops between two hand-overs; every rank must call it."""
        if self._pending:
            self._hand_over(trainer)

    def _hand_over(self, trainer: Trainer) -> None:
        rows = [_plain(row) for row in self._pending]
        _average_losses(rows, trainer.engine.device)
        if self._seconds:
            speed = len(rows) * trainer.tokens_per_step() / self._seconds
            rows[-1] |= {"tokens_per_second": speed, **self.measure(trainer, speed)}
        self._pending.clear()
        if dist.get_rank() == 0:
            for sink in self.sinks:
                sink(rows)
        self._seconds = 0.0


class MetricsFile:
    """Append rows to a JSONL file; a number that JSON cannot hold becomes null."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, rows: list[Row]) -> None:
        """Write rows in one go, so that a kill leaves at most the last line incomplete."""
        with self.path.open("a") as file:
            file.write("".join(json.dumps(_finite(row)) + "\n" for row in rows))


def _plain(row: dict[str, Any]) -> Row:
    return {key: float(value) if isinstance(value, Tensor) else value for key, value in row.items()}


def _finite(row: Row) -> Row:
    return {key: value if value is None or math.isfinite(value) else None for key, value in row.items()}


def _average_losses(rows: list[Row], device: torch.device) -> None:
    """The loss of an update is the mean over ranks; all other numbers are the same on each."""
    training = [row for row in rows if "loss" in row]
    if not training:
        return
    losses = torch.tensor([row["loss"] for row in training], dtype=torch.float64, device=device)
    dist.all_reduce(losses)
    for row, loss in zip(training, (losses / dist.get_world_size()).tolist(), strict=True):
        row["loss"] = loss

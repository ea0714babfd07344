"""The training loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l2e.data import StepLoader
from l2e.training.config import TrainingConfig
from l2e.training.engine import Engine
from l2e.training.events import Callback
from l2e.training.loss import spoiled_unless_finite
from l2e.training.prefetch import Prefetch
from l2e.training.schedule import SCHEDULES


class Trainer:
    """Train a model on the rows that a loader deals out.

    It knows the language-modelling loss and nothing of what is added to it: inhibition, metrics, progress
    and checkpoints are callbacks (`Callback` names the events).

    Attributes:
        step: updates done.
        record: what the current update measured, by name; tensors stay on their device until they are
            written, so that no update waits for the device.
        losses: of the current update's micro-batches on this rank, 0-dim each.
    """

    def __init__(
        self,
        engine: Engine,
        loader: StepLoader,
        config: TrainingConfig,
        callbacks: Sequence[Callback],
    ) -> None:
        self.engine = engine
        self.loader = loader
        self.prefetch = Prefetch(loader, engine.device)
        self.config = config
        self.callbacks = sorted(callbacks, key=lambda callback: callback.priority)
        self.step = 0
        self.record: dict[str, Tensor | float] = {}
        self.losses: list[Tensor] = []

    def fit(self) -> None:
        """Run all updates that are left."""
        try:
            self._emit("before_training")
            self.engine.train()
            while self.step < self.config.steps:
                self.update()
                self.step += 1
                self._emit("after_step")
            self._emit("after_training")
        finally:
            self.prefetch.close()
            self._emit("close")

    def update(self) -> None:
        """One update, with the events from before_step to after_update; `step` is the caller's to count."""
        self._emit("before_step")
        loss = self._forward_and_backward()
        lr = self.learning_rate()
        norm = self.engine.update(lr)
        self.record = {"loss": loss, "learning_rate": lr, "grad_norm": norm}
        self._emit("after_update")

    def loss(self, tokens: Tensor) -> Tensor:
        """Language-modelling loss of rows [batch, seq + 1], a target for every token but the first."""
        tokens = tokens.to(self.engine.device, non_blocking=True)
        return self.engine.loss(tokens[:, :-1], tokens[:, 1:])

    def learning_rate(self) -> float:
        """The rate of the update that comes next."""
        config = self.config
        total = config.schedule_steps or config.steps
        return SCHEDULES[config.schedule](self.step, config.lr, total, config.warmup, config.lr_floor)

    def tokens_per_step(self) -> int:
        """Targets of one update over all ranks."""
        return self.config.batch_size * self.config.seq_length

    def state_dict(self) -> dict[str, Any]:
        """Step and the callbacks' states."""
        callbacks = {c.name: c.state_dict() for c in self.callbacks if c.name}
        return {"step": self.step, "callbacks": callbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after `state["step"]` updates."""
        self.step = state["step"]
        for callback in self.callbacks:
            if callback.name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.name])

    def _forward_and_backward(self) -> Tensor:
        """The update's gradient; returns the mean language-modelling loss of this rank's micro-batches."""
        total = torch.zeros((), device=self.engine.device)
        self.losses.clear()
        last = self.step + 1 >= self.config.steps
        for tokens in self.prefetch.micro_batches(self.step, last):
            loss = self.loss(tokens)
            self.losses.append(loss.detach())
            total += loss.detach() / self.engine.accumulation
            added = [callback.add_to_loss(self) for callback in self.callbacks]
            self.engine.backward(spoiled_unless_finite(sum((term for term in added if term is not None), loss)))
        return total

    def _emit(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)

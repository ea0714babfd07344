"""L2E as a callback: it uses nothing of the method but what any training loop would."""

from typing import Any

from torch import Tensor

from l2e.inhibition import Inhibition
from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class InhibitionCallback(Callback):
    """Add the penalty to each micro-batch's loss and move the statistics after each update.

    Args:
        inhibition: attached to the model that is trained.
        every: updates between records of its metrics (reading them waits for the device).
    """

    name = "inhibition"

    def __init__(self, inhibition: Inhibition, every: int) -> None:
        self.inhibition = inhibition
        self.every = every

    def add_to_loss(self, trainer: Trainer) -> Tensor | None:
        """The weighted penalty (L15); the statistics travel between ranks beside the last backward pass."""
        if not self.inhibition.taps:
            return None
        if len(trainer.losses) == trainer.engine.accumulation:
            self.inhibition.start_sharing()
        return self.inhibition.penalty()

    def after_update(self, trainer: Trainer) -> None:
        """Merge statistics and move the threshold (L14), unless the update was skipped."""
        if trainer.engine.applied:
            self.inhibition.step()
        else:
            self.inhibition.skip()

    def after_step(self, trainer: Trainer) -> None:
        """Record threshold, share selected and strength."""
        if trainer.step % self.every == 0 or trainer.step == trainer.config.steps:
            metrics = self.inhibition.metrics()
            trainer.record |= {f"inhibition/{name}": value for name, value in metrics.items()}

    def after_training(self, trainer: Trainer) -> None:
        """Take the taps off: what is exported and evaluated is the plain model."""
        self.inhibition.remove()

    def state_dict(self) -> dict[str, Any]:
        """Statistics and thresholds."""
        return self.inhibition.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.inhibition.load_state_dict(state)

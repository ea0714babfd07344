"""The events of the training loop, and what a callback may do at each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from l2e.training.trainer import Trainer


class Callback:
    """A plug-in of the training loop; every method does nothing unless it is overridden.

    The events, in the loop's order (`Trainer.fit`)::

        before_training
        while step < steps:
            before_step
            for each micro-batch:
                forward
                add_to_loss         # returns a term of the loss, or None
                backward
            update
            after_update            # the weights have moved, if `trainer.engine.applied`; `trainer.step` counts from 0
            step += 1
            after_step              # `trainer.step` updates are done; metrics of this update are complete
        after_training
        close                       # always, also after an error or a signal

    before_save comes in an after_step, whenever a restart point is taken.
    Callbacks run in the order of `priority`, smallest first. `name` and the state go into checkpoints.
    """

    name: str = ""
    priority: int = 0

    def before_training(self, trainer: Trainer) -> None:
        """Once, after a checkpoint has been loaded."""

    def before_step(self, trainer: Trainer) -> None:
        """Before an update's first forward pass."""

    def add_to_loss(self, trainer: Trainer) -> Tensor | None:
        """A term of this micro-batch's loss, 0-dim, or None."""
        return None

    def after_update(self, trainer: Trainer) -> None:
        """After the optimizer's step."""

    def after_step(self, trainer: Trainer) -> None:
        """After an update."""

    def before_save(self, trainer: Trainer) -> None:
        """Before a restart point is taken, on every rank."""

    def after_training(self, trainer: Trainer) -> None:
        """Once, after the last update."""

    def close(self, trainer: Trainer) -> None:
        """Once, however training ended: let go of what is held."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of this callback."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""

"""Save restart points, and continue from one."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from l2e.errors import UserError
from l2e.training.background_save import BackgroundSave
from l2e.training.cadence import Cadence
from l2e.training.config import CheckpointConfig
from l2e.training.engine_state import to_bytes
from l2e.training.events import Callback
from l2e.training.restart_points import TRAINER_FILE, Identity, choose, remove_leftovers
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e.training")


class CheckpointCallback(Callback):
    """Save all that an interrupted run needs, every so often, and keep the last few.

    Training waits while the state is copied to memory; a thread writes it (`BackgroundSave`). A save that
    fails, on a full disk say, is told loudly; the restart points before it stay, and training goes on.

    Args:
        folder: the run's `checkpoints` folder.
        config: how often, how many.
        identity: of the run, for the manifests.
    """

    priority = 200  # after metrics are written

    def __init__(self, folder: Path, config: CheckpointConfig, identity: Identity) -> None:
        self.folder = folder
        self.config = config
        self.identity = identity
        self.seconds = 0.0  # that training has waited
        self._saved_step = 0
        self._saving: BackgroundSave | None = None

    def before_training(self, trainer: Trainer) -> None:
        """Start the clock; remove what an interrupted save left."""
        self._cadence = Cadence(self.config.every, self.config.every_minutes, trainer.engine.device)
        self._cadence.start(trainer.step)
        self._saved_step = trainer.step  # what it continued from
        if dist.get_rank() == 0:
            remove_leftovers(self.folder)
        dist.barrier()

    def after_step(self, trainer: Trainer) -> None:
        """Save when due; the last update is exported instead."""
        if trainer.step < trainer.config.steps and self._cadence.due(trainer.step):
            self._begin(trainer)

    def after_training(self, trainer: Trainer) -> None:
        """Wait for the last save."""
        self._settle()
        if self.seconds:
            log.info("training waited %.1f s for its restart points", self.seconds, extra={"file_only": True})

    def save(self, trainer: Trainer) -> None:
        """Write a restart point and wait for it; every rank must call it.

        A failure is told in the log; the restart points before are as they were.
        """
        self._begin(trainer)
        self._settle()

    def _begin(self, trainer: Trainer) -> None:
        """Copy the state, start to write it."""
        started = time.perf_counter()
        self._settle()
        if trainer.step == self._saved_step:
            return
        for callback in trainer.callbacks:
            callback.before_save(trainer)
        files = trainer.engine.snapshot()
        rank = dist.get_rank()
        if rank == 0:  # the callbacks' states are the same on every rank
            files[TRAINER_FILE] = to_bytes(trainer.state_dict())
        self._saving = BackgroundSave(
            self.folder / f"step{trainer.step}",
            files,
            rank=rank,
            ranks=dist.get_world_size(),
            facts=self.identity.facts("restart point", trainer.step),
            keep=self.config.keep,
        )
        self._saved_step = trainer.step
        self._cadence.start(trainer.step)
        self.seconds += time.perf_counter() - started

    def _settle(self) -> None:
        """End the save that is under way, on all ranks alike."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        errors = _gather(saving.wait_for_own_part())
        if not errors:
            errors = _gather(saving.finish())
        if errors:
            saving.abandon()
            self._saved_step = 0
            log.error(
                "THE RESTART POINT %s WAS NOT WRITTEN: %s. Training goes on; the restart points before it are "
                "as they were, and the next save will be tried when it is due",
                saving.final,
                "; ".join(errors),
            )
        dist.barrier()


def resume(trainer: Trainer, folder: Path, identity: Identity) -> int:
    """Load the newest restart point of `folder` that can be used, if there is one; return the updates done.

    Rank 0 decides.

    Raises:
        UserError: see `choose`; on every rank.
    """
    point = _from_rank_0(lambda: choose(folder, identity))
    if point is not None:
        trainer.engine.load(point.folder, universal=point.universal)
        state = torch.load(point.folder / TRAINER_FILE, map_location=trainer.engine.device, weights_only=False)
        trainer.load_state_dict(state)
    return trainer.step


def _from_rank_0(work: Any) -> Any:
    """What `work` gives on rank 0, or the UserError that it raises, on every rank."""
    result: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            result = [work()]
        except UserError as error:
            result = [error]
    dist.broadcast_object_list(result)
    if isinstance(result[0], UserError):
        raise result[0]
    return result[0]


def _gather(error: str | None) -> list[str]:
    """The errors of all ranks."""
    errors: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, error)
    return [f"rank {rank}: {error}" for rank, error in enumerate(errors) if error]

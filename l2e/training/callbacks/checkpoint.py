"""Restart points."""

import re
import shutil
from pathlib import Path

import torch
import torch.distributed as dist

from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class CheckpointCallback(Callback):
    """Save all that an interrupted run needs, every so many updates, and keep the last few.

    A restart point is written under a temporary name and renamed when every rank is done, so a folder
    `step<N>` is complete.

    Args:
        folder: the run's `checkpoints` folder.
        every: updates between restart points; 0: none.
        keep: how many are kept.
    """

    priority = 200  # after metrics are written

    def __init__(self, folder: Path, every: int, keep: int) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep

    def after_step(self, trainer: Trainer) -> None:
        """Save when due; the last update is exported instead."""
        if self.every and trainer.step % self.every == 0 and trainer.step < trainer.config.steps:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write a restart point; every rank must call it."""
        temporary, final = self.folder / f".step{trainer.step}.tmp", self.folder / f"step{trainer.step}"
        main = dist.get_rank() == 0
        if main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        dist.barrier()
        trainer.engine.save(temporary)
        if main:
            torch.save(trainer.state_dict(), temporary / "trainer.pt")
        dist.barrier()
        if main:
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            for old in saved_steps(self.folder)[: -self.keep]:
                shutil.rmtree(self.folder / f"step{old}")
        dist.barrier()


def saved_steps(folder: Path) -> list[int]:
    """Steps of the complete restart points in `folder`, oldest first."""
    names = [re.fullmatch(r"step(\d+)", path.name) for path in folder.glob("step*")]
    return sorted(int(match[1]) for match in names if match)


def resume(trainer: Trainer, folder: Path) -> int:
    """Load the newest restart point of `folder`, if there is one; return the updates done."""
    steps = saved_steps(folder)
    if steps:
        newest = folder / f"step{steps[-1]}"
        trainer.engine.load(newest)
        trainer.load_state_dict(torch.load(newest / "trainer.pt", weights_only=False))
    return trainer.step

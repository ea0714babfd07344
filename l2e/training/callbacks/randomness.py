"""Random numbers of training (dropout) that a restart does not disturb."""

import torch
import torch.distributed as dist

from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class RandomnessCallback(Callback):
    """Seed each update by run, update and rank, so that nothing needs to be saved to continue exactly.

    Args:
        seed: the run's.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self, trainer: Trainer) -> None:
        """Start the update's random numbers."""
        torch.manual_seed((self.seed << 48) + (dist.get_rank() << 32) + trainer.step)

"""Random numbers of training (dropout) that a restart does not disturb."""

import hashlib
import random

import numpy as np
import torch
import torch.distributed as dist

from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class RandomnessCallback(Callback):
    """Seed each update by run, update and rank, so that nothing needs to be saved to continue exactly.

    Python's, NumPy's and PyTorch's generators (the CPU's and all devices'), before anything of the update runs.

    Args:
        seed: the run's.
    """

    priority = -100  # before all that may draw

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self, trainer: Trainer) -> None:
        """Start the update's random numbers."""
        # A hash, because PyTorch's generator of the CPU takes no more than the lowest 32 bits.
        digest = hashlib.blake2b(f"{self.seed}/{dist.get_rank()}/{trainer.step}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "big")
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed([seed >> 32, seed & 0xFFFFFFFF])

"""One process that collects activations: alone or as one of several ranks, killed in the middle if asked.

Started with the model's folder, the store, and after how many writes it is killed ("-" for never).
"""

import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from plain_activations import random_features

from l2e.analysis import activation_files
from l2e.analysis.activation_settings import ActivationSettings
from l2e.analysis.models import ModelSubject

SETTINGS = ActivationSettings(memory_mib=2, batch_tokens=256)


def kill_in_write(number: int) -> None:
    """The process is gone when that write has put down some rows of some layers, and no note of it."""
    usual, notes = activation_files.write_atomically, 0

    def write(path: Path, content: str) -> None:
        nonlocal notes
        notes += path.parent.name == "done"
        if notes == number:
            os.kill(os.getpid(), signal.SIGKILL)
        usual(path, content)

    activation_files.write_atomically = write


def main(folder: str, store: str, killed: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if killed != "-":
        kill_in_write(int(killed))
    if "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    features = random_features(160, 64, seed=5)
    subject = ModelSubject("small", Path(folder), features, SETTINGS, Path(store), torch.device("cpu"))
    values = subject.activations().values(0)
    print(f"rank {os.environ.get('RANK', 0)} sees {values.shape}")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One full-size update, to see whether it fits and how long it takes."""

import logging
import time
from dataclasses import dataclass, replace

import torch

from l2e.inhibition import InhibitionConfig
from l2e.training.ranks import HostGroup
from l2e.training.telemetry import memory
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e.training")

UPDATES = 3
"""The first makes the optimizer's state, the second has it in memory, the third inhibits: it is the one measured."""


@dataclass(frozen=True)
class DryRun:
    """What was measured.

    Attributes:
        seconds: of the third update, on the slowest rank.
        tokens_per_second: over all ranks.
        memory: see `l2e.training.telemetry.memory`.
    """

    seconds: float
    tokens_per_second: float
    memory: dict[str, float]


def acting_at_once(config: InhibitionConfig) -> InhibitionConfig:
    """The settings with an inhibition that acts in the third update: its memory and time belong to the numbers."""
    return replace(config, late_start=1, warmup=1)


def dry_run(trainer: Trainer, ranks: HostGroup) -> DryRun:
    """Make three updates of the first batch, all micro-batches and the optimizer's step included.

    Args:
        trainer: new; its `step` stays 0. Its inhibition should be `acting_at_once`.
        ranks: every rank must come here.
    """
    trainer.engine.train()
    for _ in range(UPDATES):
        _wait(trainer.engine.device)
        started = time.perf_counter()
        trainer.update()
        _wait(trainer.engine.device)
        (seconds,) = ranks.largest([time.perf_counter() - started])
    found = DryRun(seconds, trainer.tokens_per_step() / seconds, memory(trainer.engine.device, ranks))
    _tell(trainer, found)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _tell(trainer: Trainer, found: DryRun) -> None:
    config, loader = trainer.config, trainer.loader
    names = {"allocated": "allocated", "reserved": "reserved by PyTorch", "resident": "resident"}
    parts = [f"{value:.2f} GiB {names[key.split('_')[1]]}" for key, value in found.memory.items()]
    if trainer.engine.device.type == "cuda":
        total = torch.cuda.get_device_properties(trainer.engine.device).total_memory
        parts.append(f"of the device's {total / (1 << 30):.2f} GiB")
    log.info(
        "dry run: an update of %d x %d tokens took %.3f s (%s tokens/s); peak memory %s (the largest of %d ranks)",
        config.batch_size,
        config.seq_length,
        found.seconds,
        f"{found.tokens_per_second:,.0f}",
        ", ".join(parts),
        loader.ranks,
    )

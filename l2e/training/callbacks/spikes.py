"""Warn of a spike in the loss."""

import logging
from typing import Any

from l2e.data import rows_for_step
from l2e.training.callbacks.metrics import Row
from l2e.training.events import Callback
from l2e.training.spikes import SpikeConfig, SpikeDetector

log = logging.getLogger("l2e.training")


class SpikeCallback(Callback):
    """One line for each spike: update, loss, what was usual, and the rows. A sink for metrics, on rank 0.

    It sees the losses when they are handed over, so the line comes up to `logging.every` updates late.

    Args:
        config: what a spike is.
        batch_size: rows of an update.
    """

    name = "spikes"

    def __init__(self, config: SpikeConfig, batch_size: int) -> None:
        self.detector = SpikeDetector(config)
        self.batch_size = batch_size

    def __call__(self, rows: list[Row]) -> None:
        """Judge each update's loss."""
        for row in rows:
            loss, step = row.get("loss"), row["step"]
            if loss is None or step is None:
                continue
            limit = self.detector.limit()
            if self.detector.starts_spike(loss):
                update = int(step)
                positions = rows_for_step(update - 1, self.batch_size)
                log.warning(
                    "update %d: loss %.4f, usual is up to %.4f; rows %d to %d, "
                    "shown by scripts/prepare.py show=rows step=%d",
                    update, loss, limit, positions[0], positions[-1], update - 1,
                )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The losses that say what is usual."""
        return self.detector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.detector.load_state_dict(state)

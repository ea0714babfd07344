"""A loss or gradient that is not finite: stop or skip, with the rows kept."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from l2e.errors import RunError
from l2e.training.bad_batch import BadBatch, collect, save
from l2e.training.callbacks.metrics import MetricsCallback
from l2e.training.events import Callback
from l2e.training.ranks import HostGroup
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e.training")


class NonFiniteCallback(Callback):
    """Look after updates that the engine left out because loss or gradient was not finite.

    Weights and optimizer are as before such an update, whatever the policy, so no restart point or export can
    hold its NaN. In fp16 a gradient may overflow because the loss scale is too high: DeepSpeed lowers it, and
    that is no fault as long as the losses themselves are finite.

    Args:
        folder: of the rows of such updates.
        tokenizer: puts them into words; None leaves it at tokens.
        ranks: asks the others.
        metrics: writes what is not written yet, before the run ends.
    """

    name = "non_finite"
    priority = -100  # before the statistics of inhibition move on

    def __init__(
        self, folder: Path, tokenizer: PreTrainedTokenizerBase | None, ranks: HostGroup, metrics: MetricsCallback
    ) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.ranks = ranks
        self.metrics = metrics
        self.skipped = 0
        self.in_a_row = 0

    def after_update(self, trainer: Trainer) -> None:
        """Stop, or count.

        Raises:
            RunError: by policy, or because too many were left out in a row; on all ranks.
        """
        if trainer.engine.applied:
            self.in_a_row = 0
            return
        losses = self.ranks.gather(torch.stack(trainer.losses).tolist())  # on every rank: all left the update out
        if trainer.config.precision == "fp16" and all(math.isfinite(loss) for part in losses for loss in part):
            return
        self.skipped += 1
        self.in_a_row += 1
        batch = collect(trainer.loader, trainer.step, losses)
        found = f"update {trainer.step + 1}: {_what(batch)} {self._keep(trainer, batch)}"
        if trainer.config.non_finite == "stop":
            self.metrics.flush(trainer)
            raise RunError(
                f"{found} The update was not made. Look at the rows, lower training.lr, or leave such updates "
                f"out with training.non_finite=skip; started again, the run goes on from its newest restart point"
            )
        if self.in_a_row > trainer.config.max_skips:
            self.metrics.flush(trainer)
            raise RunError(f"{found} That makes {self.in_a_row} in a row, more than training.max_skips")
        log.warning("%s The update is left out, the %d. of this run.", found, self.skipped)

    def after_step(self, trainer: Trainer) -> None:
        """Record how many were left out, once there is one."""
        if self.skipped:
            trainer.record["skipped"] = self.skipped

    def _keep(self, trainer: Trainer, batch: BadBatch) -> str:
        path = self.folder / f"step{trainer.step + 1}"
        if dist.get_rank() == 0:
            save(batch, trainer.loader, self.tokenizer, path)
        return f"Its rows are in {path}.npz{'' if self.tokenizer is None else ' and .txt'}."

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


def _what(batch: BadBatch) -> str:
    if len(batch.suspects) < len(batch.positions) or not math.isfinite(batch.losses[0]):
        return f"the loss is not finite on {_spans(batch.suspects.tolist())}."
    return f"the gradient is not finite, and the loss is ({batch.losses.mean():.4f})."


def _spans(positions: list[int]) -> str:
    """Rows 3, 4, 5 and 9 are "rows 3-5, 9"."""
    spans: list[list[int]] = []
    for position in positions:
        if spans and position == spans[-1][1] + 1:
            spans[-1][1] = position
        else:
            spans.append([position, position])
    shown = ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in spans[:8])
    return f"rows {shown}{', ...' if len(spans) > 8 else ''}"

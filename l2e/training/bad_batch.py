"""Keep the rows of an update that went wrong."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from l2e.data import StepLoader, rows_for_step
from l2e.files import write_atomically


@dataclass(frozen=True)
class BadBatch:
    """The rows of one update, with the loss that was measured on them.

    Attributes:
        positions: [batch], in the order of training.
        losses: [batch], of each row the mean loss of the micro-batch that it was in.
    """

    positions: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]

    @property
    def suspects(self) -> npt.NDArray[np.int64]:
        """Positions of the rows whose micro-batch has a loss that is not finite; all rows if there is none."""
        bad = ~np.isfinite(self.losses)
        return self.positions[bad] if bad.any() else self.positions


def collect(loader: StepLoader, step: int, losses: list[list[float]]) -> BadBatch:
    """Put the losses of all ranks' micro-batches to the rows of update `step` (from 0).

    Args:
        loader: of any rank; says how rows are dealt out.
        step: the update.
        losses: of each rank, of each of its micro-batches.
    """
    positions = np.array(rows_for_step(step, loader.batch_size))
    by_part = np.array(losses).T  # rows are cut into accumulation steps, each into a slice for every rank
    return BadBatch(positions, np.repeat(by_part.reshape(-1), loader.micro_batch_size))


def save(batch: BadBatch, loader: StepLoader, tokenizer: PreTrainedTokenizerBase | None, path: Path) -> list[Path]:
    """Write `path`.npz (positions, losses, tokens [batch, seq + 1]) and, with a tokenizer, the suspects' text.

    Returns:
        The files.
    """
    content = io.BytesIO()
    tokens = loader.gather(batch.positions.tolist())
    np.savez(content, positions=batch.positions, losses=batch.losses, tokens=tokens)
    files = {path.with_name(f"{path.name}.npz"): content.getvalue()}
    if tokenizer is not None:
        files[path.with_name(f"{path.name}.txt")] = _text(batch, tokens, tokenizer).encode()
    for file, data in files.items():
        write_atomically(file, data)
    return list(files)


def _text(batch: BadBatch, tokens: npt.NDArray[Any], tokenizer: PreTrainedTokenizerBase) -> str:
    suspects = set(batch.suspects.tolist())
    parts = [
        f"--- row {position}, loss of its micro-batch {loss} ---\n{tokenizer.decode(row.tolist())}\n"
        for position, loss, row in zip(batch.positions.tolist(), batch.losses, tokens, strict=True)
        if position in suspects
    ]
    return "".join(parts)

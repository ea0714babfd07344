"""Micro-batches of an update, for one rank."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from l2e.data.rows import TrainingRows, rows_for_step


class StepLoader:
    """Deal out the rows of each update as Pythia did (pythia.md D.5).

    The update's rows are cut into accumulation steps of micro_batch x ranks consecutive rows; rank r takes
    the r-th slice of each. So an update is the same set of rows for every split of its batch.

    Args:
        rows: where the rows come from.
        batch_size: sequences of one update, over all ranks.
        micro_batch_size: sequences of one forward pass on one rank; batch_size is a multiple of
            micro_batch_size x ranks (checked with the settings).
        rank: this process's number among `ranks`.
        ranks: number of data-parallel processes.
    """

    def __init__(self, rows: TrainingRows, batch_size: int, micro_batch_size: int, rank: int, ranks: int) -> None:
        if batch_size % (micro_batch_size * ranks):
            raise ValueError(f"batch of {batch_size} does not divide into {micro_batch_size} x {ranks} ranks")
        self.rows = rows
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.ranks = ranks
        self._reading = threading.Lock()

    @property
    def accumulation(self) -> int:
        """Forward passes per update on this rank."""
        return self.batch_size // (self.micro_batch_size * self.ranks)

    def positions(self, step: int) -> Iterator[range]:
        """Positions of this rank's rows in update `step` (from 0), one range per forward pass."""
        positions = rows_for_step(step, self.batch_size)
        for part in range(self.accumulation):
            start = (part * self.ranks + self.rank) * self.micro_batch_size
            yield positions[start : start + self.micro_batch_size]

    def micro_batches(self, step: int) -> Iterator[Tensor]:
        """Tokens of update `step`: int64 [micro_batch_size, seq_length + 1] per forward pass."""
        for positions in self.positions(step + 1):
            if positions.stop <= len(self.rows):
                self.rows.prefetch(positions)
        for positions in self.positions(step):
            yield torch.from_numpy(self.gather(positions)).long()

    def gather(self, positions: Sequence[int]) -> npt.NDArray[Any]:
        """The rows at `positions`; one thread at a time, for rows may keep where they are."""
        with self._reading:
            return self.rows.gather(positions)

"""Rows of tokens, and the order in which training takes them."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from l2e.errors import UserError

END_BYTES = 1 << 20  # bytes at each end of the data that its fingerprint covers


def rows_for_step(step: int, batch: int) -> range:
    """The rows of update `step` (counted from 0): [batch x step, batch x (step + 1)).

    The whole data position is this function of the step, so resuming needs no loader state.
    """
    return range(step * batch, (step + 1) * batch)


def sha256_of_ends(size: int, read: Callable[[int, int], bytes]) -> str:
    """Hash of the first and the last MiB of `size` bytes; `read` gives those from a start up to a stop."""
    length = min(size, END_BYTES)
    return hashlib.sha256(read(0, length) + read(size - length, size)).hexdigest()


class TrainingRows(Protocol):
    """What training takes its rows from, by their position in the training order."""

    def __len__(self) -> int:
        """Positions of one pass over the data."""

    def gather(self, positions: Sequence[int]) -> npt.NDArray[Any]:
        """The rows at `positions`, integers [len(positions), seq_length + 1]."""

    def prefetch(self, positions: Sequence[int]) -> None:
        """These rows come soon: fetch them in the background where that takes time."""

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the rows and their order."""


class PackedRows:
    """A file of tokens cut into rows of `seq_length + 1`, as GPT-NeoX packs them (pythia.md D.5).

    Row i starts at token i x seq_length, so neighbours share one token and every token but the first is
    a target exactly once.

    Args:
        path: raw little-endian tokens.
        dtype: of one token, "uint16" or "uint32".
        seq_length: targets per row.

    Raises:
        UserError: the file does not hold one row.
    """

    def __init__(self, path: Path, dtype: str, seq_length: int) -> None:
        self.path = path
        self.seq_length = seq_length
        self.tokens = np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
        if len(self) < 1:
            raise UserError(
                f"{path}: {len(self.tokens)} tokens do not fill one row of {seq_length + 1}; "
                f"give more text or a smaller training.seq_length"
            )

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.seq_length

    def __getitem__(self, row: int) -> npt.NDArray[np.int64]:
        """Row `row`, int64 [seq_length + 1]."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        start = row * self.seq_length
        return self.tokens[start : start + self.seq_length + 1].astype(np.int64)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies these rows: size, row length and a hash of the first and last MiB."""
        raw = self.tokens.view(np.uint8)
        return {
            "tokens": len(self.tokens),
            "row_length": self.seq_length + 1,
            "sha256_of_ends": sha256_of_ends(len(raw), lambda start, stop: raw[start:stop].tobytes()),
        }


class ShuffledRows:
    """An endless sequence over finite rows: epoch after epoch, each in an order of its own.

    Position p is row p mod n of epoch p div n, whose order depends on (seed, epoch) alone.
    """

    def __init__(self, rows: PackedRows, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> dict[str, Any]:
        """That of the rows, and the seed of their order."""
        return {**self.rows.fingerprint(), "order_seed": self.seed}

    def prefetch(self, positions: Sequence[int]) -> None:
        """Nothing: the rows lie in a local file."""

    def row_at(self, position: int) -> int:
        """Index of the row that stands at `position`."""
        epoch, within = divmod(position, len(self.rows))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
            self._epoch = epoch
        return int(self._order[within])

    def gather(self, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        """The rows at `positions`, int64 [len(positions), seq_length + 1]."""
        return np.stack([self.rows[self.row_at(position)] for position in positions])

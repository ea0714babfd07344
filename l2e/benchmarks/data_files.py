"""Made-up rows in the published layout, and what the other ways of reading them start from."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

_VOCABULARY = 50_277  # entries of Pythia's tokenizer
_UPDATE = 1024 * 2 * 2049  # bytes of one update of Pythia's
_PUBLISHED = [30_000_000_000] * 20 + [78_336_000 + _UPDATE]  # one update longer, so that step 143,000 has rows


@dataclass(frozen=True)
class MadeUpRows:
    """Random rows within `folder`: cut into files as the published ones are, and in one piece."""

    folder: Path
    rows: int
    row_length: int

    @property
    def shards(self) -> Path:
        """Folder of the files document-00000-of-...; rows straddle their borders."""
        return self.folder / "shards"

    @cached_property
    def memmap(self) -> npt.NDArray[np.uint16]:
        """All tokens in one memory-mapped file."""
        return np.memmap(self.folder / "all.bin", "<u2", "r")

    def tokens(self, rows: int) -> npt.NDArray[np.uint16]:
        """The first `rows` rows, uint16 [rows, row_length]."""
        return np.array(self.memmap[: rows * self.row_length]).reshape(rows, self.row_length)


def write_rows(folder: Path, rows: int, row_length: int, files: int) -> MadeUpRows:
    """Write random rows; the size of the files is no multiple of the row."""
    tokens = np.random.default_rng(0).integers(0, _VOCABULARY, rows * row_length, dtype="<u2")
    made_up = MadeUpRows(folder, rows, row_length)
    made_up.shards.mkdir(parents=True)
    tokens.tofile(folder / "all.bin")
    size = -(-len(tokens) // files)
    size += size % row_length == 0
    starts = range(0, len(tokens), size)
    for index, start in enumerate(starts):
        tokens[start : start + size].tofile(made_up.shards / _name(index, len(starts)))
    return made_up


def write_published_sizes(folder: Path) -> bool:
    """Files of the published sizes without content, 600 GB that take no room; False where the disk cannot do that."""
    folder.mkdir()
    for index, size in enumerate(_PUBLISHED):
        path = folder / _name(index, len(_PUBLISHED))
        try:
            with path.open("wb") as file:
                file.truncate(size)
        except OSError:
            return False
        if 512 * path.stat().st_blocks > 1 << 20:
            path.unlink()
            return False
    return True


def _name(index: int, files: int) -> str:
    return f"document-{index:05d}-of-{files - 1:05d}.bin"

"""Rows of the published preshuffled Pile, read where the files lie (pythia.md D.5)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from l2e.data.block_cache import BlockCache
from l2e.data.megatron_files import HEADER, MAGIC
from l2e.data.remote_blocks import Place, RemoteBlocks
from l2e.data.remote_file import RangeReader
from l2e.data.remote_shards import DOCUMENT_LEVEL, authorisation, describe_all, is_remote, shard_name
from l2e.data.rows import END_BYTES, sha256_of_ends
from l2e.errors import UserError

_TOKEN = 2  # bytes of one token, a little-endian uint16
_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.bin")
_IDX_UINT16 = 8
_IDX_LOOK = 1 << 16  # lengths looked at, at each end

Tokens = npt.NDArray[np.uint16]


class _Files(Protocol):
    """Bytes of numbered files, wherever they lie."""

    sizes: list[int]

    def part(self, file: int, start: int, stop: int) -> bytes | memoryview:
        """Bytes of a file from `start` on: up to `stop`, or as far as they lie in one piece."""

    def prefetch(self, file: int, start: int, stop: int) -> None:
        """Bytes [start, stop) of a file will be read soon."""

    def close(self) -> None:
        """Let go of threads and connections."""


class PileShards:
    """Row r is bytes [2 x row_length x r, 2 x row_length x (r + 1)) of all files laid end to end.

    The files are `document-00000-of-00020.bin` and on, where the number after "of" is the last index. All but
    the last have one size, and rows straddle their borders. A local folder is memory-mapped. Of a remote one
    only the aligned blocks that hold the rows asked for are fetched, and kept in a bounded cache on disk which
    the processes of a node share; use an instance only in the process that made it.

    A remote folder is asked for sizes and tags of its files at each start, one byte of each. What it said is
    kept: if it cannot be reached, or with `offline`, cached blocks are read without it.

    Args:
        location: a folder, an http(s):// URL of one, or hf://datasets/ORG/NAME[@REVISION][/FOLDER].
        row_length: tokens per row.
        cache_dir: for what is fetched; needed for a remote location.
        block_size: bytes fetched at a time.
        cache_bytes: bound of the blocks on disk. A run of 14,300 updates reads 60 GB.
        retries: attempts after the first that fails, with exponential back-off.
        first_wait: s before the second attempt.
        timeout: s without a byte after which an attempt has failed.
        last_index: of a remote set's files; the published set has 20. A local folder tells it itself.
        offline: read a remote set from the cache alone.

    Raises:
        UserError: files are missing, have the wrong size or cannot be read; the message says which.
    """

    def __init__(
        self,
        location: str | Path,
        row_length: int = 2049,
        *,
        cache_dir: Path | None = None,
        block_size: int = 4 << 20,
        cache_bytes: int = 64 << 30,
        retries: int = 8,
        first_wait: float = 1.0,
        timeout: float = 30.0,
        last_index: int = 20,
        offline: bool = False,
    ) -> None:
        self.location = str(location)
        self.row_length = row_length
        self._row_bytes = _TOKEN * row_length
        self._files: _Files
        self.remote: RemoteBlocks | None = None  # what is fetched and kept; None for local files
        if not is_remote(self.location):
            self._files = _LocalFiles(Path(location).expanduser(), row_length)
        elif cache_dir is None:
            raise UserError(f"{location}: a remote location needs a cache folder; give one")
        else:
            reader = RangeReader(authorisation(self.location), retries, first_wait, timeout)
            described = describe_all(self.location, last_index, reader, cache_dir, offline)
            cache = BlockCache(cache_dir / "blocks", cache_bytes)
            self._files = self.remote = RemoteBlocks(described, reader, cache, block_size, offline)
        sizes = self._files.sizes
        _check_sizes(self.location, sizes, self._row_bytes)
        self._file_size = sizes[0]
        self._bytes = sum(sizes)

    def __len__(self) -> int:
        return self._bytes // self._row_bytes

    def __getitem__(self, row: int) -> Tokens:
        """Row `row`, uint16 [row_length]."""
        return self.gather(range(row, row + 1))[0]

    def gather(self, rows: Sequence[int]) -> Tokens:
        """The rows in the order given, uint16 [len(rows), row_length]; consecutive ones are read in one go."""
        self._check_range(rows)
        parts: list[bytes | memoryview] = []
        for first, count in _runs(rows):
            parts += self._parts(first * self._row_bytes, (first + count) * self._row_bytes)
        # A join copies each byte once and takes 0.1 us a part; assigning to slices of an array takes 1 us.
        return np.frombuffer(bytearray().join(parts), "<u2").reshape(len(rows), self.row_length)

    def prefetch(self, rows: Sequence[int]) -> None:
        """Start fetching what `rows` need, in the background; an error comes up when they are read.

        A hint: beyond 64 waiting blocks nothing more is taken on. Does nothing for local files.
        """
        self._check_range(rows)
        for first, count in _runs(rows):
            start = first * self._row_bytes
            for file, within, length in self._pieces(start, count * self._row_bytes):
                self._files.prefetch(file, within, within + length)

    def blocks(self, rows: range) -> list[Place]:
        """The blocks of `remote` that hold `rows` and both ends, which the fingerprint covers; [] for local files."""
        self._check_range(rows)
        if self.remote is None:
            return []
        ends = min(END_BYTES, self._bytes)
        spans = [(rows.start * self._row_bytes, len(rows) * self._row_bytes), (0, ends), (self._bytes - ends, ends)]
        found: set[Place] = set()
        for start, length in spans:
            for file, within, size in self._pieces(start, length):
                found.update(self.remote.places(file, within, within + size))
        return sorted(found)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies these rows, wherever they lie: size, row length and a hash of the first and last MiB."""
        return {
            "kind": "pile_preshuffled",
            "bytes": self._bytes,
            "row_length": self.row_length,
            "sha256_of_ends": sha256_of_ends(self._bytes, self._read),
        }

    def close(self) -> None:
        """Let go of the threads that fetch ahead and of the connections."""
        self._files.close()

    def _check_range(self, rows: Sequence[int]) -> None:
        if not len(rows):
            return
        ends = (rows[0], rows[-1]) if isinstance(rows, range) else (min(rows), max(rows))
        for row in ends:
            if not 0 <= row < len(self):
                raise IndexError(f"row {row} of {len(self)}")

    def _read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the concatenation."""
        return b"".join(self._parts(start, stop))

    def _parts(self, start: int, stop: int) -> list[bytes | memoryview]:
        """Bytes [start, stop) of the concatenation, in the pieces that they lie in."""
        parts = []
        while start < stop:
            file, within = divmod(start, self._file_size)
            part = self._files.part(file, within, within + stop - start)
            if not part:
                raise RuntimeError(f"{self.location}: no byte {within} in file {file}, though its size says so")
            parts.append(part)
            start += len(part)
        return parts

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """File, start within it and bytes of each part of `length` bytes of the concatenation."""
        stop = start + length
        while start < stop:
            file, within = divmod(start, self._file_size)
            size = min(stop - start, self._file_size - within)
            yield file, within, size
            start += size


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First row and count of each run of consecutive rows."""
    if isinstance(rows, range) and rows.step == 1:
        if rows:
            yield rows.start, len(rows)
        return
    first, count = 0, 0
    for row in rows:
        if count and row == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = int(row), 1
    if count:
        yield first, count


def _check_sizes(location: str, sizes: list[int], row_bytes: int) -> None:
    """All but the last file of one size, the last not larger, whole tokens, whole rows."""
    names = [shard_name(index, len(sizes) - 1) for index in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        if size == 0 or size % _TOKEN:
            raise UserError(f"{location}/{name}: {size} bytes are not whole tokens of {_TOKEN}; fetch the file again")
        if size > sizes[0] or (size < sizes[0] and name != names[-1]):
            allowed = "at most" if name == names[-1] else "exactly"
            raise UserError(
                f"{location}/{name}: {size} bytes, expected {allowed} the {sizes[0]} of {names[0]}; "
                f"one of the two is not whole: fetch it again"
            )
    left = sum(sizes) % row_bytes
    if left:
        raise UserError(
            f"{location}/{names[-1]}: the files together hold {sum(sizes) // row_bytes} rows of {row_bytes} bytes and "
            f"{left} bytes more, expected whole rows; fetch the last file again or correct the row length"
        )


# Local files


class _LocalFiles:
    """Memory-mapped files of a folder."""

    def __init__(self, folder: Path, row_length: int) -> None:
        paths = _local_shards(folder)
        self.sizes = [path.stat().st_size for path in paths]
        _check_idx(folder, sum(self.sizes), row_length)
        # An empty file cannot be mapped; the check of sizes that follows refuses it. A memoryview is sliced in
        # 0.1 us, a memmap in 2.
        whole = [(path, size) for path, size in zip(paths, self.sizes, strict=True) if size]
        self._maps = [np.memmap(path, np.uint8, "r", shape=(size,)).data for path, size in whole]

    def part(self, file: int, start: int, stop: int) -> memoryview:
        return self._maps[file][start:stop]

    def prefetch(self, file: int, start: int, stop: int) -> None:
        pass  # the system reads ahead itself

    def close(self) -> None:
        pass


def _local_shards(folder: Path) -> list[Path]:
    """The files of the set in order, all there."""
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give the one that holds {shard_name(0, 20)} and on")
    matches = [match for path in sorted(folder.iterdir()) if (match := _NAME.fullmatch(path.name))]
    shards = [match for match in matches if match[1] == "document"]
    if not shards:
        for match in matches:
            if match[1].endswith("_document"):
                raise UserError(f"{folder}/{match[0]}: {DOCUMENT_LEVEL}")
        raise UserError(f"{folder}: holds no files named like {shard_name(0, 20)}; check the folder")
    lasts = {int(match[3]) for match in shards}
    if len(lasts) > 1:
        raise UserError(f"{folder}: files of several sets: {shards[0][0]} and {shards[-1][0]}; keep one of them")
    (last,) = lasts
    present = {int(match[2]) for match in shards}
    for index in range(last + 1):
        if index not in present:
            raise UserError(
                f"{folder}/{shard_name(index, last)}: missing; the number after 'of' is the last index, "
                f"so {last + 1} files are expected and {len(present)} are here: fetch the missing ones"
            )
    if len(present) > last + 1:
        raise UserError(
            f"{folder}/{shard_name(max(present), last)}: one file too many; the number after 'of' is the last "
            f"index, so {last + 1} files are expected: remove what does not belong there"
        )
    return [folder / shard_name(index, last) for index in range(last + 1)]


def _check_idx(folder: Path, size: int, row_length: int) -> None:
    """Refuse a set whose .idx speaks of other sequences than rows; without one there is nothing to check.

    Looked at are their number and the lengths at both ends: reading all would take seconds (600 MB), and
    documents give themselves away at once.
    """
    for path in sorted(folder.glob("*.idx")):
        with path.open("rb") as file:
            header = file.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            continue  # not one of Megatron's, or not whole: the rows are read without it
        _, _, code, count, _ = HEADER.unpack(header)
        if code != _IDX_UINT16:
            raise UserError(f"{path}: tokens of type {code}, expected {_IDX_UINT16} (uint16); check the folder")
        lengths = _ends(path, count)
        found = set(lengths.tolist()) or {row_length}
        if len(found) == 1 and found != {row_length}:
            raise UserError(f"{path}: rows of {found.pop()} tokens, expected {row_length}; correct the row length")
        if len(found) > 1:
            raise UserError(f"{path}: sequences that are not rows of {row_length} tokens: {DOCUMENT_LEVEL}")
        if count * row_length * _TOKEN != size:
            raise UserError(
                f"{path}: {count} rows of {row_length} tokens, while the .bin files hold {size} bytes, "
                f"expected {count * row_length * _TOKEN}; fetch the .idx and the last .bin again"
            )


def _ends(path: Path, count: int) -> npt.NDArray[np.int32]:
    """The first and the last lengths of sequences in an .idx of `count`."""
    look = min(count, _IDX_LOOK)
    places = [HEADER.size, HEADER.size + 4 * (count - look)]
    return np.concatenate([np.fromfile(path, "<i4", look, offset=place) for place in places])

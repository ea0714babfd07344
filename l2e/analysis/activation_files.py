"""Activations on disk: one file [sequences, width] a layer, written in any order, complete or resumable.

While they are collected they lie in `<key>.part` with `done/`, whose files say which rows have been written and how
those hash. When all are there a manifest with the hash of every file is written and the folder renamed to `<key>`.

Rows are written by offset and not through a memory map: a full disk is then an error and not a signal, and what was
written does not stay in this process's memory. Ranks write rows that share no page of 4096 bytes (`page_rows`), as
shared file systems without coherent caches demand.
"""

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2e.errors import UserError
from l2e.files import write_atomically
from l2e.manifest import DamagedError, verify, write_manifest

PAGE = 4096

Rows = NDArray[np.int64]
Values = NDArray[np.float32]


class ActivationFiles:
    """The files of one model, feature set, site and aggregation.

    Args:
        folder: where they lie when they are complete.
        facts: what they are; JSON. `sequences`, `layers` and `width` among them give the shapes.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder = folder
        self.facts = facts
        self.sequences, self.layers, self.width = (facts[key] for key in ("sequences", "layers", "width"))
        self._part = folder.with_name(f"{folder.name}.part")
        self._done = self._part / "done"

    def damage(self) -> str | None:
        """What is wrong with complete files; None if nothing is.

        Raises:
            FileNotFoundError: they are not complete.
        """
        if not self.folder.exists():
            raise FileNotFoundError(self.folder)
        try:
            held = verify(self.folder)
        except DamagedError as error:
            return str(error)
        return None if {key: held.get(key) for key in self.facts} == self.facts else "it is of something else"

    def open(self, layer: int) -> Values:
        """The values of a layer, memory-mapped."""
        return np.load(_path(self.folder, layer), mmap_mode="r")

    def discard(self) -> None:
        """Remove complete files."""
        shutil.rmtree(self.folder)

    def prepare(self) -> None:
        """Make empty files, or keep those of an interrupted collection as far as they are whole.

        Raises:
            UserError: the disk has not enough room.
        """
        facts = self._part / "facts.json"
        if not self._resumable(facts):
            shutil.rmtree(self._part, ignore_errors=True)
            self._done.mkdir(parents=True)
            self._require_room()
            for layer in range(self.layers):
                self._create(_path(self._part, layer))
            write_atomically(facts, json.dumps(self.facts))
            return
        for path in self._done.glob("*.json"):
            if not self._is_whole(json.loads(path.read_bytes())):
                path.unlink()

    def rows_left(self) -> Rows:
        """Rows that have not been written, ascending."""
        left = np.ones(self.sequences, bool)
        for path in self._done.glob("*.json"):
            left[json.loads(path.read_bytes())["rows"]] = False
        return np.flatnonzero(left)

    def write(self, rows: Rows, values: Values) -> None:
        """Write rows of every layer, and note that they are there.

        Args:
            rows: which, in any order.
            values: [layers, rows, width].

        Raises:
            OSError: the disk is full, or fails.
        """
        order = np.argsort(rows)
        rows = rows[order]
        sorted_already = bool((order[1:] > order[:-1]).all())
        crc = 0
        for layer in range(self.layers):
            block = values[layer] if sorted_already else values[layer][order]
            crc = _crc(block, crc)
            descriptor = os.open(_path(self._part, layer), os.O_WRONLY)
            try:
                for first, last in _runs(rows):
                    _write_at(descriptor, block[first:last], self._offset(int(rows[first])))
            finally:
                os.close(descriptor)
        write_atomically(self._done / f"{rows[0]}.json", json.dumps({"rows": rows.tolist(), "crc32": crc}))

    def complete(self) -> None:
        """Hash all files, and give the folder its name.

        Raises:
            RuntimeError: rows are missing.
        """
        if left := len(self.rows_left()):
            raise RuntimeError(f"{left} rows of {self._part} were never written")
        shutil.rmtree(self._done)
        (self._part / "facts.json").unlink()
        write_manifest(self._part, self.facts)
        self._part.rename(self.folder)

    @property
    def page_rows(self) -> int:
        """Rows that fill whole pages; groups of so many, from the first row on, share no page."""
        return PAGE // math.gcd(4 * self.width, PAGE)

    def _resumable(self, facts: Path) -> bool:
        """Whether an interrupted collection of the same left files of the right size."""
        try:
            if json.loads(facts.read_bytes()) != self.facts:
                return False
            sizes = {_path(self._part, layer).stat().st_size for layer in range(self.layers)}
        except (OSError, ValueError):
            return False
        return sizes == {self._offset(self.sequences)} and self._done.is_dir()

    def _is_whole(self, note: dict[str, Any]) -> bool:
        """Whether the rows still hold what was written."""
        crc = 0
        for layer in range(self.layers):
            crc = _crc(np.load(_path(self._part, layer), mmap_mode="r")[note["rows"]], crc)
        return crc == note["crc32"]

    def _require_room(self) -> None:
        needed, free = self.layers * self._offset(self.sequences), shutil.disk_usage(self._part).free
        if needed > free:
            raise UserError(
                f"cache_dir: the activations take {needed / 2**30:.1f} GiB, and {self._part.parent} has room for "
                f"{free / 2**30:.1f}; give another cache_dir, or fewer activations.layers"
            )

    def _create(self, path: Path) -> None:
        """An .npy file whose values begin on a page."""
        said = {"descr": "<f4", "fortran_order": False, "shape": (self.sequences, self.width)}
        text = repr(said).encode().ljust(PAGE - 11) + b"\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
        os.truncate(path, self._offset(self.sequences))

    def _offset(self, row: int) -> int:
        return PAGE + row * self.width * 4


def _path(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer:02}.npy"


def _runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """Places of consecutive rows: first, and one past the last."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    yield from zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)


def _write_at(descriptor: int, values: Values, offset: int) -> None:
    left = _bytes(values)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def _crc(values: Values, crc: int) -> int:
    return zlib.crc32(_bytes(values), crc)


def _bytes(values: Values) -> memoryview:
    return np.ascontiguousarray(values).data.cast("B")

"""Read files as they are, or packed by zstandard or gzip."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from l2e.errors import UserError

PACKED = (".zst", ".gz")

_CHUNK = 1 << 20


@dataclass
class Reading:
    """How far the reading of a corpus has come.

    Attributes:
        done: bytes of the files, or documents, that have been read.
        total: of how many; None where nobody knows.
    """

    done: int = 0
    total: int | None = None


@contextmanager
def open_unpacked(path: Path, reading: Reading) -> Iterator[BinaryIO]:
    """The unpacked bytes of `path`.

    Raises:
        UserError: the file is truncated or not packed as its ending says.
    """
    with io.BufferedReader(_CountedFile(path, reading), _CHUNK) as file:  # type: ignore[type-var]
        try:
            if path.suffix == ".zst":
                yield io.BufferedReader(ZstdReader(file, path), _CHUNK)  # type: ignore[type-var]
            elif path.suffix == ".gz":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield io.BufferedReader(cast(io.RawIOBase, unpacked), _CHUNK)
            else:
                yield file
        except EOFError:
            raise UserError(f"{path}: the file is truncated (its gzip stream has no end); fetch it anew") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: not readable as gzip ({error})") from None


class _CountedFile(io.FileIO):
    """A file that tells `reading` what was read of it."""

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path)
        self._reading = reading

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = super().readinto(buffer)
        self._reading.done += count
        return count


class ZstdReader(io.RawIOBase):
    """Bytes of a zstandard file of one or more frames.

    The library's own stream reader takes the end of a truncated file for the end of the data; this one
    asks each frame whether it was complete.
    """

    def __init__(self, file: io.BufferedIOBase, path: Path) -> None:
        self._file = file
        self._path = path
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._started = False
        self._ready = b""

    def readable(self) -> bool:
        """This is a source of bytes."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill `buffer` with unpacked bytes; 0 at the end."""
        while not self._ready and self._advance():
            pass
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _advance(self) -> bool:
        """Unpack the next block; False at the end of the file."""
        packed = self._frame.unused_data if self._frame.eof else b""
        packed = packed or self._file.read(_CHUNK)
        if not packed:
            if self._started and not self._frame.eof:
                raise UserError(f"{self._path}: the file is truncated (its last zstandard frame is incomplete)")
            return False
        if self._frame.eof:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._started = True
        try:
            self._ready = self._frame.decompress(packed)
        except zstandard.ZstdError as error:
            raise UserError(f"{self._path}: not readable as zstandard ({error})") from None
        return True

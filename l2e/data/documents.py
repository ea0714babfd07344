"""Read documents from JSONL and JSONL.zst files."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import zstandard

from l2e.errors import UserError

_CHUNK = 1 << 20


def read_documents(path: Path) -> Iterator[str]:
    """The field `text` of each line.

    Raises:
        UserError: a damaged or truncated file, a line that is no JSON object with a string `text`; the
            message names file and line.
    """
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield _text_of(line, path, number)


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error.msg}); repair or remove the line") from None
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UserError(f'{path}, line {number}: no string under "text"; each line must be {{"text": "..."}}')
    return text


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        stream = ZstdReader(file, path) if path.suffix == ".zst" else file
        try:
            yield from io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8")  # type: ignore[type-var]
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text (byte {error.start} of a block: {error.reason})") from None


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

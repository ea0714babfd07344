"""Read documents from JSON lines, tables and plain text."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from l2e.data.packed_files import PACKED, Reading, open_unpacked
from l2e.errors import UserError

_KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".txt": "text", ".parquet": "parquet"}
_ROWS_AT_ONCE = 256


def kind_of(path: Path) -> str:
    """`jsonl`, `text` or `parquet`, by the ending; .zst and .gz may follow those of the first two.

    Raises:
        UserError: another ending.
    """
    bare = path.with_suffix("") if path.suffix in PACKED else path
    kind = _KINDS.get(bare.suffix)
    if kind is None or (kind == "parquet" and bare != path):
        raise UserError(
            f"{path}: unknown ending; known are .jsonl, .json (an object a line) and .txt, also with .zst or .gz, "
            f"and .parquet; or give the source a kind: jsonl, text or parquet"
        )
    return kind


def read_documents(
    path: Path, kind: str = "jsonl", field: str = "text", reading: Reading | None = None
) -> Iterator[str]:
    """The documents of a file, in its order.

    Args:
        path: the file.
        kind: `jsonl`: `field` of the object in each line that is not blank; `parquet`: column `field`; `text`: the
            whole file is one document.
        field: see `kind`.
        reading: told how many bytes were read.

    Raises:
        UserError: a damaged or truncated file, or a document that is no string of Unicode characters; the
            message names file and line.
    """
    reading = reading or Reading()
    if kind == "parquet":
        return _column(path, field, reading)
    if kind == "text":
        return iter([_whole(path, reading)])
    return _fields(path, field, reading)


def read_objects(path: Path, reading: Reading | None = None) -> Iterator[tuple[str, Any]]:
    """What each line of JSON that is not blank holds, after where it stands.

    Raises:
        UserError: a damaged or truncated file, or a line that is no JSON; the message names file and line.
    """
    for number, line in enumerate(_lines(path, reading or Reading()), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parsed(line, where)


def checked_text(text: Any, where: str, field: str, key: str = "data.text_field") -> str:
    """The text, if it is a string that UTF-8 can hold; else a UserError that says where, and which setting it is."""
    if not isinstance(text, str):
        raise UserError(f'{where}: no string under "{field}"; {key} names the field that holds the text')
    try:
        return text if text.isascii() or text.encode() else ""
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: half a surrogate pair at character {error.start}, which is no text") from None


def _fields(path: Path, field: str, reading: Reading) -> Iterator[str]:
    for where, row in read_objects(path, reading):
        yield checked_text(row.get(field) if isinstance(row, dict) else None, where, field)


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        reason = getattr(error, "msg", error)
        raise UserError(f"{where}: not JSON ({reason}); repair or remove the line") from None


def _lines(path: Path, reading: Reading) -> Iterator[str]:
    with open_unpacked(path, reading) as file:
        try:
            yield from io.TextIOWrapper(file, encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text (byte {error.start} of a block: {error.reason})") from None


def _whole(path: Path, reading: Reading) -> str:
    with open_unpacked(path, reading) as file:
        raw = file.read()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}: {error.reason})") from None


def _column(path: Path, field: str, reading: Reading) -> Iterator[str]:
    """Column `field` of a parquet file, a few rows in memory at a time."""
    start, row = reading.done, 0
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path) as table:
            _check_column(path, table.schema_arrow, field)
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[field]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield checked_text(text, f"{path}, row {row}", field)
                reading.done = start + size * row // table.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not readable as parquet, truncated or damaged ({error})") from None


def _check_column(path: Path, schema: pa.Schema, field: str) -> None:
    if field not in schema.names:
        raise UserError(f"{path}: no column {field!r} among {', '.join(schema.names)}; set data.text_field")
    kind = schema.field(field).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
        raise UserError(f"{path}: column {field!r} holds {kind}, not strings; set data.text_field")

"""Read and write Megatron's .idx/.bin: tokens of documents, as GPT-NeoX trains on them.

After `MMapIndexedDataset` in megatron/data/indexed_dataset.py of GPT-NeoX v1.0: the table in pythia.md D.5,
and the code at commit b156b02, which agrees with it. Everything is little endian.
"""

import shutil
import struct
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from l2e.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
_OLDER_MAGIC = b"TNTIDX\x00\x00"
_VERSION = 1
HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document borders: 34 bytes

# Codes 6 and 7 are floats, which are no tokens (and whose width differs between versions of Megatron).
_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
_CODES = {name: code for code, name in _DTYPES.items()}

_AT_ONCE = 1 << 22  # index entries that are checked or written at a time, to bound memory


class MegatronFile:
    """A pair of files, PREFIX.idx and PREFIX.bin, mapped into memory.

    What Megatron's index calls a sequence is one document in every set that GPT-NeoX prepares, and
    GPT2Dataset packs sequences; so `len`, `sizes` and `file[i]` count sequences.

    Args:
        path: the prefix, or either file's path.

    Attributes:
        prefix: path without .idx or .bin.
        dtype: of one token.
        sizes: int32 [sequences], tokens in each.
        pointers: int64 [sequences], byte in the .bin at which each starts.
        doc_idx: int64 [borders], the sequence with which each document starts, and the end.
        tokens: all of the .bin, [tokens] of `dtype`.

    Raises:
        UserError: a file is missing, truncated or not of this format, or the two do not fit together.
    """

    def __init__(self, path: str | Path) -> None:
        self.prefix = _prefix(Path(path))
        self.index_path = _with_ending(self.prefix, ".idx")
        self.tokens_path = _with_ending(self.prefix, ".bin")
        _refuse_missing(self.index_path, self.tokens_path)
        self.dtype, sequences, borders = _read_header(self.index_path)
        self.sizes, self.pointers, self.doc_idx = _map_index(self.index_path, sequences, borders)
        self.tokens = _map(self.tokens_path, self.dtype)
        self._check_sequences()
        self._check_borders()

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, sequence: int) -> npt.NDArray[Any]:
        """Tokens of `sequence`, [sizes[sequence]] of `dtype`: a view of the file, read-only."""
        if not 0 <= sequence < len(self):
            raise IndexError(f"sequence {sequence} of {len(self)}")
        start = int(self.pointers[sequence]) // self.dtype.itemsize
        return self.tokens[start : start + int(self.sizes[sequence])]

    def _check_sequences(self) -> None:
        width = self.dtype.itemsize
        for first in range(0, len(self), _AT_ONCE):
            sizes = self.sizes[first : first + _AT_ONCE].astype(np.int64)
            starts = self.pointers[first : first + _AT_ONCE]
            # In this form no addition can overflow, whatever the file says.
            outside = (sizes < 0) | (starts < 0) | (starts > self.tokens.nbytes - sizes * width)
            self._refuse(outside, first, f"lies outside the {self.tokens.nbytes} bytes of {self.tokens_path}")
            self._refuse(starts % width != 0, first, f"does not start at a whole token of {width} bytes")

    def _refuse(self, wrong: npt.NDArray[np.bool_], first: int, what: str) -> None:
        if not wrong.any():
            return
        sequence = first + int(wrong.argmax())
        raise UserError(
            f"{self.index_path}: sequence {sequence} ({self.sizes[sequence]} tokens from byte "
            f"{self.pointers[sequence]}) {what}; one of the files is damaged or incomplete, fetch or write both anew"
        )

    def _check_borders(self) -> None:
        borders = self.doc_idx
        ordered = bool((borders[1:] >= borders[:-1]).all())
        if not ordered or (len(borders) and not 0 <= borders[0] <= borders[-1] <= len(self)):
            raise UserError(
                f"{self.index_path}: its document borders do not rise from 0 to its {len(self)} sequences; "
                f"the file is damaged, fetch or write it anew"
            )


def write_megatron(prefix: str | Path, documents: Iterable[npt.ArrayLike], dtype: npt.DTypeLike) -> MegatronFile:
    """Write `documents`, one sequence each, as PREFIX.idx and PREFIX.bin, byte for byte as GPT-NeoX does.

    The documents are taken one at a time and not kept. Both files are written under temporary names; the
    .idx gets its name last, so whoever is killed leaves either no .idx or a whole pair. Files of that name
    are replaced.

    Args:
        prefix: path without ending; its folder is made if it is missing.
        documents: token ids of each, integers [tokens]; nothing is added between them.
        dtype: of one token in the file: uint16 where the vocabulary fits, else int32 (the format has no uint32).

    Raises:
        UserError: a dtype that the format does not have, or a document that does not fit it.
    """
    prefix = _prefix(Path(prefix))
    kind = _writable(dtype)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{prefix.name}-", dir=prefix.parent))
    try:
        with (temporary / "bin").open("wb") as out:
            sizes = _write_tokens(out, documents, kind)
        with (temporary / "idx").open("wb") as out:
            _write_index(out, sizes, kind)
        # An old index must never stand beside new tokens.
        _with_ending(prefix, ".idx").unlink(missing_ok=True)
        (temporary / "bin").replace(_with_ending(prefix, ".bin"))
        (temporary / "idx").replace(_with_ending(prefix, ".idx"))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return MegatronFile(prefix)


def join_megatron(prefix: str | Path, parts: Sequence[MegatronFile]) -> None:
    """Write the sequences of `parts`, one document each and all of one dtype, one part after the other.

    The same bytes as `write_megatron` gives for all of them; it does not write under temporary names.
    """
    prefix = _prefix(Path(prefix))
    with _with_ending(prefix, ".bin").open("wb") as out:
        for part in parts:
            with part.tokens_path.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 24)
    with _with_ending(prefix, ".idx").open("wb") as out:
        _write_index(out, np.concatenate([part.sizes for part in parts]), parts[0].dtype)


def _writable(dtype: npt.DTypeLike) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.name not in _CODES:
        raise UserError(f"a Megatron .bin cannot hold tokens of type {kind.name}; choose from {', '.join(_CODES)}")
    return kind.newbyteorder("<")


def _write_tokens(out: BinaryIO, documents: Iterable[npt.ArrayLike], dtype: np.dtype[Any]) -> npt.NDArray[np.int32]:
    """Write the tokens and return the documents' sizes, int32 [documents]."""
    sizes = array("i")
    limits = np.iinfo(dtype)
    for number, document in enumerate(documents):
        tokens = np.asarray(document)
        if tokens.size and tokens.dtype.kind not in "iu":
            raise UserError(f"document {number}: its tokens are {tokens.dtype}, not integers")
        if tokens.ndim != 1:
            raise UserError(f"document {number}: its tokens have shape {tokens.shape}; one dimension is needed")
        if tokens.size and not limits.min <= tokens.min() <= tokens.max() <= limits.max:
            raise UserError(
                f"document {number}: tokens from {tokens.min()} to {tokens.max()} do not fit {dtype.name}; "
                f"write int32 instead"
            )
        out.write(tokens.astype(dtype).tobytes())
        sizes.append(len(tokens))
    return np.array(sizes, dtype="<i4")


def _write_index(out: BinaryIO, sizes: npt.NDArray[np.int32], dtype: np.dtype[Any]) -> None:
    documents = len(sizes)
    out.write(HEADER.pack(MAGIC, _VERSION, _CODES[dtype.name], documents, documents + 1))
    out.write(sizes.tobytes())
    address = 0
    for first in range(0, documents, _AT_ONCE):
        ends = address + np.cumsum(sizes[first : first + _AT_ONCE], dtype=np.int64) * dtype.itemsize
        out.write(np.concatenate([[address], ends[:-1]]).astype("<i8").tobytes())
        address = int(ends[-1])
    for first in range(0, documents + 1, _AT_ONCE):
        out.write(np.arange(first, min(first + _AT_ONCE, documents + 1), dtype="<i8").tobytes())


def _prefix(path: Path) -> Path:
    """`path` without .idx or .bin. Other dots stay: Pile's own prefix is pile_0.87_deduped_text_document."""
    return path.with_suffix("") if path.suffix in (".idx", ".bin") else path


def _with_ending(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def _refuse_missing(index: Path, tokens: Path) -> None:
    if not index.is_file() and not tokens.is_file():
        raise UserError(f"there is neither {index} nor {tokens}; name the files' common path without .idx or .bin")
    if not index.is_file():
        raise UserError(
            f"{tokens} has no {index.name} beside it, so its documents' borders are unknown; "
            f"put the .idx there, or prepare the data again if writing it was interrupted"
        )
    if not tokens.is_file():
        raise UserError(
            f"{index} has no {tokens.name} beside it; put the tokens there "
            f"(shards such as {tokens.stem}-00000-of-00082.bin are to be joined into that one file)"
        )


def _read_header(path: Path) -> tuple[np.dtype[Any], int, int]:
    """Type of a token, number of sequences, number of document borders."""
    with path.open("rb") as file:
        raw = file.read(HEADER.size)
    if raw.startswith(_OLDER_MAGIC):
        raise UserError(
            f"{path}: Megatron's older format ('lazy' or 'cached'); prepare it again with dataset-impl mmap"
        )
    if raw[: len(MAGIC)] != MAGIC[: len(raw)]:
        raise UserError(f"{path}: not a Megatron index, it begins with {raw[: len(MAGIC)]!r} and not with {MAGIC!r}")
    if len(raw) < HEADER.size:
        raise UserError(f"{path}: truncated, {len(raw)} bytes do not hold the header of {HEADER.size}; fetch it anew")
    _, version, code, sequences, borders = HEADER.unpack(raw)
    if version != _VERSION:
        raise UserError(f"{path}: version {version} of the Megatron index; only version {_VERSION} is known")
    if code not in _DTYPES:
        known = ", ".join(f"{key} {name}" for key, name in _DTYPES.items())
        raise UserError(f"{path}: its tokens have type code {code}; token files have one of: {known}")
    return np.dtype(_DTYPES[code]).newbyteorder("<"), sequences, borders


def _map_index(
    path: Path, sequences: int, borders: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    size, needed = path.stat().st_size, HEADER.size + 12 * sequences + 8 * borders
    if size != needed:
        raise UserError(
            f"{path}: {size} bytes, but {sequences} sequences and {borders} document borders take {needed}; "
            f"the file is truncated or damaged, fetch or write it anew"
        )
    raw = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)[HEADER.size :]
    sizes, pointers, doc_idx = np.split(raw, [4 * sequences, 12 * sequences])
    return sizes.view("<i4"), pointers.view("<i8"), doc_idx.view("<i8")


def _map(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise UserError(
            f"{path}: {size} bytes are no whole number of {dtype.name} tokens; the file is truncated, fetch it anew"
        )
    if size == 0:  # which cannot be mapped
        return np.empty(0, dtype)
    # A plain array over the map: slices of a np.memmap object are several times slower to make.
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)

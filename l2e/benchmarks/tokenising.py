"""Tokens per second from JSON lines to a Megatron .idx/.bin: ours, and as GPT-NeoX's preprocess_data.py does it."""

import multiprocessing
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from l2e.benchmarks.pairing import median
from l2e.data.documents import kind_of, read_documents
from l2e.data.encode import available_cpus
from l2e.data.sources import FileSource
from l2e.data.tokenise import TokenCache
from l2e.errors import UserError


def measure_tokenising(
    files: Path | Sequence[Path], tokenizer: Path, workers: int | None = None, rounds: int = 3
) -> dict[str, Any]:
    """Time both on the same files with the same tokenizer, in turns, and compare what they wrote byte for byte.

    GPT-NeoX's processes have started and loaded the tokenizer before the clock starts; ours has nothing to start.

    Args:
        files: JSONL files (.zst or .gz too), or a folder of them.
        tokenizer: folder of a Hugging Face tokenizer.
        workers: our threads, its processes; None: as many as there are CPUs.
        rounds: pairs of timings; every other one begins with GPT-NeoX.

    Returns:
        tokens_per_second, neox_tokens_per_second (medians) and vs_neox, the median of the rounds' ratios; also
        tokens, documents, workers and rounds.

    Raises:
        UserError: no files, or unreadable ones.
        RuntimeError: the two wrote different bytes.
    """
    paths = sorted(path for path in files.iterdir() if path.is_file()) if isinstance(files, Path) else list(files)
    if not paths or any(kind_of(path) != "jsonl" for path in paths):
        raise UserError(f"tokenising is measured on JSONL files, not on {files}")
    workers = workers or available_cpus()
    ours, theirs, tokens, documents = [], [], 0, 0
    with _neox_pool(workers, tokenizer) as pool, tempfile.TemporaryDirectory() as name:
        for turn in range(rounds):
            folder = Path(name) / str(turn)
            steps = [
                lambda: ours.append(_time_ours(paths, tokenizer, workers, folder / "ours")),  # noqa: B023
                lambda: theirs.append(_time_neox(paths, pool, tokenizer, folder / "neox")),  # noqa: B023
            ]
            for step in steps if turn % 2 == 0 else reversed(steps):
                step()
            tokens, documents = _compare(folder)
            shutil.rmtree(folder)
    return {
        "tokens_per_second": tokens / median(ours),
        "neox_tokens_per_second": tokens / median(theirs),
        "vs_neox": median([their / our for our, their in zip(ours, theirs, strict=True)]),
        "tokens": tokens,
        "documents": documents,
        "workers": workers,
        "rounds": rounds,
    }


def _time_ours(paths: list[Path], tokenizer: Path, workers: int, folder: Path) -> float:
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    source = FileSource(name=str(paths[0]), paths=paths, kinds=["jsonl"] * len(paths))
    started = time.perf_counter()
    cache = TokenCache([source], loaded, folder, workers)
    cache.open()
    seconds = time.perf_counter() - started
    for ending in (".bin", ".idx"):
        (cache.folder / f"tokens{ending}").rename(folder.with_suffix(ending))
    return seconds


def _time_neox(paths: list[Path], pool: Pool, tokenizer: Path, prefix: Path) -> float:
    """`main` of preprocess_data.py: one process reads, the pool encodes, the first one writes."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size()
    started = time.perf_counter()
    builder = _IndexedDatasetBuilder(prefix, np.dtype("<u2" if vocabulary < 65_500 else "<i4"))
    for ids in pool.imap(_neox_encode, _texts(paths), chunksize=25):
        builder.add_item(np.array(ids, dtype=builder.dtype))
        builder.end_document()
    builder.finalize()
    return time.perf_counter() - started


def _texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        yield from read_documents(path)


class _Encoder:
    """What an encoding process holds."""

    tokenizer: Tokenizer
    end: int


def _neox_pool(workers: int, tokenizer: Path) -> Pool:
    """Started, each process with its tokenizer loaded; spawned, as forking beside torch's threads can hang."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(workers + 1)
    pool = context.Pool(workers, initializer=_neox_initialise, initargs=(tokenizer, ready))
    ready.wait(timeout=600)
    return pool


def _neox_initialise(tokenizer: Path, ready: Any) -> None:
    _Encoder.tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    _Encoder.end = AutoTokenizer.from_pretrained(tokenizer).eos_token_id
    ready.wait(timeout=600)


def _neox_encode(text: str) -> list[int]:
    return [*_Encoder.tokenizer.encode(text).ids, _Encoder.end]


class _IndexedDatasetBuilder:
    """`MMapIndexedDatasetBuilder` of GPT-NeoX's indexed_dataset.py, written anew from the format's table."""

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._index = prefix.with_suffix(".idx")
        self._tokens = prefix.with_suffix(".bin").open("wb")
        self._sizes: list[int] = []
        self._documents = [0]

    def add_item(self, item: np.ndarray) -> None:
        self._tokens.write(item.tobytes(order="C"))
        self._sizes.append(item.size)

    def end_document(self) -> None:
        self._documents.append(len(self._sizes))

    def finalize(self) -> None:
        self._tokens.close()
        sizes = np.array(self._sizes, "<i4")
        pointers = np.zeros(len(sizes), "<i8")
        np.cumsum(sizes[:-1] * np.int64(self.dtype.itemsize), out=pointers[1:])
        code = {"uint16": 8, "int32": 4}[self.dtype.name]
        with self._index.open("wb") as out:
            out.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sizes), len(self._documents)))
            out.write(sizes.tobytes() + pointers.tobytes() + np.array(self._documents, "<i8").tobytes())


def _compare(folder: Path) -> tuple[int, int]:
    """Tokens and documents, if both wrote the same."""
    for ending in (".idx", ".bin"):
        if (folder / f"ours{ending}").read_bytes() != (folder / f"neox{ending}").read_bytes():
            raise RuntimeError(f"ours and GPT-NeoX's way wrote different {ending} files")
    raw = (folder / "ours.idx").read_bytes()
    code, documents = raw[17], struct.unpack_from("<Q", raw, 18)[0]
    return (folder / "ours.bin").stat().st_size // {8: 2, 4: 4}[code], documents

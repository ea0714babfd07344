"""Pythia's training order over documents: the packing and the shuffles of GPT-NeoX's GPT2Dataset.

After megatron/data/gpt2_dataset.py (`_build_index_mappings` and what it calls), `build_sample_idx` in
megatron/data/helpers.cpp and `get_normalized_weights_and_num_samples` in megatron/data/data_utils.py of
GPT-NeoX v1.0, which trained Pythia: as pythia.md D.5 describes that tag, and read in the code at commits
b2f1101 (gpt2_dataset.py) and 02ccedc (helpers.cpp), which agree. Later versions can pack otherwise; this is
their "packed".

The documents, each taken once per epoch, are shuffled across all epochs and laid end to end as one stream
of tokens. Sample i reads tokens [i x seq_length, (i + 1) x seq_length] of it, so neighbours share one
token. Training takes sample shuffle_idx[k] as its k-th row.
"""

import hashlib
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l2e.data.megatron_files import MegatronFile
from l2e.data.rows import sha256_of_ends
from l2e.errors import UserError
from l2e.files import sha256_of

log = logging.getLogger("l2e.data")

PYTHIA_SEED = 1234
PYTHIA_SAMPLES = 147_164_160  # samples_to_request(143_000, 1024)

_FORMAT = 1  # of the cache; a change in what is stored needs another number
_AT_ONCE = 1 << 22  # samples whose places are sought at a time, to bound memory
_ARRAYS = ("doc_idx", "sample_idx", "shuffle_idx")


def samples_to_request(steps: int, batch_size: int) -> int:
    """Samples that GPT-NeoX asks of the only dataset of a run: half a per cent more than it trains on.

    v1.0 computes it in floating point, and so does this.
    """
    return math.ceil(steps * batch_size * 1.005)


def count_epochs(tokens_per_epoch: int, num_samples: int, seq_length: int) -> int:
    """The least number of epochs, at least 1, whose tokens hold `num_samples` samples.

    One token more than num_samples x seq_length is needed: the last sample's last target.
    """
    return max(1, -(-(num_samples * seq_length + 1) // tokens_per_epoch))


@dataclass(frozen=True, kw_only=True)
class DocumentOrder:
    """The three indices of GPT2Dataset.

    Attributes:
        doc_idx: int32 [epochs x documents], the documents in the order of the stream.
        sample_idx: int32 [samples + 1, 2] (int64 if a place needs it), where each sample starts: a place in
            `doc_idx`, and an offset in that document. The last entry is where the last sample ends.
        shuffle_idx: uint32 [samples] (int64 if a number needs it), the sample that is read k-th. Samples are
            all that the epochs hold, which may be many more than were requested.
    """

    doc_idx: npt.NDArray[np.int32]
    sample_idx: npt.NDArray[Any]
    shuffle_idx: npt.NDArray[Any]


def build_order(sizes: npt.NDArray[np.int32], epochs: int, seq_length: int, seed: int = PYTHIA_SEED) -> DocumentOrder:
    """Build the order of `epochs` epochs over documents of `sizes` tokens [documents].

    One generator shuffles first the documents and then the samples.
    """
    random = np.random.RandomState(seed)
    doc_idx = np.tile(np.arange(len(sizes), dtype=np.int32), epochs)
    random.shuffle(doc_idx)
    sample_idx = build_sample_idx(sizes, doc_idx, seq_length)
    shuffle_idx = _count_up(len(sample_idx) - 1)
    random.shuffle(shuffle_idx)
    return DocumentOrder(doc_idx=doc_idx, sample_idx=sample_idx, shuffle_idx=shuffle_idx)


def build_sample_idx(sizes: npt.NDArray[np.int32], doc_idx: npt.NDArray[np.int32], seq_length: int) -> npt.NDArray[Any]:
    """Where each sample starts in the stream of documents `doc_idx`: [samples + 1, 2] of (place, offset).

    GPT-NeoX walks the documents one by one. Its walk ends a sample in the document that holds the sample's
    last token, number (i + 1) x seq_length of the stream, and starts the next one there: the first
    document that ends beyond that token, which documents without tokens never do. The very first sample
    starts at (0, 0) even if document 0 has no tokens.
    """
    ends = np.cumsum(sizes[doc_idx], dtype=np.int64)
    samples = max(0, (int(ends[-1]) - 1) // seq_length)
    dtype = np.int32 if len(doc_idx) <= np.iinfo(np.int32).max else np.int64
    sample_idx = np.zeros((samples + 1, 2), dtype)
    for first in range(1, samples + 1, _AT_ONCE):
        borders = np.arange(first, min(first + _AT_ONCE, samples + 1), dtype=np.int64) * seq_length
        places = np.searchsorted(ends, borders, side="right")
        part = sample_idx[first : first + len(borders)]
        part[:, 0] = places
        part[:, 1] = borders - (ends[places] - sizes[doc_idx[places]])
    return sample_idx


def _count_up(samples: int) -> npt.NDArray[Any]:
    """Numbers 0 to samples - 1 in the type that v1.0 takes for them."""
    return np.arange(samples, dtype=np.uint32 if samples < np.iinfo(np.uint32).max - 1 else np.int64)


def open_order(
    sizes: npt.NDArray[np.int32], num_samples: int, seq_length: int, seed: int, cache_dir: Path
) -> DocumentOrder:
    """The order as maps of cached files, built on first use.

    The order depends on `num_samples` only through the number of epochs, so that stands in the cache's key,
    with seq_length, seed and all sizes. Every opening reads the files through against their hashes; a
    damaged cache is built anew. Processes that build at the same time do the work twice, with the same result.

    Building takes about 16 bytes of memory a document and epoch and 12 a sample.

    Args:
        sizes: int32 [documents], tokens in each.
        num_samples: samples needed, at least 1 (see `samples_to_request`).
        seq_length: targets of a sample.
        seed: of both shuffles.
        cache_dir: the files come into its folder "orders".

    Raises:
        UserError: no tokens at all, or nonsensical numbers.
    """
    _refuse_impossible(sizes, num_samples, seq_length)
    epochs = count_epochs(int(sizes.sum(dtype=np.int64)), num_samples, seq_length)
    key = {
        "format": _FORMAT,
        "documents": len(sizes),
        "sha256_of_sizes": hash_sizes(sizes),
        "epochs": epochs,
        "seq_length": seq_length,
        "seed": seed,
    }
    folder = cache_dir / "orders" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    if not _is_whole(folder, key):
        log.info("ordering %d documents, %d epochs, in rows of %d + 1 tokens", len(sizes), epochs, seq_length)
        _store(build_order(sizes, epochs, seq_length, seed), folder, key)
    return DocumentOrder(**{name: np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in _ARRAYS})


def hash_sizes(sizes: npt.NDArray[np.int32]) -> str:
    """SHA-256 of the sizes as little-endian int32."""
    return hashlib.sha256(np.ascontiguousarray(sizes, dtype="<i4").data).hexdigest()


def _refuse_impossible(sizes: npt.NDArray[np.int32], num_samples: int, seq_length: int) -> None:
    if num_samples < 1 or seq_length < 1:
        raise UserError(
            f"{num_samples} rows of {seq_length} + 1 tokens cannot be ordered; both numbers must be positive"
        )
    if not sizes.any():
        raise UserError(f"{len(sizes)} documents hold no tokens to train on; give other data")


def _store(order: DocumentOrder, folder: Path, key: dict[str, Any]) -> None:
    """Write the three files and then order.json, which vouches for them; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        for name in _ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(order, name))
        hashes = {name: sha256_of(temporary / f"{name}.npy") for name in _ARRAYS}
        (temporary / "order.json").write_text(json.dumps({"key": key, "sha256": hashes}))
        for name in (*(f"{name}.npy" for name in _ARRAYS), "order.json"):
            (temporary / name).replace(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path, key: dict[str, Any]) -> bool:
    if not (folder / "order.json").exists():
        return False
    try:
        index = json.loads((folder / "order.json").read_text())
        whole = index == {"key": key, "sha256": {name: sha256_of(folder / f"{name}.npy") for name in _ARRAYS}}
    except (OSError, ValueError):
        whole = False
    if not whole:
        log.warning("%s: the cached training order is damaged and is built anew", folder)
    return whole


class DocumentRows:
    """Rows of tokens from a Megatron file, in the order in which GPT-NeoX v1.0 trains on it.

    Row k is sample shuffle_idx[k]. There is one order over all epochs and no position beyond it. More epochs
    make another order from row 0 on, so every run that is to see the same rows must ask for a number of
    samples that gives the same number of epochs; Pythia's is the default. On a small file that default means
    thousands of epochs and an index of gigabytes: give `num_samples`.

    Two things differ from GPT2Dataset: its `__len__` is one less than the samples there are, and a position
    beyond them wraps around with a printed warning, where this refuses.

    Args:
        file: documents, an end-of-document token already in each.
        seq_length: targets per row.
        cache_dir: where the order is kept once built (see `open_order`).
        num_samples: rows requested; `samples_to_request(steps, batch_size)`.
        seed: of the order.

    Raises:
        UserError: no tokens at all, or nonsensical numbers.
    """

    def __init__(
        self,
        file: MegatronFile,
        seq_length: int,
        cache_dir: Path,
        num_samples: int = PYTHIA_SAMPLES,
        seed: int = PYTHIA_SEED,
    ) -> None:
        self.file = file
        self.seq_length = seq_length
        self.seed = seed
        self.order = open_order(file.sizes, num_samples, seq_length, seed, cache_dir)

    def __len__(self) -> int:
        return len(self.order.shuffle_idx)

    def row(self, k: int) -> npt.NDArray[np.int64]:
        """The k-th row of training, int64 [seq_length + 1].

        Raises:
            UserError: there is no row k.
        """
        out = np.empty(self.seq_length + 1, np.int64)
        self._read(k, out)
        return out

    def gather(self, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        """The rows at `positions`, int64 [len(positions), seq_length + 1]."""
        out = np.empty((len(positions), self.seq_length + 1), np.int64)
        for position, row in zip(positions, out, strict=True):
            self._read(position, row)
        return out

    def prefetch(self, positions: Sequence[int]) -> None:
        """Nothing to do: the rows lie in a local file, mapped into memory."""

    def _read(self, k: int, out: npt.NDArray[np.int64]) -> None:
        """Fill `out` [seq_length + 1] with row k, over as many documents as it takes."""
        if not 0 <= k < len(self):
            raise UserError(
                f"{self.file.prefix}: there is no row {k} in an order of {len(self)} rows; "
                f"train for fewer steps or request more samples"
            )
        place, offset = (int(number) for number in self.order.sample_idx[self.order.shuffle_idx[k]])
        filled = 0
        while filled < len(out):
            document = self.file[int(self.order.doc_idx[place])]
            part = document[offset : offset + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            place, offset = place + 1, 0

    def fingerprint(self) -> dict[str, Any]:
        """What identifies these rows: the documents' sizes, a hash of the first and last MiB, and the order."""
        raw = self.file.tokens.view(np.uint8)
        return {
            "tokens": int(self.file.sizes.sum(dtype=np.int64)),
            "documents": len(self.file),
            "row_length": self.seq_length + 1,
            "sha256_of_ends": sha256_of_ends(len(raw), lambda start, stop: raw[start:stop].tobytes()),
            "sha256_of_sizes": hash_sizes(self.file.sizes),
            "epochs": len(self.order.doc_idx) // len(self.file),
            "order_seed": self.seed,
        }

"""Tokenise text files once, into a cached file of tokens."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from l2e.data.documents import read_documents
from l2e.errors import UserError

log = logging.getLogger("l2e.data")

_DOCUMENTS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """Raw little-endian tokens, an end-of-document token after each document."""

    path: Path
    dtype: str
    documents: int
    tokens: int


def tokenise(sources: Sequence[Path], tokenizer: PreTrainedTokenizerBase, cache_dir: Path) -> TokenFile:
    """Tokens of all documents of `sources`, in order; read from the cache when it holds them.

    The cache knows a source by path, size and time of change, and the tokenizer by its content. A new
    entry appears only when it is complete.

    Raises:
        UserError: no end-of-document token, or an unreadable source (see `read_documents`).
    """
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer {tokenizer.name_or_path} has no end-of-text token to put between documents")
    folder = cache_dir / "tokens" / _cache_key(sources, tokenizer)
    if not (folder / "index.json").exists():
        _write(sources, tokenizer, folder)
    index = json.loads((folder / "index.json").read_text())
    return TokenFile(path=folder / "tokens.bin", **index)


def _write(sources: Sequence[Path], tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    log.info("tokenising %s", ", ".join(str(source) for source in sources))
    dtype = "uint16" if len(tokenizer) <= 1 << 16 else "uint32"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        file = _write_tokens(sources, tokenizer, dtype, temporary / "tokens.bin")
        index = {key: value for key, value in asdict(file).items() if key != "path"}
        (temporary / "index.json").write_text(json.dumps(index))
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("%d documents, %d tokens", file.documents, file.tokens)


def _write_tokens(sources: Sequence[Path], tokenizer: PreTrainedTokenizerBase, dtype: str, path: Path) -> TokenFile:
    documents = tokens = 0
    with path.open("wb") as out:
        for ids in _encode(chain.from_iterable(read_documents(source) for source in sources), tokenizer):
            out.write(np.asarray([*ids, tokenizer.eos_token_id], dtype=np.dtype(dtype).newbyteorder("<")).tobytes())
            documents += 1
            tokens += len(ids) + 1
    return TokenFile(path=path, dtype=dtype, documents=documents, tokens=tokens)


def _encode(documents: Iterator[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Token ids of each document. The backend works in parallel and, unlike the wrapper, warns of no length."""
    backend = tokenizer.backend_tokenizer
    while group := list(islice(documents, _DOCUMENTS_AT_ONCE)):
        for encoding in backend.encode_batch_fast(group, add_special_tokens=False):
            yield encoding.ids


def _cache_key(sources: Sequence[Path], tokenizer: PreTrainedTokenizerBase) -> str:
    stats = [(str(source.resolve()), source.stat().st_size, source.stat().st_mtime_ns) for source in sources]
    backend = tokenizer.backend_tokenizer.to_str()
    identity = json.dumps([stats, hashlib.sha256(backend.encode()).hexdigest(), tokenizer.eos_token_id])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]

"""Documents to tokens, on several cores."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

_DOCUMENTS_AT_ONCE = 64
_CHARACTERS_AT_ONCE = 1 << 18  # of such documents, so that long ones are spread over the threads too

Tokens = npt.NDArray[np.int32]


def encode(documents: Iterator[str], tokenizer: Tokenizer, end: int, workers: int | None = None) -> Iterator[Tokens]:
    """Tokens of each document with `end` after them, in order: int32 [tokens].

    Threads, since the tokenizer lets go of Python's lock: about 95% of the 16 s of processor time that 36 MB of
    the Pile take are its own. On two busy cores processes (spawned, idle before the clock) were no faster: 268,000
    tokens/s against 313,000 in the best of five alternating rounds, and they would import everything once more.

    Args:
        documents: read on the caller's thread, a few batches ahead.
        tokenizer: as transformers' `backend_tokenizer`; its own truncation and padding are switched off.
        end: token that ends a document.
        workers: threads; None: as many as this process has CPUs.
    """
    backend = _whole_documents(tokenizer)
    workers = workers or available_cpus()
    waiting: deque[Future[list[Tokens]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tokenise")
    try:
        for batch in _batches(documents):
            waiting.append(pool.submit(_encode_batch, batch, backend, end))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _whole_documents(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, or a copy of it without truncation and padding."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in documents:
        batch.append(text)
        characters += len(text)
        if len(batch) == _DOCUMENTS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode_batch(batch: list[str], backend: Tokenizer, end: int) -> list[Tokens]:
    # One document a call keeps the library's own threads out of it; the fast call saves a fifth by leaving out
    # the offsets.
    return [
        np.array([*backend.encode_batch_fast([text], add_special_tokens=False)[0].ids, end], np.int32) for text in batch
    ]

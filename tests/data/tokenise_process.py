"""Tokenising in a process of its own, slowly enough to be killed in the middle."""

import multiprocessing
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text_folders import letter_tokenizer

from l2e.data import megatron_files, tokenise
from l2e.data.packed_files import Reading
from l2e.data.sources import FileSource, Source

PIECE = 600  # tokens


@dataclass(frozen=True)
class SlowSource:
    """`source` with a pause before each document."""

    source: Source
    pause: float

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def size(self) -> int | None:
        return self.source.size

    def identity(self) -> Any:
        return self.source.identity()

    def documents(self, reading: Reading) -> Iterator[str]:
        for text in self.source.documents(reading):
            time.sleep(self.pause)
            yield text


def open_cache(path: Path, cache_dir: Path, pause: float = 0.0, workers: int = 1) -> tokenise.TokenCache:
    source = SlowSource(FileSource(name="text", paths=[path], kinds=["jsonl"]), pause)
    return tokenise.TokenCache([source], letter_tokenizer(), cache_dir, workers)


def work(path: Path, cache_dir: Path, pause: float, pause_of_join: float, start: Any) -> None:
    """Tokenise in small pieces; what a child process does."""
    tokenise._PIECE_TOKENS = PIECE
    copy = shutil.copyfileobj

    def slow_copy(*arguments: Any) -> None:
        copy(*arguments)
        time.sleep(pause_of_join)

    megatron_files.shutil.copyfileobj = slow_copy  # type: ignore[attr-defined]
    if start is not None:
        start.wait(timeout=120)
    open_cache(path, cache_dir, pause).open()


def context() -> Any:
    """Processes that are forked from one without threads, which has imported everything once."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["l2e.data.tokenise"])
    return forkserver


def start_work(path: Path, cache_dir: Path, pause: float, pause_of_join: float = 0.0, start: Any = None) -> Any:
    process = context().Process(target=work, args=(path, cache_dir, pause, pause_of_join, start))
    process.start()
    return process

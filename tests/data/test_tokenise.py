"""Documents to a Megatron .idx/.bin: the bytes, the pieces, kills and companions."""

import json
import logging
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_folders import letter_tokenizer, letter_tokens, write_lines
from tokenise_process import PIECE, context, open_cache, start_work

from l2e.data import encode, tokenise
from l2e.data.megatron_files import MegatronFile
from l2e.data.packed_files import Reading
from l2e.data.sources import FileSource
from l2e.data.tokenise import TokenCache, token_dtype
from l2e.data.tokenise_progress import TokeniseProgress
from l2e.errors import UserError

random_numbers = random.Random(0)
DOCUMENTS = ["".join(random_numbers.choices("abcdefgh", k=random_numbers.randrange(60))) for _ in range(400)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "text.jsonl", DOCUMENTS)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that were given to the tokenizer."""
    seen: list[str] = []
    original = encode._encode_batch

    def counting(batch: list[str], *rest: Any) -> Any:
        seen.extend(batch)
        return original(batch, *rest)

    monkeypatch.setattr(encode, "_encode_batch", counting)
    return seen


def contents(cache: TokenCache) -> tuple[bytes, bytes]:
    return (cache.folder / "tokens.idx").read_bytes(), (cache.folder / "tokens.bin").read_bytes()


def read_by_hand(cache: TokenCache) -> list[list[int]]:
    """The format's table (pythia.md D.5), without the package's reader."""
    index, raw = contents(cache)
    magic, version, code, sequences, borders = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, borders) == (b"MMIDIDX\0\0", 1, sequences + 1)
    assert len(index) == 34 + 12 * sequences + 8 * borders
    dtype = {8: np.dtype("<u2"), 4: np.dtype("<i4")}[code]
    sizes = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    np.testing.assert_array_equal(np.frombuffer(index, "<i8", borders, 34 + 12 * sequences), np.arange(borders))
    return [np.frombuffer(raw, dtype, s, p).tolist() for s, p in zip(sizes, pointers, strict=True)]


def leftovers(cache: TokenCache) -> list[str]:
    return [entry.name for entry in cache.folder.parent.iterdir() if entry != cache.folder]


def test_the_files_are_megatrons(path: Path, tmp_path: Path) -> None:
    cache = open_cache(path, tmp_path / "cache")
    file = cache.open()
    expected = [letter_tokens([text]) for text in DOCUMENTS]
    assert read_by_hand(cache) == expected
    assert [document.tolist() for document in file] == expected
    about = json.loads((cache.folder / "about.json").read_text())
    assert about["documents"] == 400
    assert about["tokens"] == len(letter_tokens(DOCUMENTS))
    assert leftovers(cache) == []


@pytest.mark.parametrize(("filler", "dtype", "code"), [(65_490, "uint16", 8), (65_491, "int32", 4)])
def test_large_vocabularies_take_int32_as_gpt_neox_does(tmp_path: Path, filler: int, dtype: str, code: int) -> None:
    last = chr(0x20000 + filler - 1)
    source = FileSource(name="text", paths=[write_lines(tmp_path / "text.jsonl", ["ab" + last])], kinds=["jsonl"])
    tokenizer = letter_tokenizer(filler=filler)
    assert len(tokenizer) == 9 + filler
    cache = TokenCache([source], tokenizer, tmp_path / "cache")
    assert cache.open().dtype.name == dtype
    assert read_by_hand(cache) == [[1, 2, 8 + filler, 0]]
    assert contents(cache)[0][17] == code


def test_the_type_follows_gpt_neox() -> None:
    assert [token_dtype(size) for size in (768, 50_277, 65_499, 65_500, 151_643)] == ["uint16"] * 3 + ["int32"] * 2


@pytest.mark.parametrize("pieces", [37, 10**9])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_and_pieces_leave_no_trace(
    path: Path, tmp_path: Path, workers: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenise, "_PIECE_TOKENS", pieces)
    monkeypatch.setattr(encode, "_DOCUMENTS_AT_ONCE", 7)
    monkeypatch.setattr(encode, "_CHARACTERS_AT_ONCE", 150)
    cache = open_cache(path, tmp_path / "cache", workers=workers)
    cache.open()
    assert read_by_hand(cache) == [letter_tokens([text]) for text in DOCUMENTS]
    assert leftovers(cache) == []


def test_the_tokenizers_own_truncation_and_padding_are_left_out(path: Path, tmp_path: Path) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=80)
    source = FileSource(name="text", paths=[path], kinds=["jsonl"])
    cache = TokenCache([source], tokenizer, tmp_path / "cache")
    cache.open()
    assert read_by_hand(cache) == [letter_tokens([text]) for text in DOCUMENTS]
    assert tokenizer.backend_tokenizer.truncation is not None  # the caller's own is as it was


def whole_pieces(cache: TokenCache) -> dict[str, tuple[int, int]]:
    """Name, inode and time of change of every piece that has its final name."""
    found = {}
    for folder in cache.pieces.glob("[0-9]*"):
        stat = (folder / "tokens.bin").stat()
        found[folder.name] = (stat.st_ino, stat.st_mtime_ns)
    return found


def kill_when(process: Any, reached: Callable[[], bool]) -> None:
    """SIGKILL once `reached` says so."""
    try:
        while not reached():
            assert process.is_alive(), "it ended before it could be killed"
            time.sleep(0.001)
    finally:
        process.kill()
        process.join()


def test_a_killed_process_is_continued(path: Path, tmp_path: Path, encoded: list[str]) -> None:
    """Killed at four random moments and once while joining; whole pieces are neither lost nor made again."""
    cache = open_cache(path, tmp_path / "cache")
    moments = random.Random(int.from_bytes(path.name.encode()[:4]))
    before: dict[str, tuple[int, int]] = {}
    for _ in range(4):
        wanted = len(before) + moments.randrange(1, 4)
        process = start_work(path, tmp_path / "cache", pause=0.002)
        kill_when(process, lambda wanted=wanted: len(whole_pieces(cache)) >= wanted)
        now = whole_pieces(cache)
        assert before.items() <= now.items()
        assert not cache.folder.exists()
        pieces = [MegatronFile(cache.pieces / name / "tokens") for name in sorted(now)]
        assert all(PIECE <= len(piece.tokens) < PIECE + 61 for piece in pieces)  # so little is lost
        stream = [token for piece in pieces for token in piece.tokens.tolist()]
        assert stream == letter_tokens(DOCUMENTS[: sum(map(len, pieces))])
        before = now
    process = start_work(path, tmp_path / "cache", pause=0.0, pause_of_join=0.2)
    kill_when(process, lambda: any(cache.pieces.glob(".new-*/tokens.bin")) and len(whole_pieces(cache)) >= 19)
    now = whole_pieces(cache)
    assert before.items() <= now.items()
    left = 400 - sum(len(MegatronFile(cache.pieces / name / "tokens")) for name in now)
    cache.open()
    assert len(encoded) == left
    undisturbed = open_cache(path, tmp_path / "undisturbed")
    undisturbed.open()
    assert contents(cache) == contents(undisturbed)
    assert leftovers(cache) == []


@pytest.mark.parametrize("pauses", [(0.002, 0.002, 0.002), (0.0005, 0.004)])
def test_processes_that_do_the_same_work_at_once_all_succeed(
    path: Path, tmp_path: Path, pauses: tuple[float, ...]
) -> None:
    cache = open_cache(path, tmp_path / "cache")
    start = context().Barrier(len(pauses))
    processes = [start_work(path, tmp_path / "cache", pause, 0.01, start) for pause in pauses]
    for process in processes:
        process.join(timeout=300)
        assert process.exitcode == 0
    assert read_by_hand(cache) == [letter_tokens([text]) for text in DOCUMENTS]
    assert leftovers(cache) == []


def test_whoever_is_late_uses_what_is_there(path: Path, tmp_path: Path, encoded: list[str]) -> None:
    """A companion finishes, and clears its pieces away, at each of this process's steps in turn."""
    for step in (
        "_write_pieces",
        "_join",
        "_whole_pieces",
        "encode",
        "join_megatron",
        "write_megatron",
        "MegatronFile",
    ):
        cache = open_cache(path, tmp_path / step)
        with pytest.MonkeyPatch.context() as patch:
            owner = cache if step.startswith("_") else tokenise
            original = getattr(owner, step)

            def overtaken(*arguments: Any, original: Any = original, owner: Any = owner, step: str = step) -> Any:
                patch.setattr(owner, step, original)  # for the companion
                open_cache(path, tmp_path / step).open()
                return original(*arguments)

            patch.setattr(owner, step, overtaken)
            cache.open()
        assert read_by_hand(cache) == [letter_tokens([text]) for text in DOCUMENTS]
        assert leftovers(cache) == []


def test_a_full_disk_loses_no_piece(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    monkeypatch.setattr(tokenise, "_PIECE_TOKENS", PIECE)
    cache = open_cache(path, tmp_path / "cache")
    write = tokenise.write_megatron

    def fill_the_disk(prefix: Path, documents: Any, dtype: str) -> Any:
        if len(whole_pieces(cache)) == 3:
            raise OSError(28, "No space left on device")
        return write(prefix, documents, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(tokenise, "write_megatron", fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            cache.open()
    done = sum(len(MegatronFile(cache.pieces / name / "tokens")) for name in whole_pieces(cache))
    assert len(whole_pieces(cache)) == 3
    encoded.clear()
    cache.open()
    assert len(encoded) == 400 - done
    assert read_by_hand(cache) == [letter_tokens([text]) for text in DOCUMENTS]


def test_a_bad_document_far_inside_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenise, "_PIECE_TOKENS", PIECE)
    monkeypatch.setattr(encode, "_DOCUMENTS_AT_ONCE", 5)
    path = write_lines(tmp_path / "text.jsonl", DOCUMENTS)
    with path.open("a") as file:
        file.write('{"txt": "a"}\n')
    cache = open_cache(path, tmp_path / "cache")
    with pytest.raises(UserError, match=r"text\.jsonl, line 401: no string"):
        cache.open()
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def test_a_damaged_cache_is_named(path: Path, tmp_path: Path) -> None:
    cache = open_cache(path, tmp_path / "cache")
    cache.open()
    raw = (cache.folder / "tokens.bin").read_bytes()
    (cache.folder / "tokens.bin").write_bytes(raw[:-2])
    with pytest.raises(UserError, match=rf"delete {cache.folder} and it is made again"):
        cache.open()


def test_nothing_is_read_once_it_is_cached(path: Path, tmp_path: Path, encoded: list[str]) -> None:
    open_cache(path, tmp_path / "cache").open()
    assert len(encoded) == 400
    open_cache(path, tmp_path / "cache").open()
    assert len(encoded) == 400
    other = letter_tokenizer(filler=1)
    TokenCache([FileSource(name="text", paths=[path], kinds=["jsonl"])], other, tmp_path / "cache").open()
    assert len(encoded) == 800


def test_progress_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 bytes 200 were skipped; 400 more took 60 s, so 400 are left for another minute."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    reading = Reading(done=200, total=1000)
    progress = TokeniseProgress(reading)
    progress.count(0)
    reading.done = 600
    for _ in range(3):
        progress.count(2000)
    assert progress.line(progress._started + 60) == "60%, 4 documents, 100 tokens/s, 1 min left"
    reading.total = None
    assert progress.line(progress._started + 60) == "4 documents, 100 tokens/s"
    monkeypatch.setattr("l2e.data.tokenise_progress._SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "l2e.data"):
        progress.count(1)
    assert "5 documents" in caplog.text

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from text_folders import write_text
from transformers import AutoTokenizer

from l2e.data import PackedRows, ShuffledRows, StepLoader, TextDataConfig, open_corpus, rows_for_step
from l2e.data.documents import read_documents
from l2e.errors import UserError


def config(folder: Path, **more: object) -> TextDataConfig:
    return TextDataConfig(kind="text", path=str(folder), **{"validation": None, "seed": 7, **more})  # type: ignore[arg-type]


def open_text(folder: Path, cache: Path, seq_length: int = 4, **more: object):
    return open_corpus(config(folder, **more), seq_length=seq_length, vocab_size=16, cache_dir=cache)


def test_documents_are_packed_with_an_end_token_after_each(tmp_path: Path) -> None:
    corpus = open_text(write_text(tmp_path / "text", ["abc", "de", "fgh"]), tmp_path / "cache")
    # Stream: a b c 0 d e 0 f g h 0. Rows of 4 targets share one token with their neighbour.
    rows = corpus.train.rows
    assert [rows[i].tolist() for i in range(len(rows))] == [[1, 2, 3, 0, 4], [4, 5, 0, 6, 7]]
    with pytest.raises(IndexError):
        rows[2]


def test_each_epoch_is_a_permutation_of_its_own_and_follows_from_the_seed(tmp_path: Path) -> None:
    tokens = np.arange(41, dtype="<u2")
    tokens.tofile(tmp_path / "tokens.bin")
    rows = PackedRows(tmp_path / "tokens.bin", "uint16", 4)
    one, same, other = (ShuffledRows(rows, seed) for seed in (1, 1, 2))
    epochs = [[one.row_at(p) for p in range(10 * e, 10 * e + 10)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [same.row_at(p) for p in reversed(range(30))] == [r for e in reversed(epochs) for r in reversed(e)]
    assert [other.row_at(p) for p in range(10)] != epochs[0]


def test_rows_for_step() -> None:
    assert rows_for_step(0, 1024) == range(1024)
    assert rows_for_step(7, 1024) == range(7168, 8192)


@pytest.mark.parametrize(("micro", "ranks"), [(8, 1), (4, 1), (1, 1), (4, 2), (2, 2), (1, 4), (2, 4)])
def test_an_update_is_the_same_rows_for_every_split(tmp_path: Path, micro: int, ranks: int) -> None:
    np.arange(401, dtype="<u2").tofile(tmp_path / "tokens.bin")
    rows = ShuffledRows(PackedRows(tmp_path / "tokens.bin", "uint16", 4), 3)
    for step in (0, 5, 30):
        parts = [list(StepLoader(rows, 8, micro, rank, ranks).micro_batches(step)) for rank in range(ranks)]
        dealt = np.concatenate([part[i].numpy() for i in range(len(parts[0])) for part in parts])
        assert dealt.tolist() == rows.gather(range(8 * step, 8 * step + 8)).tolist()


def test_loader_refuses_an_uneven_split(tmp_path: Path) -> None:
    np.arange(401, dtype="<u2").tofile(tmp_path / "tokens.bin")
    with pytest.raises(ValueError, match="does not divide"):
        StepLoader(ShuffledRows(PackedRows(tmp_path / "tokens.bin", "uint16", 4), 3), 8, 3, 0, 1)


def test_tokens_are_cached_and_made_anew_for_a_changed_source(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["abcdefgh"])
    open_text(folder, tmp_path / "cache")
    (cached,) = (tmp_path / "cache" / "tokens").iterdir()
    before = (cached / "tokens.bin").stat().st_mtime_ns
    open_text(folder, tmp_path / "cache")
    assert (cached / "tokens.bin").stat().st_mtime_ns == before
    write_text(folder, ["hgfedcba", "a"])
    rows = open_text(folder, tmp_path / "cache").train.rows
    assert rows[0].tolist() == [8, 7, 6, 5, 4]
    assert not list((tmp_path / "cache" / "tokens").glob(".*"))  # no temporary left behind


def test_the_fingerprint_tells_data_and_order_apart(tmp_path: Path) -> None:
    first = open_text(write_text(tmp_path / "a", ["abcdefgh"]), tmp_path / "cache").fingerprint()
    same = open_text(write_text(tmp_path / "b", ["abcdefgh"]), tmp_path / "cache").fingerprint()
    assert first == same
    assert first != open_text(tmp_path / "a", tmp_path / "cache", seed=8).fingerprint()
    assert first != open_text(tmp_path / "a", tmp_path / "cache", seq_length=3).fingerprint()
    other = open_text(write_text(tmp_path / "c", ["abcdefga"]), tmp_path / "cache").fingerprint()
    assert first["sha256_of_ends"] != other["sha256_of_ends"]


def test_zstandard_of_several_frames_reads_as_one(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) + "\n" for text in ("äb" * 1000, "c", "d")]
    raw = "".join(lines).encode()
    path = tmp_path / "text.jsonl.zst"
    pack = zstandard.ZstdCompressor().compress
    path.write_bytes(pack(raw[:1501]) + pack(raw[1501:1502]) + pack(raw[1502:]))
    assert list(read_documents(path)) == ["äb" * 1000, "c", "d"]


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_zstandard_file_is_refused(tmp_path: Path, share: float) -> None:
    random = np.random.default_rng(0).integers(0, 1 << 30, 20_000)
    raw = "".join(json.dumps({"text": str(number)}) + "\n" for number in random).encode()
    packed = zstandard.ZstdCompressor().compress(raw)
    path = tmp_path / "text.jsonl.zst"
    path.write_bytes(packed[: int(len(packed) * share)])
    with pytest.raises(UserError, match="truncated"):
        list(read_documents(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"txt": "b"}\n', r"line 2: no string under \"text\""),
        (b'{"text": 5}\n', r"line 1: no string under \"text\""),
        (b'["a"]\n', "line 1: no string"),
        (b'{"text": "a"\n', "line 1: not JSON"),
        (b'{"text": "\xff"}\n', "not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "text.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_documents(tmp_path / "text.jsonl"))


def test_something_else_called_zst_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl.zst").write_bytes(b'{"text": "a"}\n')
    with pytest.raises(UserError, match="not readable as zstandard"):
        list(read_documents(tmp_path / "text.jsonl.zst"))


def test_missing_and_impossible_data_is_refused_and_nothing_cached(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["ab"])
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=r"there is no folder .*/nowhere"):
        open_text(tmp_path / "nowhere", cache)
    with pytest.raises(UserError, match=r"data\.train: there is no file .*other\.jsonl"):
        open_text(folder, cache, train="other.jsonl")
    with pytest.raises(UserError, match=r"data\.validation: there is no file"):
        open_text(folder, cache, validation="validation.jsonl")
    with pytest.raises(UserError, match=r"3 tokens do not fill one row of 5"):
        open_text(folder, cache)
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        open_text(folder, cache, tokenizer="elsewhere")
    with pytest.raises(UserError, match=r"9 tokens, the model's embedding only 8 rows; set model\.vocab_size"):
        open_corpus(config(folder), seq_length=2, vocab_size=8, cache_dir=cache)
    (folder / "bad.jsonl").write_text('{"text": "abc"}\n{}\n')
    with pytest.raises(UserError, match="line 2"):
        open_text(folder, tmp_path / "empty", train="bad.jsonl")
    assert not list((tmp_path / "empty" / "tokens").iterdir())


def test_the_real_sample_tokenises_to_the_counted_tokens(tmp_path: Path, real_data: Path) -> None:
    """data/README.md counts 223,561 tokens in the 219 validation documents, without end tokens."""
    settings = TextDataConfig(
        kind="text", path=str(real_data), train="pile_sample/val.jsonl.zst", validation=None, tokenizer="tokenizer"
    )
    corpus = open_corpus(settings, seq_length=2048, vocab_size=50304, cache_dir=tmp_path)
    assert corpus.train.rows.fingerprint()["tokens"] == 223_561 + 219
    first = next(read_documents(real_data / "pile_sample" / "val.jsonl.zst"))
    tokenizer = AutoTokenizer.from_pretrained(real_data / "tokenizer")
    assert tokenizer.decode(corpus.train.rows.tokens[:20].tolist()) == tokenizer.decode(tokenizer(first).input_ids[:20])

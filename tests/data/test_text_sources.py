"""The same documents from every format, and every bad input refused before anything is kept."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from text_folders import letter_tokenizer, letter_tokens, write_lines, write_text

from l2e.data import TextDataConfig, open_corpus
from l2e.data.documents import kind_of, read_documents
from l2e.data.packed_files import Reading
from l2e.errors import UserError
from l2e.settings import build_settings

DOCUMENTS = ["abc", "de", "fgh", "abcdefgh", "hh", "a"]


@pytest.fixture(autouse=True)
def own_dataset_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def settings(folder: Path, train: Any, **more: Any) -> TextDataConfig:
    return build_settings(
        TextDataConfig, {"kind": "text", "path": str(folder), "validation": None, "train": train, **more}, "data"
    )


def open_text(folder: Path, train: Any, cache: Path, seq_length: int = 2, **more: Any):
    return open_corpus(settings(folder, train, **more), seq_length=seq_length, vocab_size=16, cache_dir=cache)


def stream(corpus: Any) -> list[int]:
    return corpus.train.rows.tokens.tolist()


def lines(documents: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({"n": 1, field: text}) + "\n" for text in documents).encode()


def write_parquet(path: Path, texts: list[Any], field: str = "text", **more: Any) -> None:
    pq.write_table(pa.table({"n": range(len(texts)), field: texts}), path, **more)


def write_files(folder: Path, _field: str) -> str:
    for number, text in enumerate(DOCUMENTS):
        (folder / f"part-{number}.txt").write_text(text)
    return "part-*.txt"


def write_packed(name: str, pack: Callable[[bytes], bytes]) -> Callable[[Path, str], str]:
    def write(folder: Path, field: str) -> str:
        (folder / name).write_bytes(pack(lines(DOCUMENTS, field)))
        return name

    return write


def write_table(folder: Path, field: str) -> str:
    write_parquet(folder / "rows.parquet", DOCUMENTS, field, row_group_size=4)
    return "rows.parquet"


def write_two_formats(folder: Path, field: str) -> str:
    write_parquet(folder / "mixed-0.parquet", DOCUMENTS[:2], field)
    (folder / "mixed-1.jsonl.gz").write_bytes(gzip.compress(lines(DOCUMENTS[2:], field)))
    return "mixed-*"


def write_saved(folder: Path, field: str) -> str:
    datasets.Dataset.from_dict({field: DOCUMENTS}).save_to_disk(folder / "saved")
    return "saved"


def write_split(folder: Path, field: str) -> dict[str, Any]:
    whole = datasets.Dataset.from_dict({field: DOCUMENTS})
    datasets.DatasetDict({"train": whole, "other": whole.select([])}).save_to_disk(folder / "saved")
    return {"source": "saved"}


def write_folder(streaming: bool) -> Callable[[Path, str], dict[str, Any]]:
    def write(folder: Path, field: str) -> dict[str, Any]:
        (folder / "repository").mkdir()
        (folder / "repository" / "train.jsonl").write_bytes(lines(DOCUMENTS, field))
        return {"source": "repository", "kind": "hf", "streaming": streaming}

    return write


FORMATS = {
    "jsonl": write_packed("rows.jsonl", bytes),
    "json": write_packed("rows.json", bytes),
    "zst": write_packed("rows.jsonl.zst", zstandard.ZstdCompressor().compress),
    "gz": write_packed("rows.json.gz", gzip.compress),
    "gz of two members": write_packed("rows.jsonl.gz", lambda raw: gzip.compress(raw[:50]) + gzip.compress(raw[50:])),
    "parquet": write_table,
    "parquet and gz": write_two_formats,
    "txt": write_files,
    "saved dataset": write_saved,
    "saved splits": write_split,
    "dataset": write_folder(False),
    "streamed dataset": write_folder(True),
}


@pytest.mark.parametrize("field", ["text", "content"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_tokens(tmp_path: Path, name: str, field: str) -> None:
    folder = write_text(tmp_path / "text", ["a"])
    train = FORMATS[name](folder, field)
    corpus = open_text(folder, train, tmp_path / "cache", text_field=field)
    assert stream(corpus) == letter_tokens(DOCUMENTS)
    again = open_text(folder, train, tmp_path / "cache", text_field=field)
    assert again.train.rows.path == corpus.train.rows.path  # from the cache: identities do not change by themselves


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_documents_alone(tmp_path: Path, name: str) -> None:
    folder = write_text(tmp_path / "text", ["a"])
    train = FORMATS[name](folder, "text")
    entry = {"source": train} if isinstance(train, str) else train
    corpus = open_text(folder, {**entry, "max_documents": 3}, tmp_path / "cache")
    assert stream(corpus) == letter_tokens(DOCUMENTS[:3])
    whole = open_text(folder, train, tmp_path / "cache")
    assert stream(whole) == letter_tokens(DOCUMENTS)


def test_validation_takes_every_kind_of_source_too(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["abc"])
    write_parquet(folder / "held_out.parquet", DOCUMENTS)
    held_out = [{"source": "held_out.parquet", "max_documents": 2}, "train.jsonl"]
    corpus = open_text(folder, "train.jsonl", tmp_path / "cache", validation=held_out)
    assert corpus.validation is not None
    assert corpus.validation.tokens.tolist() == letter_tokens(["abc", "de", "abc"])


def test_a_source_has_its_own_field_and_a_stated_kind(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["a"])
    (folder / "rows").write_bytes(lines(["abc"], "body"))
    train = [{"source": "rows", "kind": "jsonl", "text_field": "body"}]
    assert stream(open_text(folder, train, tmp_path / "cache")) == letter_tokens(["abc"])


def test_names_alone_are_one_corpus_in_the_order_given(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["a"])
    for number in (2, 0, 1):
        write_lines(folder / f"part-{number}.jsonl", ["abcdefgh"[number] * 3])
    assert stream(open_text(folder, "part-*.jsonl", tmp_path / "cache")) == letter_tokens(["aaa", "bbb", "ccc"])
    named = ["part-2.jsonl", "part-0.jsonl"]
    assert stream(open_text(folder, named, tmp_path / "cache")) == letter_tokens(["ccc", "aaa"])


def test_a_changed_file_of_a_streamed_folder_is_read_anew(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["a"])
    train = FORMATS["streamed dataset"](folder, "text")
    open_text(folder, train, tmp_path / "cache")
    (folder / "repository" / "train.jsonl").write_bytes(lines(["hhhh"]))
    assert stream(open_text(folder, train, tmp_path / "cache")) == letter_tokens(["hhhh"])


def test_a_reader_tells_how_far_it_is(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", ["abc"] * 1000)
    (tmp_path / "rows.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines(["abc"] * 1000)))
    reading = Reading()
    for path in (tmp_path / "rows.parquet", tmp_path / "rows.jsonl.zst"):
        before = reading.done
        assert len(list(read_documents(path, kind_of(path), reading=reading))) == 1000
        assert reading.done - before == path.stat().st_size


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda raw: raw[: int(len(raw) * share)]


def parquet_bytes(folder: Path, texts: list[Any]) -> bytes:
    write_parquet(folder / "whole", texts)
    return (folder / "whole").read_bytes()


LONG = [f"{number:x}" * 40 for number in range(3000)]
ZST, GZ = zstandard.ZstdCompressor().compress, gzip.compress


def bad_inputs() -> Iterator[tuple[str, Callable[[Path], bytes], str]]:
    """Name of the file, its content, and what is said of it."""
    good = lines(["abc"])
    for share in (0.4, 0.99):
        yield "x.jsonl.zst", lambda _, s=share: cut(s)(ZST(lines(LONG))), "x.jsonl.zst: the file is truncated"
        yield "x.jsonl.gz", lambda _, s=share: cut(s)(GZ(lines(LONG))), "x.jsonl.gz: the file is truncated"
        yield "x.parquet", lambda f, s=share: cut(s)(parquet_bytes(f, LONG)), "x.parquet: not readable as parquet"
    yield "x.jsonl.gz", lambda _: good, "x.jsonl.gz: not readable as gzip"
    yield "x.jsonl.zst", lambda _: good, "x.jsonl.zst: not readable as zstandard"
    yield "x.jsonl.gz", lambda _: GZ(good)[:-8] + b"\0" * 8, "x.jsonl.gz: not readable as gzip (CRC check failed"
    yield "x.parquet", lambda _: good, "x.parquet: not readable as parquet"
    yield "x.parquet", lambda _: b"", "x.parquet: not readable as parquet"
    yield "x.jsonl", lambda _: good + lines(["d"], "body"), 'x.jsonl, line 2: no string under "text"; data.text_field'
    yield "x.jsonl", lambda _: good + b'{"text": null}\n', 'x.jsonl, line 2: no string under "text"'
    yield "x.jsonl", lambda _: good + b"\n{]\n", "x.jsonl, line 3: not JSON"
    yield "x.jsonl", lambda _: good + b'{"text": "\\ud800"}\n', "x.jsonl, line 2: half a surrogate pair at character 0"
    yield "x.jsonl", lambda _: good + b'{"n": ' + b"1" * 5000 + b"}\n", "x.jsonl, line 2: not JSON (Exceeds the limit"
    yield "x.parquet", lambda f: parquet_bytes(f, ["a", None]), 'x.parquet, row 2: no string under "text"'
    yield "x.parquet", lambda f: parquet_bytes(f, [1, 2]), "x.parquet: column 'text' holds int64, not strings"
    yield "x.txt", lambda _: b"abc\xff", "x.txt: not UTF-8 text (byte 3"
    yield "x.jsonl", lambda _: b"", "x.jsonl: there are no documents in it"
    yield "x.jsonl", lambda _: b"\n \n", "x.jsonl: there are no documents in it"
    yield "x.parquet", lambda f: parquet_bytes(f, pa.array([], pa.string())), "x.parquet: there are no documents in it"
    yield "x.csv", lambda _: b"text\nabc\n", "data.train: "
    yield "x.csv", lambda _: b"text\nabc\n", "x.csv: unknown ending; known are .jsonl, .json"
    yield "x.parquet.gz", lambda _: b"", "x.parquet.gz: unknown ending"


@pytest.mark.parametrize(("name", "content", "message"), list(bad_inputs()))
def test_a_bad_file_is_named_and_nothing_kept(
    tmp_path: Path, name: str, content: Callable[[Path], bytes], message: str
) -> None:
    folder = write_text(tmp_path / "text", ["abc"])
    (folder / name).write_bytes(content(tmp_path))
    refuse(folder, ["train.jsonl", name], tmp_path, message)  # even behind a good file


def refuse(folder: Path, train: Any, tmp_path: Path, message: str, **more: Any) -> None:
    with pytest.raises(UserError) as caught:
        open_text(folder, train, tmp_path / "cache", **more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    tokens = tmp_path / "cache" / "tokens"
    assert not tokens.exists() or not list(tokens.iterdir())


def damaged_stream(folder: Path) -> dict[str, Any]:
    (folder / "repository").mkdir()
    raw = parquet_bytes(folder, LONG)
    (folder / "repository" / "train.parquet").write_bytes(raw[: len(raw) // 2])
    return {"source": "repository", "kind": "hf"}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("none.jsonl", "data.train: there is no file"),
        ("none-*.jsonl", "data.train: no file matches"),
        ([], "data.train: no source is named"),
        ("tokenizer", "tokenizer is a folder; give a glob such as tokenizer/*.jsonl, or kind: hf"),
        ({"source": "train.jsonl", "streaming": True}, "data.train: subset, revision and streaming need kind: hf"),
        ({"source": "nobody/nothing", "kind": "hf"}, "data.train: dataset nobody/nothing (train) could not be opened"),
        ({"source": "saved", "split": "test"}, "unknown split test; there are train, other"),
        ({"source": "saved", "text_field": "body"}, "saved (train) has no column 'body' among text"),
        ({"source": "saved", "split": "other"}, "saved (other) could not be opened: there are no documents in it"),
        ({"source": "numbers"}, 'numbers (train), document 0: no string under "text"'),
        (["train.jsonl", {"source": "none.jsonl", "weight": 2}], "data.train: there is no file"),
    ],
)
def test_a_source_that_is_not_there_is_refused(tmp_path: Path, train: Any, message: str) -> None:
    folder = write_text(tmp_path / "text", ["abc"])
    write_split(folder, "text")
    datasets.Dataset.from_dict({"text": [1, 2]}).save_to_disk(folder / "numbers")
    refuse(folder, train, tmp_path, message)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_damaged_dataset_is_refused(tmp_path: Path, streaming: bool) -> None:
    folder = write_text(tmp_path / "text", ["abc"])
    train = {**damaged_stream(folder), "streaming": streaming}
    refuse(folder, ["train.jsonl", train], tmp_path, "data.train: dataset")


def test_no_source_is_tokenised_before_all_were_looked_at(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["abc"])
    (folder / "bad.jsonl").write_text("{}\n")
    refuse(folder, ["train.jsonl", {"source": "bad.jsonl"}], tmp_path, "bad.jsonl, line 1")
    refuse(folder, "train.jsonl", tmp_path, "bad.jsonl, line 1", validation="bad.jsonl")
    refuse(
        folder, "train.jsonl", tmp_path, "train.jsonl has a weight", validation={"source": "train.jsonl", "weight": 2}
    )


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["abc"])
    letter_tokenizer(end=None).save_pretrained(folder / "endless")
    refuse(folder, "train.jsonl", tmp_path, "endless has no end-of-text token", tokenizer="endless")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([{"source": "a", "weight": 0}], "data.train.0: weight of a must be a positive number, not 0.0"),
        ([{"source": "a", "weight": -1}], "data.train.0: weight of a must be a positive number, not -1.0"),
        ({"source": "a", "weight": float("inf")}, "data.train: weight of a must be a positive number, not inf"),
        ({"source": "a", "weight": float("nan")}, "data.train: weight of a must be a positive number, not nan"),
        ([{"source": "a", "weight": "2"}], 'data.train.0.weight: input should be a valid number, not "2"'),
        (["b", {"source": "a", "wieght": 2}], "data.train.1.wieght: unknown setting (did you mean weight?)"),
        ({"source": "a", "wieght": 2}, "data.train.wieght: unknown setting (did you mean weight?)"),
        ([{"weight": 2}], "data.train.0.source: a value is required"),
        ([{"source": "a", "kind": "csv"}], "data.train.0.kind: input should be 'auto', 'jsonl'"),
        ([{"source": "a", "max_documents": 0}], "data.train.0: max_documents of a must be at least 1"),
        ([{"source": "a", "kind": "text", "streaming": True}], "subset, revision and streaming need kind: hf"),
        (5, "data.train: input should be"),
        ([5], "data.train.0: input should be"),
    ],
)
def test_bad_settings_of_a_source_are_named(train: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(Path("/nowhere"), train)
    assert message in str(caught.value)
    assert "; data" not in str(caught.value)  # one error, not one for each branch of the union


def test_the_example_in_the_docs_is_sound() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    tree = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    assert tree.pop("defaults") == ["text"]
    config = build_settings(TextDataConfig, {"kind": "text", **tree}, "data")
    assert [entry.weight for entry in config.train] == [2, 1, 0.5]  # type: ignore[union-attr]


def test_a_bad_number_of_workers_is_named() -> None:
    with pytest.raises(UserError, match="data: workers must be at least 1, not 0"):
        settings(Path("/nowhere"), "train.jsonl", workers=0)

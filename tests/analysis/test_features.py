"""From labelled texts to sequences: windows, valid positions, what is dropped; every kind of source."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import zstandard
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from l2e.analysis.feature_settings import FeatureSettings
from l2e.analysis.features import build_features
from l2e.data.builtin import WorldSettings
from l2e.data.corpus import world_folder
from l2e.errors import UserError
from l2e.settings import build_settings

LETTERS = {"<end>": 0, **{chr(97 + number): number + 1 for number in range(26)}}


@pytest.fixture(scope="module")
def letters() -> PreTrainedTokenizerBase:
    """A token for each letter: a is 1; the end of a document is 0."""
    backend = Tokenizer(models.WordLevel(LETTERS, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<end>", eos_token="<end>")


@pytest.fixture(autouse=True)
def own_dataset_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


ROWS = [("abc", "x"), ("de", "y"), ("abcdefgh", "x"), ("", "y"), ("ab<end>cd", "y"), ("efghij", "z")]


def write(path: Path, rows: list[tuple[Any, Any]] = ROWS) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": label, "n": 1}) + "\n" for text, label in rows))
    return path


def features(path: Path | None, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> Any:
    given = {"path": str(path), "window": 6, **settings}
    return build_features("mine", build_settings(FeatureSettings, given, "features.mine"), tokenizer, Path("/nowhere"))


def test_windows_by_hand(letters: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    found = features(write(tmp_path / "a.jsonl"), letters)
    assert found.label_names == ("x", "y", "z")
    assert found.labels.tolist() == [0, 1, 0, 1, 2]
    assert found.tokens.dtype == np.int32
    tokens = found.tokens.tolist()
    assert tokens[0] == [0, 1, 2, 3, 0, 0]
    assert tokens[1] == [0, 4, 5, 0, 0, 0]
    assert tokens[3] == [0, 1, 2, 0, 3, 4]
    assert tokens[2] in [[0, *range(first, first + 5)] for first in range(1, 5)]
    assert tokens[4] in ([0, 5, 6, 7, 8, 9], [0, 6, 7, 8, 9, 10])
    assert found.starts.tolist() == [1] * 5
    assert found.ends.tolist() == [4, 3, 6, 3, 6]
    assert found.dropped == (0, 1, 0), "the empty text"
    assert found.ignored == 0
    assert found.non_padding == 3 + 2 + 5 + 2 + 5


def test_ignored_positions_and_texts_that_are_too_short(letters: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, ("abcd", "y")])
    found = features(path, letters, ignore_first_k=3)
    assert found.starts.tolist() == [3, 3, 3, 3]
    assert found.ends.tolist() == [4, 6, 6, 5], "abc, abcdefgh, efghij, abcd"
    assert found.dropped == (0, 3, 0)
    found = features(path, letters, ignore_first_k=3, least_valid=2)
    assert found.ends.tolist() == [6, 6, 5]
    assert found.dropped == (1, 3, 0)
    with pytest.raises(
        UserError, match=r"features.mine: no text labelled y has 3 valid position\(s\) after the first 3"
    ):
        features(path, letters, ignore_first_k=3, least_valid=3)
    with pytest.raises(
        UserError, match=r"features.mine: least_valid must lie in 1 to window - ignore_first_k, 3, not 4"
    ):
        features(path, letters, ignore_first_k=3, least_valid=4)


def test_windows_are_random_follow_from_the_seed_and_reach_both_ends(
    letters: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [("abcdefgh", "xy"[number % 2]) for number in range(400)])
    found = features(path, letters, seed=7)
    firsts = found.tokens[:, 1]
    assert np.bincount(firsts, minlength=5).tolist()[0] == 0
    assert set(firsts.tolist()) == {1, 2, 3, 4}
    assert np.bincount(firsts)[1:].min() > 60
    np.testing.assert_array_equal(found.tokens, features(path, letters, seed=7).tokens)
    assert not np.array_equal(found.tokens, features(path, letters, seed=8).tokens)
    some = features(path, letters, seed=7, labels=["y", "x"], per_label=50)
    np.testing.assert_array_equal(some.tokens, found.tokens[:100], err_msg="a window depends on its own text alone")


def test_chosen_labels_stand_in_their_order(letters: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, ("zz", "x")])
    found = features(path, letters, labels=["z", "x"], per_label=2)
    assert found.label_names == ("z", "x")
    assert found.labels.tolist() == [1, 1, 0]
    assert found.ignored == 4
    with pytest.raises(UserError, match=r"features.mine.labels: no text is labelled w; leave it out"):
        features(path, letters, labels=["w", "x"])
    with pytest.raises(UserError, match=r"features.mine: there must be texts of at least two labels, not 1"):
        features(write(tmp_path / "b.jsonl", ROWS[:1]), letters)


def test_the_same_from_every_kind_of_source(letters: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl")
    expected = features(plain, letters)
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    lines = plain.read_text().splitlines(keepends=True)
    for number in range(2):
        (tmp_path / f"part-{number}.jsonl").write_text("".join(lines[3 * number : 3 * number + 3]))
    (tmp_path / "e.jsonl").write_text(plain.read_text().replace('"text"', '"body"').replace('"label"', '"lang"'))
    rows = {"text": [text for text, _ in ROWS], "label": ["xyz".index(label) for _, label in ROWS]}
    table = datasets.Dataset.from_dict(rows)
    table.cast_column("label", datasets.ClassLabel(names=["x", "y", "z"])).save_to_disk(tmp_path / "saved")
    sources: list[tuple[str, dict[str, Any]]] = [
        ("b.jsonl.zst", {}),
        ("c.json.gz", {}),
        ("part-*.jsonl", {}),
        ("e.jsonl", {"text_field": "body", "label_field": "lang"}),
        ("saved", {"kind": "hf"}),
    ]
    for name, settings in sources:
        found = features(tmp_path / name, letters, **settings)
        assert found.label_names == expected.label_names
        for array in ("tokens", "starts", "ends", "labels"):
            np.testing.assert_array_equal(getattr(found, array), getattr(expected, array), err_msg=name)
    table.save_to_disk(tmp_path / "numbers")
    assert features(tmp_path / "numbers", letters, kind="hf").label_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": "x"}\n{"text": "b"}\n', r'bad.jsonl, line 2: no label under "label"; features.mine.l'),
        ('{"text": "a", "label": true}\n', r'line 1: no label under "label"'),
        ('{"text": 3, "label": "x"}\n', r'line 1: no string under "text"; features.mine.text_field names'),
        ('{"text": "a", "label": "x"}\n{"text"\n', r"bad.jsonl, line 2: not JSON"),
        ("[1]\n", r"line 1: no label"),
        ("", r"at least two labels, not 0"),
    ],
)
def test_bad_files_are_told(letters: PreTrainedTokenizerBase, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        features(tmp_path / "bad.jsonl", letters)


def test_what_is_not_there_is_told(letters: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"features.mine.path: there is no file .*; for a dataset of the hub give feat"):
        features(tmp_path / "no.jsonl", letters)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"a.txt must hold JSON lines"):
        features(tmp_path / "a.txt", letters)
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=r"has no column 'label' among text"):
        features(tmp_path / "saved", letters, kind="hf")
    for given, message in [
        ({}, "features.mine: path: a value is required"),
        ({"kind": "builtin", "path": "x"}, "path: the built-in world has none"),
        ({"path": "x", "split": "test"}, "subset, split and revision need kind: hf"),
        ({"path": "x", "windo": 3}, "features.mine.windo: unknown setting .did you mean window"),
        ({"path": "x", "window": 8, "ignore_first_k": 8}, "ignore_first_k must lie in 0 to 7, not 8"),
        ({"path": "x", "labels": ["a", "a"]}, "labels must be at least two, each once"),
    ]:
        with pytest.raises(UserError, match=message):
            build_settings(FeatureSettings, given, "features.mine")


def test_the_built_in_world(tmp_path: Path) -> None:
    world = WorldSettings(documents=200, items=20, known_items=16, passages_per_label=7)
    tokenizer = AutoTokenizer.from_pretrained(world_folder(world, tmp_path) / "tokenizer")
    found = build_features("builtin", FeatureSettings(kind="builtin", world=world), tokenizer, tmp_path)
    assert np.bincount(found.labels).tolist() == [7] * 5
    rows = [json.loads(line) for line in (tmp_path / "worlds").rglob("world_language.jsonl").__next__().open()]
    for row, tokens, label, end in zip(rows, found.tokens, found.labels, found.ends, strict=True):
        assert found.label_names[label] == row["label"]
        assert tokenizer.decode(tokens[1:end]) == row["text"]
        assert (tokens[end:] == tokenizer.eos_token_id).all()
        assert tokens[0] == tokenizer.eos_token_id


def test_real_texts(real_data: Path, tmp_path: Path) -> None:
    """The published windows are full: 511 tokens of text behind the end-of-document token."""
    tokenizer = AutoTokenizer.from_pretrained(real_data / "tokenizer")
    path = real_data / "features" / "natural_language" / "europarl_9.jsonl"
    settings = FeatureSettings(path=str(path), per_label=3, least_valid=511)
    found = build_features("natural_language", settings, tokenizer, tmp_path)
    assert found.label_names == ("de", "el", "en", "es", "fr", "it", "nl", "pt", "sv")
    assert found.tokens.shape == (27, 512)
    assert found.non_padding == 27 * 511
    texts = [json.loads(line) for line in path.open()]
    german = next(row["text"] for row in texts if row["label"] == "de")
    assert tokenizer.decode(found.tokens[found.labels == 0][0][1:400])[1:-1] in german

"""The files: their layout, their bytes, and what happens to a folder that already holds something."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from l2e.data.builtin import WorldSettings, write_world
from l2e.errors import UserError

FILES = {
    "train.jsonl": 1500,
    "validation.jsonl": 40,
    "eval/world_arc/train.jsonl": 40,
    "eval/world_arc/test.jsonl": 120,
    "eval/world_piqa/train.jsonl": 40,
    "eval/world_piqa/validation.jsonl": 120,
    "eval/world_sciq/train.jsonl": 30,
    "eval/world_sciq/validation.jsonl": 10,
    "eval/world_sciq/test.jsonl": 120,
    "features/world_language.jsonl": 60,
}
OTHERS = {
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "world.json",
}
TINY = {"documents": 100, "validation_documents": 3, "items": 16, "known_items": 16, "vocab_size": 400}

FIELDS = {
    "arc": {"id", "question", "choices", "answerKey"},
    "piqa": {"goal", "sol1", "sol2", "label"},
    "sciq": {"question", "correct_answer", "distractor1", "distractor2", "distractor3", "support"},
}


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_layout_and_number_of_rows(world):
    assert set(contents(world.folder)) == set(FILES) | OTHERS
    assert {name: len(world.rows(name)) for name in FILES} == FILES


def test_schemas(world):
    for row in world.rows("train.jsonl") + world.rows("validation.jsonl"):
        assert row["text"].strip()
        assert set(row) == {"text", "meta"}
    assert all(set(row) == {"text", "label"} for row in world.rows("features/world_language.jsonl"))
    for task, fields in FIELDS.items():
        for name in FILES:
            if f"world_{task}" in name:
                assert all(set(row) == fields for row in world.rows(name))
    item = world.rows("eval/world_arc/test.jsonl")[0]
    assert item["choices"]["label"] == ["A", "B", "C", "D"]
    assert len(item["choices"]["text"]) == 4
    assert {item["label"] for item in world.rows("eval/world_piqa/validation.jsonl")} == {0, 1}


def test_world_json_tells_settings_counts_and_version(world):
    about = json.loads((world.folder / "world.json").read_text())
    assert about["counts"] == FILES
    assert about["settings"]["items"] == 120
    assert about["format_version"] == 1


def test_tokenizer_loads_and_gives_every_text_back(world):
    tokenizer = AutoTokenizer.from_pretrained(world.folder / "tokenizer")
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.unk_token_id == 0
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == 0
    assert len(tokenizer) == 700
    for text in [*world.texts()[:200], "déjà vu, 東京!"]:
        ids = tokenizer(text)["input_ids"]
        assert 0 not in ids
        assert tokenizer.decode(ids) == text


def test_other_processes_and_hash_seeds_write_the_same_bytes(tmp_path):
    program = (
        "import sys; from pathlib import Path; from l2e.data.builtin import WorldSettings, write_world;"
        f"write_world(Path(sys.argv[1]), WorldSettings(**{TINY!r}))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program, str(tmp_path / seed)]
        subprocess.run(command, check=True, env=environment)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_another_seed_gives_another_world(tmp_path):
    for seed in (1, 2):
        write_world(tmp_path / str(seed), WorldSettings(seed=seed, **TINY))
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert {name for name in one if one[name] == two[name]} <= {
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
    }


def test_the_same_settings_again_do_nothing(world, small_settings):
    times = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    write_world(world.folder, small_settings)
    assert {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")} == times


def test_another_world_is_refused_and_left_alone(world, small_settings):
    before = contents(world.folder)
    with pytest.raises(UserError, match="items is 120, here 130"):
        write_world(world.folder, replace(small_settings, items=130))
    assert contents(world.folder) == before
    assert [path.name for path in world.folder.parent.iterdir()] == [world.folder.name]


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not a built-in world"):
        write_world(tmp_path, WorldSettings(**TINY))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_world_that_lost_a_file_is_refused(tmp_path):
    folder = tmp_path / "new" / "world"
    write_world(folder, WorldSettings(**TINY))
    (folder / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"lacks train\.jsonl"):
        write_world(folder, WorldSettings(**TINY))


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr("l2e.data.builtin.writer.write_tokenizer", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_world(tmp_path / "world", WorldSettings(**TINY))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("documents", 0, "100"),
        ("validation_documents", 0, "1"),
        ("items", 3, "16"),
        ("items", 2.5, "16"),
        ("known_items", 100_000, "2000"),
        ("vocab_size", 256, "300"),
        ("seed", -1, "0"),
        ("passages_per_label", True, "1"),
    ],
)
def test_bad_settings_are_refused_by_name(key, value, allowed):
    with pytest.raises(ValueError, match=rf"^{key} must be .*{allowed}.*{value}"):
        WorldSettings(**{key: value})

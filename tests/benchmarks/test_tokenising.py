"""The comparison with GPT-NeoX's way of tokenising."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from l2e.benchmarks import tokenising
from l2e.benchmarks.tokenising import measure_tokenising
from l2e.data.builtin import WorldSettings, write_world
from l2e.errors import UserError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, WorldSettings(documents=100, items=16, known_items=16))
    return folder


def test_both_ways_write_the_same_and_the_ratio_is_of_their_times(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def timed(name: str, seconds: Sequence[float]) -> None:
        original, given = getattr(tokenising, f"_time_{name}"), iter(seconds)

        def replaced(*arguments: object) -> float:
            original(*arguments)  # the files are still written, and compared
            turns.append(name)
            return next(given)

        monkeypatch.setattr(tokenising, f"_time_{name}", replaced)

    timed("ours", [1.0, 2.0, 4.0])
    timed("neox", [3.0, 4.0, 6.0])
    result = measure_tokenising([world / "train.jsonl"], world / "tokenizer", workers=1, rounds=3)
    assert turns == ["ours", "neox", "neox", "ours", "ours", "neox"]
    assert result["documents"] == 100 == len((world / "train.jsonl").read_text().splitlines())
    assert result["vs_neox"] == 2.0  # of 3, 2 and 1.5
    assert result["tokens_per_second"] == result["tokens"] / 2
    assert result["neox_tokens_per_second"] == result["tokens"] / 4
    assert (result["workers"], result["rounds"]) == (1, 3)
    json.dumps(result)


def test_a_difference_is_no_result(tmp_path: Path) -> None:
    for name in ("ours", "neox"):
        (tmp_path / f"{name}.idx").write_bytes(b"same")
        (tmp_path / f"{name}.bin").write_bytes(name.encode())
    with pytest.raises(RuntimeError, match=r"different \.bin files"):
        tokenising._compare(tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("abc")
    for files in (tmp_path, []):
        with pytest.raises(UserError, match="measured on JSONL files"):
            measure_tokenising(files, tmp_path)

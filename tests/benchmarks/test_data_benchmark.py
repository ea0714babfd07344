"""The data benchmark: the files that it makes, its arithmetic, its JSON line, its refusals. No speed is asserted."""

import importlib.util
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from l2e.benchmarks import data
from l2e.benchmarks.data_config import READER_BATCH, DataBenchmarkConfig
from l2e.benchmarks.data_files import MadeUpRows, write_published_sizes, write_rows
from l2e.benchmarks.data_readers import READERS
from l2e.benchmarks.data_resume import first_rows, in_turns
from l2e.benchmarks.turns import compare, timed
from l2e.cli.entry import main
from l2e.data import PileShards
from l2e.data.builtin import WorldSettings, write_world

ROOT = Path(__file__).parents[2]
SMALL = {
    "rows": 96,
    "row_length": 33,
    "files": 5,
    "gather": [1, 8],
    "micro_batches": [2, 4],
    "batch_size": 16,
    "reader_rows": 64,
    "rounds": 2,
}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[], None]:
        """Work that takes these seconds, one after the other, call by call."""
        left = list(seconds)

        def action() -> None:
            self.now += left.pop(0)

        return action


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUpRows:
    return write_rows(tmp_path / "rows", rows=96, row_length=33, files=5)


@pytest.mark.slow
def test_the_script(tmp_path: Path) -> None:
    overrides = [f"benchmark.{key}={value}".replace(" ", "") for key, value in SMALL.items()]
    write_world(tmp_path / "world", WorldSettings(documents=100, items=16, known_items=16))
    text = {"text": f"{tmp_path}/world/train.jsonl", "tokenizer": f"{tmp_path}/world/tokenizer"}
    folder = {"folder": f"{tmp_path}/made"}
    Path(folder["folder"]).mkdir()
    overrides += [f"benchmark.{key}={value}" for key, value in {**text, **folder}.items()]
    command = [sys.executable, "scripts/benchmark.py", "benchmark=data", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["benchmark"] == "data"
    assert printed["device"].startswith("cpu")
    assert printed["versions"]["torch"] == torch.__version__
    assert (
        printed["settings"]
        == {"kind": "data", **SMALL, "resume_steps": [0, 1000, 143_000], "threads": 1} | text | folder
    )
    assert not list(Path(folder["folder"]).iterdir())  # nothing stays
    results = printed["results"]
    tokenised = results["tokenising"]
    assert tokenised["documents"] == len((tmp_path / "world" / "train.jsonl").read_text().splitlines())
    assert tokenised["rounds"] == 2
    assert min(tokenised[key] for key in ("tokens_per_second", "neox_tokens_per_second", "vs_neox")) > 0
    assert set(results["gather"]) == {"1", "8", "8 random"}
    ratios = [found["memmap"]["ratio"] for found in results["gather"].values()]
    assert results["vs_memmap"] == min(ratios) > 0
    assert set(results["gather"]["8"]) == {"ours", "memmap", "memmap_slice"}
    assert set(results["gather"]["8 random"]) == {"ours", "memmap", "memmap_index"}
    speeds = [found["ours"]["per_second"] for found in results["int64"].values()]
    assert results["tokens_per_second_int64"] == min(speeds) > 0
    assert set(results["readers"]) == {"ours", *READERS}
    for name, package in {"mosaicml_streaming": "streaming", "litdata": "litdata"}.items():
        installed = importlib.util.find_spec(package) is not None
        assert (results["readers"][name] == "not installed") == (results[f"vs_{name}"] is None) == (not installed)
    for name in ("datasets", "datasets_map_style"):
        found = results["readers"][name]
        assert results[f"vs_{name}"] == found["ratio"] > 0
        assert found["ratio_spread"][0] <= found["ratio"] <= found["ratio_spread"][1]
    resume = results["resume"]
    waits = resume["seconds_to_first_row"]
    if waits is not None:
        assert set(waits) == {"0", "1000", "143000"}
        assert resume["ratio_last_to_first"] == waits["143000"]["seconds"] / waits["0"]["seconds"]
    skip = resume["datasets_skip"]
    more = skip["seconds_to_first_row"]["63"]["seconds"] - skip["seconds_to_first_row"]["0"]["seconds"]
    assert skip["seconds_per_1000_rows"] == pytest.approx(1000 * more / 63)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rowz=3"], "benchmark.rowz: unknown setting (did you mean rows?)"),
        (["rounds=0"], "rounds must be at least 1, not 0"),
        (["rows=4", "files=5"], "files must be at most the 4 rows, not 5"),
        (["gather=[8,40000]"], "gather must be a list of counts from 1 to the 36000 rows, not [8, 40000]"),
        (["micro_batches=[3]"], "micro_batches must be a list of divisors of batch_size 1024, not [3]"),
        (["reader_rows=12"], "reader_rows must be a multiple of 8, at least 16 and at most the 36000 rows, not 12"),
        (["resume_steps=[143001]"], "resume_steps must be a list of updates from 0 to 143000, not [143001]"),
        (["text=train.jsonl"], "text and tokenizer belong together; give both or none"),
        (["row_length=many"], "benchmark.row_length: "),
    ],
)
def test_bad_settings(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "benchmark=data", *(f"benchmark.{item}" for item in overrides)])
    with pytest.raises(SystemExit) as stop:
        main("benchmark", "l2e.cli.benchmark:run")
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert len(printed.err.strip().splitlines()) == 1
    assert message in printed.err
    assert not printed.out


@pytest.mark.parametrize(("rows", "files"), [(96, 5), (90, 3), (10, 1), (7, 7)])
def test_the_made_up_files_hold_the_rows_across_their_borders(tmp_path: Path, rows: int, files: int) -> None:
    made_up = write_rows(tmp_path / "rows", rows, 33, files)
    parts = [np.fromfile(path, "<u2") for path in sorted(made_up.shards.iterdir())]
    assert len(parts) in (files, files - 1)
    np.testing.assert_array_equal(np.concatenate(parts).reshape(rows, 33), made_up.tokens(rows))
    assert all(len(part) % 33 for part in parts[:-1])
    assert len(np.unique(made_up.tokens(rows))) > 100
    np.testing.assert_array_equal(PileShards(made_up.shards, 33).gather(range(rows)), made_up.tokens(rows))


@pytest.mark.parametrize("name", READERS)
def test_every_library_hands_out_the_rows(made_up: MadeUpRows, name: str) -> None:
    try:
        reader = READERS[name](made_up.folder, made_up.tokens(64))
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    for _ in range(2):  # each pass begins at the first row
        batches = list(reader())
        assert [batch.shape for batch in batches] == [(READER_BATCH, 33)] * 8
        assert all(batch.dtype == torch.int64 for batch in batches)
        np.testing.assert_array_equal(torch.cat(batches).numpy(), made_up.tokens(64))


def test_the_gathers_by_hand_give_the_rows(made_up: MadeUpRows) -> None:
    expected = made_up.tokens(96)
    sets = data.row_sets(DataBenchmarkConfig(**SMALL))
    assert sets["8"] == [range(first, first + 8) for first in range(0, 96, 8)]
    assert len(sets["8 random"]) == 12
    assert sets["8 random"][0] != sorted(sets["8 random"][0])
    for name, rows in (("8", sets["8"][3]), ("8 random", sets["8 random"][0])):
        gathers = data.memmap_gathers(made_up, consecutive="random" not in name)
        assert len(gathers) == 2
        for gather in gathers.values():
            gathered = gather(rows)
            np.testing.assert_array_equal(gathered, expected[list(rows)])
            assert not np.shares_memory(gathered, made_up.memmap)  # copied, as ours are


@pytest.mark.parametrize("section", [data.measure_gather, data.measure_readers])
def test_other_rows_than_were_written_are_no_result(made_up: MadeUpRows, section: Callable) -> None:
    first, *_ = sorted(made_up.shards.iterdir())
    content = bytearray(first.read_bytes())
    content[40] ^= 1
    first.write_bytes(content)
    with pytest.raises(RuntimeError, match="not the rows that were written"):
        section(DataBenchmarkConfig(**SMALL), made_up)


def test_a_ratio_is_our_speed_over_theirs() -> None:
    clock = Clock()
    # Untimed 9; then two rounds of ours, a, ours, b, ours; and ours, b, ours, a, ours.
    ours = clock.takes(9, 2, 2, 4, 2, 2, 2)
    slow, fast = clock.takes(9, 8, 4), clock.takes(9, 1.5, 1)
    found = compare(timed(ours, clock), {"a": timed(slow, clock), "b": timed(fast, clock)}, rounds=2, amount=100)
    assert found["ours"] == {"per_second": 50.0, "spread": [50.0, 50.0]}
    # Round 1: a 8 / mean(2, 2), b 1.5 / mean(2, 4); round 2: b 1 / mean(2, 2), a 4 / mean(2, 2).
    assert found["a"]["ratio"] == pytest.approx((4 + 2) / 2)
    assert found["b"]["ratio"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["a"]["ratio_spread"] == pytest.approx([2.5, 3.5])
    assert found["a"]["per_second"] == pytest.approx(100 / 6)
    assert found["a"]["spread"] == pytest.approx([100 / 7, 100 / 5])


def test_a_speed_without_others() -> None:
    clock = Clock()
    assert compare(timed(clock.takes(9, 1, 2, 4), clock), {}, rounds=3, amount=8) == {
        "ours": {"per_second": 4.0, "spread": pytest.approx([8 / 3, 8 / 1.5])}
    }


def test_the_first_micro_batch_is_not_timed() -> None:
    clock = Clock()

    def reader() -> Iterator[Tensor]:
        for seconds in (50.0, 1.0, 2.0):
            clock.now += seconds
            yield torch.zeros(1)

    assert data.read_all(reader, clock)() == 3.0


def test_waits_are_taken_in_turns() -> None:
    clock = Clock()
    found = in_turns({"0": clock.takes(9, 1, 3, 2), "1000": clock.takes(9, 4, 5, 6)}, 3, clock)
    assert found == {"0": {"seconds": 2.0, "spread": [1.5, 2.5]}, "1000": {"seconds": 5.0, "spread": [4.5, 5.5]}}


def test_the_set_of_the_published_size_takes_no_room_and_has_rows_for_the_last_step(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    if not write_published_sizes(folder):
        pytest.skip("this disk has no sparse files")
    assert sum(512 * path.stat().st_blocks for path in folder.iterdir()) < 1 << 20
    paths = sorted(folder.iterdir())
    assert len(paths) == 21
    assert {path.stat().st_size for path in paths[:-1]} == {30_000_000_000}
    assert len(PileShards(folder)) == 143_001 * 1024
    for step in (0, 143_000):
        first_rows(folder, step)
    with pytest.raises(IndexError):
        first_rows(folder, 143_001)


def test_a_disk_that_cannot_hold_such_files_is_told_apart(made_up: MadeUpRows) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, hard))
    try:
        found = data.measure_resume(DataBenchmarkConfig(**SMALL), made_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found["seconds_to_first_row"] is None
    assert found["ratio_last_to_first"] is None
    assert found["datasets_skip"]["seconds_to_first_row"]["63"]["seconds"] > 0

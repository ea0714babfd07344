"""A run on rows in the published layout: the right rows in the right order, and none but them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import metrics, pretrain, weights

from l2e.data import PileShards, StepLoader
from l2e.data.builtin import WorldSettings, write_world

WORLD = WorldSettings(documents=300, items=16, known_items=16)
ROWS, LENGTH = 61, 33


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of 700 tokens and a rest: rows of 33 tokens straddle their borders."""
    folder = tmp_path_factory.mktemp("pile")
    write_world(folder / "world", WORLD)
    write_shards(folder / "shards", tokens())
    return folder


def tokens() -> np.ndarray:
    steps = np.random.default_rng(0).integers(0, 4, ROWS * LENGTH)
    return (steps.cumsum() % 768).astype("<u2")


def write_shards(folder: Path, stream: np.ndarray, size: int = 700) -> None:
    folder.mkdir()
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    for index, part in enumerate(parts):
        part.tofile(folder / f"document-{index:05d}-of-{len(parts) - 1:05d}.bin")


def overrides(folder: Path, shards: str = "shards") -> list[str]:
    return [
        "data=pile_deduped",
        f"data.path={folder / shards}",
        f"data.tokenizer={folder / 'world' / 'tokenizer'}",
        f"data.row_length={LENGTH}",
    ]


def pile_run(folder: Path, name: str, *more: str, expect: int = 0) -> str:
    # The settings of small runs name the built-in world's size, which these rows do not have.
    base = [part for part in overrides(folder) if not any(other.split("=")[0] == part.split("=")[0] for other in more)]
    return pretrain(folder, name, "~data.world", *base, *more, expect=expect)


@pytest.mark.parametrize(("micro", "ranks"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4)])
def test_every_split_deals_out_the_same_rows_of_an_update(folder: Path, micro: int, ranks: int) -> None:
    rows, expected = PileShards(folder / "shards", LENGTH), tokens().reshape(ROWS, LENGTH)
    assert len(rows) == ROWS
    for step in (0, 7, 14):
        loaders = [StepLoader(rows, 4, micro, rank, ranks) for rank in range(ranks)]
        parts = [list(loader.micro_batches(step)) for loader in loaders]
        dealt = torch.cat([parts[rank][part] for part in range(4 // (micro * ranks)) for rank in range(ranks)])
        assert dealt.dtype == torch.int64
        np.testing.assert_array_equal(dealt.numpy(), expected[4 * step : 4 * step + 4])


@pytest.mark.slow
def test_a_run_ends_resumes_and_reads_the_same_rows(folder: Path) -> None:
    pile_run(folder, "whole")
    pile_run(folder, "cut", "checkpoint.every=4")
    run = folder / "runs" / "cut"
    (run / "hf" / "step12").rename(run / "elsewhere")
    assert "resumed after 8 updates" in pile_run(folder, "cut", "checkpoint.every=4")
    assert metrics(folder, "whole", "loss") == metrics(folder, "cut", "loss")
    for name, weight in weights(folder, "whole").items():
        assert torch.equal(weight, weights(folder, "cut")[name])

    # Other data under the same path: refused, nothing trained.
    other = tokens()
    other[5] = (other[5] + 1) % 768
    (folder / "shards").rename(folder / "kept")
    write_shards(folder / "shards", other)
    (run / "hf" / "step12").rename(run / "elsewhere again")
    printed = pile_run(folder, "cut", "checkpoint.every=4", expect=2)
    assert "the data has changed since the restart point of step 8: sha256_of_ends was" in printed
    assert not (run / "hf" / "step12").exists()
    for path in (folder / "shards").iterdir():
        path.unlink()
    (folder / "shards").rmdir()
    (folder / "kept").rename(folder / "shards")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param(
            "training.seq_length=16",
            "training.seq_length: the rows of .* have 32 targets, not 16",
            marks=pytest.mark.slow,
        ),
        ("training.steps=16", "16 updates of 4 take 64 rows; pile_deduped has 61, which is 15 updates"),
        pytest.param(
            "data.row_length=32",
            "training.seq_length: the rows of .* have 31 targets, not 32",
            marks=pytest.mark.slow,
        ),
        pytest.param("data.path=/nowhere", "/nowhere", marks=pytest.mark.slow),
    ],
)
def test_what_the_rows_cannot_give_is_refused(folder: Path, setting: str, message: str) -> None:
    printed = pile_run(folder, "refused", setting, expect=2)
    assert len(printed.strip().splitlines()) == 1
    assert re.search(message, printed), printed

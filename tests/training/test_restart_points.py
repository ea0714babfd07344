"""Restart points of one process: exact resume, damage, other runs, a full disk, what is kept."""

import errno
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainer import Options, build, identity, train, wait_for_saves

from l2e import manifest
from l2e.errors import UserError
from l2e.manifest import MANIFEST
from l2e.training import background_save
from l2e.training.callbacks import export
from l2e.training.callbacks.checkpoint import CheckpointCallback, resume
from l2e.training.engine import start_processes
from l2e.training.restart_points import check_layout, prune, remove_leftovers, restart_points


@pytest.fixture(scope="module")
def device() -> torch.device:
    return start_processes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> tuple[Path, dict[str, Any]]:
    """An undisturbed run with restart points after updates 4 and 8."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, Options(), device)


@pytest.fixture
def run(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of it, without its end."""
    shutil.copytree(whole[0], tmp_path / "run")
    return tmp_path / "run"


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return one == two


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2}, {"stage": 3}, {"precision": "bf16"}, {"stage": 0}])
def test_a_run_stopped_twice_ends_as_the_undisturbed_one(
    tmp_path: Path, device: torch.device, options: dict[str, Any]
) -> None:
    expected = train(tmp_path / "whole", Options(**options), device)
    assert train(tmp_path / "cut", Options(stop_after=6, **options), device)["began"] == 0
    assert train(tmp_path / "cut", Options(stop_after=9, **options), device)["began"] == 4
    found = train(tmp_path / "cut", Options(**options), device)
    assert found["began"] == 8
    assert same(found["weights"], expected["weights"])
    assert same(found["callbacks"], expected["callbacks"])


def test_all_that_is_random_is_the_same_after_a_restart(tmp_path: Path, device: torch.device) -> None:
    """Python's, NumPy's and PyTorch's numbers at the start of an update are a function of seed, rank and update."""
    import random

    import numpy as np

    from l2e.training.callbacks.randomness import RandomnessCallback

    trainer = build(tmp_path, Options(), device)
    try:
        drawn = []
        for seed, step in ((1, 7), (1, 7), (1, 8), (2, 7), (70_000, 7)):
            trainer.step = step
            RandomnessCallback(seed).before_step(trainer)
            drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    finally:
        trainer.engine.close()
    assert drawn[0] == drawn[1]
    for source in zip(*drawn[1:], strict=True):
        assert len(set(source)) == 4


def test_metrics_of_all_updates_are_there_after_a_restart(
    run: Path, whole: tuple[Path, dict[str, Any]], device: torch.device
) -> None:
    """Restart points come between the hand-overs of every 5th update."""
    lines = [json.loads(line) for line in (whole[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    kept = [line for line in lines if line["step"] <= 8]  # what a killed run has on disk at its restart point
    shutil.rmtree(run)
    train(run, Options(stop_after=8), device)
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in written] == [(line["step"], line["loss"]) for line in kept]


def test_the_manifest_says_what_the_restart_point_is(run: Path) -> None:
    import hashlib

    point = run / "checkpoints" / "step8"
    said = json.loads((point / MANIFEST).read_text())
    assert (said["kind"], said["step"], said["ranks"], said["stage"]) == ("restart point", 8, 1, 1)
    assert (said["precision"], said["data"]) == ("fp32", {"rows": "walks"})
    assert said["versions"] == {"torch": torch.__version__}
    there = {str(path.relative_to(point)): path.read_bytes() for path in point.rglob("*") if path.is_file()}
    del there[MANIFEST]
    assert said["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in there.items()
    }
    assert set(there) == {
        "trainer.pt",
        "engine/mp_rank_00_model_states.pt",
        "engine/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    }
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == ["step4", "step8"]


def continued(run: Path, device: torch.device, **options: Any) -> int:
    """The step at which the run would go on."""
    trainer = build(run, Options(**options), device)
    try:
        return resume(trainer, run / "checkpoints", identity(Options(**options)))
    finally:
        trainer.engine.close()


NAMES = [
    "trainer.pt",
    "engine/mp_rank_00_model_states.pt",
    "engine/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    MANIFEST,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_restart_point_is_named_and_skipped(
    run: Path, device: torch.device, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    path = run / "checkpoints" / "step8" / name
    if damage == "flip":
        flip(path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    logging.getLogger("l2e").propagate = True
    assert continued(run, device) == 4
    assert str(path) in caplog.text
    assert "skipped a damaged restart point" in caplog.text
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step4", "step8.damaged"]


def test_a_run_that_skipped_a_damaged_restart_point_ends_as_the_undisturbed_one(
    run: Path, whole: tuple[Path, dict[str, Any]], device: torch.device
) -> None:
    flip(run / "checkpoints" / "step8" / "trainer.pt")
    found = train(run, Options(), device)
    assert found["began"] == 4
    assert same(found["weights"], whole[1]["weights"])
    assert continued(run, device) == 8


def test_without_a_usable_restart_point_nothing_starts_anew(run: Path, device: torch.device) -> None:
    for step in (4, 8):
        flip(run / "checkpoints" / f"step{step}" / "trainer.pt")
    for _ in range(2):  # the first refusal must not hide them from the second
        with pytest.raises(UserError, match=r"no restart point .* can be used: .*step8/trainer.pt.*step4/trainer.pt"):
            continued(run, device)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step4", "step8"]
    shutil.rmtree(run / "checkpoints")
    assert continued(run, device) == 0


def test_a_restart_point_of_another_run_is_refused(run: Path, device: torch.device) -> None:
    with pytest.raises(UserError, match=r"step8 belongs to a run with another config: training.lr is 0.002 there"):
        continued(run, device, lr=3e-3)
    with pytest.raises(UserError, match=r"the data has changed since the restart point of step 8: rows was walks and"):
        continued(run, device, data="others")


def test_another_stage_is_refused_with_the_command_that_converts(run: Path, device: torch.device) -> None:
    with pytest.raises(UserError, match=rf"1 ranks with deepspeed.stage=1.* python scripts/convert.py run={run}$"):
        continued(run, device, stage=2)
    points = run / "checkpoints"
    check_layout(points, 1, 1)
    for ranks, stage in ((2, 1), (1, 2)):  # before anything is loaded
        with pytest.raises(UserError, match=r"scripts/convert\.py"):
            check_layout(points, ranks, stage)
    (points / "step8" / MANIFEST).unlink()
    check_layout(points, 1, 1)
    shutil.copytree(points / "step4", points / "step4-universal")
    check_layout(points, 2, 3)


def test_the_last_few_are_kept(tmp_path: Path, device: torch.device) -> None:
    train(tmp_path, Options(every=2, keep=3), device)
    assert [point.step for point in restart_points(tmp_path / "checkpoints")] == [10, 8, 6]


def full_disk(after: int) -> Any:
    """A writer whose disk is full after so many files."""
    written, usual = 0, background_save.write_durably

    def write(path: Path, content: Any) -> None:
        nonlocal written
        written += 1
        if after < written <= after + 1:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        usual(path, content)

    return write


@pytest.mark.parametrize("after", [4, 5, 6, 7])
def test_a_full_disk_costs_one_restart_point_and_nothing_else(
    tmp_path: Path,
    whole: tuple[Path, dict[str, Any]],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    after: int,
) -> None:
    """Each restart point has three files and a manifest; the second one, of update 6, fails at one of them."""
    logging.getLogger("l2e").propagate = True
    writer = full_disk(after)
    for module in (background_save, manifest):
        monkeypatch.setattr(module, "write_durably", writer)
    found = train(tmp_path, Options(every=3, keep=5), device)
    assert "step6 WAS NOT WRITTEN: rank 0: OSError: [Errno 28] No space left on device" in caplog.text
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step3", "step9"]
    assert found["step"] == 12
    assert same(found["weights"], whole[1]["weights"])
    assert continued(tmp_path, device) == 9


def test_an_export_that_fails_on_the_way_is_left_out_and_the_last_must_succeed(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model: Any, tokenizer: Any, folder: Path, *more: Any) -> None:
        folder.with_name(f".{folder.name}.tmp").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "export", fail)
    logging.getLogger("l2e").propagate = True
    tokenizer: Any = None
    callback = export.ExportCallback(tmp_path / "hf", tokenizer, [2], identity(Options()))
    trainer = build(tmp_path, Options(steps=3, every=0, extra=[callback]), device)
    try:
        with pytest.raises(OSError, match="No space left"):
            trainer.fit()
    finally:
        trainer.engine.close()
    assert trainer.step == 3
    assert f"THE EXPORT {tmp_path}/hf/step2 WAS NOT WRITTEN" in caplog.text
    assert [path.name for path in (tmp_path / "hf").iterdir()] == [".step3.tmp"]


def test_a_save_on_demand_is_complete_when_it_returns(tmp_path: Path, device: torch.device) -> None:
    trainer = build(tmp_path, Options(every=0, stop_after=5), device)
    (checkpoint,) = [c for c in trainer.callbacks if isinstance(c, CheckpointCallback)]
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
        for _ in range(2):  # the second has nothing to do
            checkpoint.save(trainer)
            assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step5"]
        wait_for_saves(trainer)
    finally:
        trainer.engine.close()
    assert continued(tmp_path, device) == 5


def test_what_changes_after_the_snapshot_is_not_in_it(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch, whole: tuple[Path, dict[str, Any]]
) -> None:
    """The writer is held back until training has gone on."""
    import threading

    go, usual = threading.Event(), background_save.write_durably

    def late(path: Path, content: Any) -> None:
        assert go.wait(120)
        usual(path, content)

    monkeypatch.setattr(background_save, "write_durably", late)
    trainer = build(tmp_path, Options(stop_after=7), device)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
        assert restart_points(tmp_path / "checkpoints") == []
        go.set()
        wait_for_saves(trainer)
    finally:
        trainer.engine.close()
    found = train(tmp_path, Options(), device)
    assert found["began"] == 4
    assert same(found["weights"], whole[1]["weights"])


def test_leftovers_of_an_interrupted_save_are_no_restart_points(run: Path, device: torch.device) -> None:
    (run / "checkpoints" / "step8").rename(run / "checkpoints" / ".step8.tmp")
    found = train(run, Options(stop_after=5), device)
    assert found["began"] == 4
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step4"]


def test_a_kill_while_an_old_one_is_removed_leaves_no_half_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty kills of two processes once met one: step9 without its first file."""

    def killed(path: Path, *given: Any, **named: Any) -> None:
        next(file for file in sorted(Path(path).rglob("*")) if file.is_file()).unlink()
        raise KeyboardInterrupt

    points = run / "checkpoints"
    assert len(restart_points(points)) == 2
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(points, 1)
    monkeypatch.undo()
    (left,) = restart_points(points)
    manifest.verify(left.folder)
    assert len(list(points.iterdir())) == 2
    remove_leftovers(points)
    assert [path.name for path in points.iterdir()] == [left.folder.name]

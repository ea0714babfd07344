"""Restart points of two processes, and conversion to other numbers of ranks and other stages."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import torchrun
from rank_runs import run as run_alone
from small_trainer import Options, train

from l2e.errors import UserError
from l2e.manifest import verify
from l2e.training.convert import convert_restart_point, whole_weights
from l2e.training.engine import start_processes
from l2e.training.restart_points import find, restart_points

pytestmark = pytest.mark.slow  # one process that goes on exactly is in test_restart_points.py

SCRIPT = Path(__file__).parent / "rank_runs.py"

TWO: list[dict[str, Any]] = [{"stage": 1}, {"stage": 2, "precision": "bf16"}, {"stage": 3}]
ALONE: list[dict[str, Any]] = [{"stage": 1}, {"stage": 3}, {"stage": 2, "precision": "bf16"}, {"stage": 0}]


def name(options: dict[str, Any]) -> str:
    return f"z{options['stage']}-{options.get('precision', 'fp32')}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, whole and stopped after update 6; then runs of two, some of which go on from those."""
    folder = tmp_path_factory.mktemp("ranks")
    device = start_processes()
    jobs = []
    for options in ALONE:
        torch.save(
            train(folder / f"one-{name(options)}", Options(**options), device), folder / f"one-{name(options)}.pt"
        )
        cut = folder / f"one-cut-{name(options)}"
        train(cut, Options(stop_after=6, **options), device)
        shutil.copytree(cut, folder / f"refused-{name(options)}")
        convert_restart_point(find(cut / "checkpoints", None))
    for options in TWO:
        key = name(options)
        jobs += [
            {"name": f"two-{key}", "run": f"two-{key}", "options": options},
            {"name": "cut", "run": f"two-cut-{key}", "options": {**options, "stop_after": 6}},
            {"name": "cut", "run": f"two-kept-{key}", "options": {**options, "stop_after": 6}},
            {"name": f"two-resumed-{key}", "run": f"two-cut-{key}", "options": options},
        ]
    jobs += [
        {
            "name": f"converted-{a}-{b}",
            "run": f"one-cut-z{a}-{precision}",
            "options": {"stage": b, "precision": precision},
        }
        for a, b, precision in ((1, 1, "fp32"), (3, 2, "fp32"), (2, 3, "bf16"))
    ]
    jobs.append({"name": "converted-0-0", "run": "one-cut-z0-fp32", "options": {"stage": 0}})
    jobs.append({"name": "refused", "run": "refused-z1-fp32", "options": {"stage": 1}})
    jobs.append({"name": "full", "run": "full", "options": {"every": 3, "keep": 5}, "full_disk_on_rank": 1})
    command = [*torchrun(2), str(SCRIPT), str(folder), json.dumps(jobs)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "printed.txt").write_text(done.stdout + done.stderr)
    return folder


def seen(folder: Path, job: str, rank: int = 0) -> Any:
    return torch.load(folder / f"{job}.rank{rank}.pt", weights_only=False)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return one == two


def distance(found: dict[str, Any], expected: dict[str, Any], options: dict[str, Any], folder: Path) -> float:
    """Between two ends, as a share of the way from the restart point there."""
    point = folder / f"one-{name(options)}" / "checkpoints" / "step4"
    start = whole_weights(point, options["stage"], False)
    far = sum(((start[key].float() - w.float()) ** 2).sum() for key, w in expected["weights"].items())
    off = sum(((found["weights"][key].float() - w.float()) ** 2).sum() for key, w in expected["weights"].items())
    return float((off / far).sqrt().detach())


@pytest.mark.parametrize("options", TWO, ids=name)
def test_two_processes_go_on_exactly(folder: Path, options: dict[str, Any]) -> None:
    whole, resumed = seen(folder, f"two-{name(options)}"), seen(folder, f"two-resumed-{name(options)}")
    assert (whole["began"], resumed["began"]) == (0, 4)
    assert same(resumed["weights"], whole["weights"])
    assert same(resumed["callbacks"], whole["callbacks"])


def test_the_state_that_rank_0_saves_is_that_of_every_rank(folder: Path) -> None:
    for options in TWO:
        first, second = (seen(folder, f"two-{name(options)}", rank) for rank in (0, 1))
        assert same(first["callbacks"]["inhibition"], second["callbacks"]["inhibition"])


def test_all_ranks_save_when_rank_0s_clock_says_so(folder: Path) -> None:
    assert seen(folder, "clock", 0) == seen(folder, "clock", 1) == [20, 40, 60, 80, 100]


def test_other_ranks_are_refused_with_the_command_that_converts(folder: Path) -> None:
    for rank in (0, 1):
        refused = seen(folder, "refused", rank)["refused"]
        assert "written by 1 ranks with deepspeed.stage=1, this run has 2 with deepspeed.stage=1" in refused
        assert refused.endswith(f"python scripts/convert.py run={folder / 'refused-z1-fp32'}")
    with pytest.raises(UserError, match=r"written by 2 ranks with deepspeed.stage=1, this run has 1"):
        train(folder / "two-kept-z1-fp32", Options(), start_processes())


@pytest.mark.parametrize(
    ("job", "options", "limit"),
    [
        ("converted-1-1", {"stage": 1}, 1e-4),
        ("converted-3-2", {"stage": 3}, 1e-4),
        ("converted-2-3", {"stage": 2, "precision": "bf16"}, 0.1),
        ("converted-0-0", {"stage": 0}, 1e-4),
    ],
)
def test_one_process_to_two(folder: Path, job: str, options: dict[str, Any], limit: float) -> None:
    found, expected = seen(folder, job), torch.load(folder / f"one-{name(options)}.pt", weights_only=False)
    assert found["began"] == 4
    assert distance(found, expected, options, folder) < limit
    theirs, ours = (end["callbacks"]["inhibition"]["taps"][1]["statistics"] for end in (found, expected))
    assert theirs["updates"] == ours["updates"] == 12
    for key, value in ours["moments"].items():
        torch.testing.assert_close(theirs["moments"][key], value, rtol=limit, atol=limit, check_device=False)


@pytest.mark.parametrize(
    ("source", "stage", "limit"),
    [
        ({"stage": 1}, 0, 1e-4),
        ({"stage": 1}, 3, 1e-4),
        ({"stage": 3}, 1, 1e-4),
        ({"stage": 2, "precision": "bf16"}, 1, 0.1),
    ],
)
def test_two_processes_to_one(folder: Path, tmp_path: Path, source: dict[str, Any], stage: int, limit: float) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / f"two-kept-{name(source)}", run)
    before = {path: path.read_bytes() for path in (run / "checkpoints" / "step4").rglob("*") if path.is_file()}
    converted = convert_restart_point(find(run / "checkpoints", None, universal=False))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step4", "step4-universal"]
    assert {path: path.read_bytes() for path in before} == before
    assert verify(converted)["kind"] == "converted restart point"
    found = run_alone({"run": "run", "options": {**source, "stage": stage}}, tmp_path, start_processes())
    assert found["began"] == 4
    assert distance(found, seen(folder, f"two-{name(source)}"), source, folder) < limit
    assert restart_points(run / "checkpoints")[0].folder.name == "step8"  # in the new layout


def test_a_damaged_converted_restart_point_is_made_anew(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "two-kept-z1-fp32", run)
    point = find(run / "checkpoints", None)
    converted = convert_restart_point(point)
    (converted / "trainer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"scripts/convert\.py"):
        train(run, Options(), start_processes())
    assert convert_restart_point(point) == converted
    verify(converted)
    (point.folder / "trainer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged: .*step4/trainer.pt has 0 bytes"):
        convert_restart_point(point)


def test_a_full_disk_on_one_rank_costs_one_restart_point(folder: Path) -> None:
    """Rank 1 writes one file a time: it fails at updates 6 and 9."""
    assert sorted(path.name for path in (folder / "full" / "checkpoints").iterdir()) == ["step3"]
    printed = (folder / "printed.txt").read_text()
    assert "rank 1: OSError: [Errno 28] No space left on device" in printed
    assert same(seen(folder, "full")["weights"], seen(folder, "two-z1-fp32")["weights"])

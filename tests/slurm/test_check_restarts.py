"""slurm/check_restarts.sh alone: when a job has restarted in vain too often. `squeue` is played."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Run:
    """A run directory, and jobs that start in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "runs" / "a b"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.running("")

    def running(self, job: str) -> None:
        """Let `squeue --jobs=JOB` know one running job."""
        squeue = self.bin / "squeue"
        squeue.write_text(f'#!/bin/bash\n[[ "$*" != *--jobs={job or "none"}\\ * ]] || echo RUNNING\n')
        squeue.chmod(0o755)

    def start(self, job: str, allowed: int | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        if allowed is not None:
            environment["L2E_IDLE_RESTARTS"] = str(allowed)
        command = ["bash", "slurm/check_restarts.sh", str(self.path), job]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def save(self, kind: str, step: int) -> None:
        (self.path / kind / f"step{step}").mkdir(parents=True)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_the_first_start_makes_no_run_directory(run: Run) -> None:
    done = run.start("7")
    assert done.returncode == 0
    assert "job 7, restart 0" in done.stderr
    assert not run.path.exists()


def test_three_idle_restarts_are_allowed_by_default(run: Run) -> None:
    assert [run.start("7").returncode for _ in range(5)] == [0, 0, 0, 0, 2]
    assert "restarted 5 times without progress" in run.start("7").stderr


@pytest.mark.parametrize("kind", ["checkpoints", "hf", "eval"])
def test_progress_of_any_kind_starts_the_count_anew(run: Run, kind: str) -> None:
    run.save(kind, 9)
    assert [run.start("7", allowed=1).returncode for _ in range(2)] == [0, 0]
    run.save(kind, 10)  # later than 9, though not in the alphabet
    done = [run.start("7", allowed=1) for _ in range(3)]
    assert [each.returncode for each in done] == [0, 0, 2]
    assert "step10" in done[2].stderr


def test_another_job_starts_at_zero(run: Run) -> None:
    assert [run.start("7", allowed=0).returncode for _ in range(2)] == [0, 2]
    assert run.start("8", allowed=0).returncode == 0


def test_another_job_that_still_runs_keeps_the_directory(run: Run) -> None:
    assert run.start("7").returncode == 0
    run.running("7")
    done = run.start("8")
    assert done.returncode == 2
    assert "job 7 is running in" in done.stderr
    assert run.start("7").returncode == 0  # its own restart is no other job
    run.running("")
    assert run.start("8").returncode == 0

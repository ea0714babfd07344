"""slurm/sweep.sh without a SLURM: what it would submit, and what it refuses."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def sweep(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"L2E_VENV": sys.prefix} | variables
    command = [str(ROOT / "slurm" / "sweep.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_dry_run_shows_three_jobs_and_writes_nothing(tmp_path: Path) -> None:
    done = sweep(
        "--dry-run",
        "grid",
        "--time=1:00:00",
        f"runs_dir={tmp_path}",
        "inhibition=none,l2e",
        "seed=1,2",
        L2E_AT_ONCE="3",
    )
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("would submit: ") for line in done.stderr.splitlines() if "would submit" in line]
    training, evaluation, report = map(shlex.split, lines)
    members = f"{tmp_path}/grid/members.json"
    assert training[-2:] == ["slurm/pretrain.sbatch", f"@{members}"]
    assert {"--array=0-3%3", "--time=1:00:00", f"--output={tmp_path}/grid/slurm-%A_%a.log"} <= set(training)
    assert evaluation[-2:] == ["slurm/evaluate.sbatch", f"@{members}"]
    assert {"--array=0-3%3", "--dependency=aftercorr:<training>", "--kill-on-invalid-dep=yes"} <= set(evaluation)
    assert "--time=1:00:00" not in evaluation
    assert report[-2:] == ["slurm/report.sbatch", members]
    assert "--dependency=afterany:<training>:<evaluation>" in report
    said = done.stderr[: done.stderr.index("would submit")]  # before anything is submitted
    assert [line.split() for line in said.splitlines() if "seed2" in line] == [
        [str(number), f"tiny-builtin-{method}-seed2", method, "tiny", "2", "to", "run"]
        for number, method in ((1, "none"), (3, "l2e"))
    ]
    assert f"To train: 4 runs, {4 * 456:,} updates, {4 * 456 * 8 * 128:,} tokens" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: slurm/sweep.sh"),
        (["seed=1,2"], "'seed=1,2' is no name for a sweep"),
        (["--time=1:00:00", "grid"], "'--time=1:00:00' is no name for a sweep"),
        (["runs/grid"], "'runs/grid' is no name for a sweep"),
        (["grid", "--time", "1:00:00"], "--time: write options of sbatch as --option=value"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], message: str) -> None:
    done = sweep(*arguments)
    assert done.returncode != 0
    assert message in done.stderr

"""Processes that are killed: no orphan stays, no restart point is unreadable, the end is that of an undisturbed run."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import torchrun
from small_trainer import Options, train

from l2e.manifest import verify
from l2e.training.engine import start_processes
from l2e.training.restart_points import restart_points

SCRIPT = str(Path(__file__).parent / "small_trainer.py")
PATIENCE = 280


class Run:
    """Two processes in training, and what they say."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        command = [*torchrun(2), SCRIPT, str(folder), json.dumps(options | {"progress": True})]
        self.folder = folder
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said: list[str] = []
        self.pids: dict[int, int] = {}
        self.updates = {0: 0, 1: 0}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def wait_for_updates(self, number: int) -> None:
        """Until each rank has done so many updates."""
        deadline = time.monotonic() + PATIENCE
        while min(self.updates.values()) < number:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.002)

    def kill(self, ranks: list[int]) -> None:
        """Those of `ranks` that have said their process and are alive."""
        for rank in ranks:
            if rank in self.pids and runs(self.pids[rank], self.folder):
                os.kill(self.pids[rank], signal.SIGKILL)

    def end(self) -> int:
        """Its exit code; nothing of it may live on."""
        code = self.process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        deadline = time.monotonic() + 60
        while left := processes_of(self.folder):
            assert time.monotonic() < deadline, f"orphans: {left}"
            time.sleep(0.1)
        return code

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            match = re.match(r"rank (\d) pid (\d+) step", line)
            if match:
                self.pids[int(match[1])] = int(match[2])
                self.updates[int(match[1])] += 1


def runs(pid: int, folder: Path) -> bool:
    """Whether this process is one of `folder` and alive (a zombie is not)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return str(folder).encode() in command and state != "Z"


def processes_of(folder: Path) -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and runs(int(path.name), folder)]


def readable(folder: Path) -> int:
    """Step of the newest restart point; every one of them must be whole."""
    points = restart_points(folder / "checkpoints")
    for point in points:
        verify(point.folder)
    return points[0].step if points else 0


def finish(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    run = Run(folder, options)
    assert run.end() == 0, run.said
    return torch.load(folder / "weights.pt", weights_only=False)


def kill_until(folder: Path, options: dict[str, Any], kills: int, numbers: random.Random) -> None:
    """Kill one rank or both at so many random moments, starting anew each time."""
    for _ in range(kills):
        run = Run(folder, options)
        try:
            run.wait_for_updates(numbers.randint(1, 5))
            time.sleep(numbers.uniform(0, 0.1))
            run.kill(numbers.choice([[0], [1], [0, 1]]))
            assert run.end() != 0, f"it was to be killed, and came to its end: {run.said}"
        finally:
            run.kill([0, 1])
            run.process.kill()
        assert not (folder / "weights.pt").exists()
        readable(folder)


def check(tmp_path: Path, options: dict[str, Any], kills: int) -> None:
    expected = finish(tmp_path / "whole", options)
    kill_until(tmp_path / "killed", options, kills, random.Random(kills))
    found = finish(tmp_path / "killed", options)
    assert found["began"] > 0
    for name, weight in expected["weights"].items():
        assert torch.equal(found["weights"][name], weight), name
    ours, theirs = (end["callbacks"]["inhibition"]["taps"][1]["statistics"]["moments"] for end in (found, expected))
    assert torch.equal(ours["mean"], theirs["mean"])


@pytest.mark.slow
def test_two_kills_of_two_processes_change_nothing(tmp_path: Path) -> None:
    check(tmp_path, {"steps": 24, "every": 1}, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_two_processes_change_nothing(tmp_path: Path) -> None:
    """Every update ends in a save, so most kills come into one."""
    check(tmp_path, {"steps": 160, "every": 1, "dropout": 0.1}, 20)


@pytest.mark.parametrize("write", [6, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 4, 5, 7))])
def test_a_kill_in_the_middle_of_a_file_leaves_the_restart_point_before(tmp_path: Path, write: int) -> None:
    """A restart point is four files: DeepSpeed's two, the trainer's, and the manifest."""
    folder = tmp_path / "killed"
    command = [sys.executable, SCRIPT, str(folder), json.dumps({"kill_at_write": write})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert readable(folder) == (0 if write <= 4 else 4)
    assert list((folder / "checkpoints").glob(".step*.tmp"))
    device = start_processes()
    found, expected = train(folder, Options(), device), train(tmp_path / "whole", Options(), device)
    assert found["began"] == (0 if write <= 4 else 4)
    for name, weight in expected["weights"].items():
        assert torch.equal(found["weights"][name], weight), name
    assert not list((folder / "checkpoints").glob(".step*.tmp"))

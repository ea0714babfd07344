"""Start runs with planted faults, several processes as srun starts them: environment variables and no launcher."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from training_runs import ROOT, SMALL

SCRIPT = Path(__file__).parent / "faulty_pretrain.py"


def start(
    folder: Path,
    name: str,
    *overrides: str,
    faults: list[dict[str, Any]],
    ranks: int = 1,
    launcher: list[str] | None = None,
) -> list[subprocess.Popen[str]]:
    """The processes of a run; with a launcher it is the only one."""
    command = [
        *(launcher or [sys.executable]),
        str(SCRIPT),
        f"runs_dir={folder / 'runs'}",
        f"cache_dir={folder / 'cache'}",
    ]
    command += [f"name={name}", *SMALL, *overrides]
    clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    clean |= {"FAULT": json.dumps(faults), "PYTHONPATH": str(ROOT)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(ranks)}
    processes = []
    for rank in range(ranks if not launcher else 1):
        own = {**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        processes.append(
            subprocess.Popen(
                command,
                env=clean | own,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
            )
        )
    return processes


def end(processes: list[subprocess.Popen[str]], timeout: float = 300) -> list[tuple[int, str]]:
    """Exit code and output of each; none is left behind."""
    try:
        return [
            (process.wait(), printed) for process in processes for printed, _ in [process.communicate(timeout=timeout)]
        ]
    finally:
        for process in processes:
            process.kill()


def run(
    folder: Path, name: str, *overrides: str, faults: list[dict[str, Any]] | None = None, ranks: int = 1
) -> list[tuple[int, str]]:
    """Start and wait: exit code and output of each process."""
    return end(start(folder, name, *overrides, faults=faults or [], ranks=ranks))


def torchrun(processes: int) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = ["--master-addr=127.0.0.1", f"--master-port={free.getsockname()[1]}"]
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *meeting]


def wait_for_line(path: Path, seconds: float = 200) -> None:
    """Until the file has an update's line."""
    limit = time.monotonic() + seconds
    while not (path.exists() and '"loss"' in path.read_text()):
        assert time.monotonic() < limit, f"nothing in {path}"
        time.sleep(0.2)

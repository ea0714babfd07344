"""Start a script of cases in one process or several, and read what each rank saw."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_")
"""How the variables begin by which a process knows that it is one of several."""


def plain_environment() -> dict[str, str]:
    """This process's environment without any launcher's variables."""
    return {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def torchrun(processes: int) -> list[str]:
    """The command before a script's name."""
    address = ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *address]


def train(
    script: str, cases: dict[str, Any], processes: int, folder: Path, gpu: bool = False
) -> list[dict[str, dict[str, Any]]]:
    """Run all cases in one launch of a script of this folder, on the CPU or on GPUs; what each rank saw."""
    (folder / "cases.json").write_text(json.dumps({name: asdict(case) for name, case in cases.items()}))
    launcher = torchrun(processes) if processes > 1 else [sys.executable]
    command = [*launcher, str(Path(__file__).with_name(script)), str(folder / "cases.json"), str(folder)]
    built = folder / "extensions"
    environment = plain_environment() | {"TORCH_EXTENSIONS_DIR": str(built)}
    environment |= {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env=environment, text=True, **streams)
    try:
        printed, _ = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        process.terminate()  # not kill: the launcher must end its ranks
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert not built.exists(), "an operator of DeepSpeed was compiled"
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(processes)]

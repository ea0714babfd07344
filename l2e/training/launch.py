"""Which process of how many this one is, as its launcher says. No heavy imports."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from l2e.errors import UserError

FIRST_PORT, PORTS = 15_000, 16_384
"""Ports for processes that srun started: below 32768, where Linux begins to hand ports out by itself."""


@dataclass(frozen=True)
class Launch:
    """One process among those that were started together."""

    rank: int
    """Number of this process, from 0."""

    ranks: int
    """How many there are."""

    local_rank: int
    """Number of this process on its node, from 0."""

    meeting: dict[str, str] | None
    """MASTER_ADDR and MASTER_PORT, where rank 0 listens; None for a process on its own."""

    def variables(self) -> dict[str, str]:
        """The launch as the environment variables that PyTorch and DeepSpeed read."""
        if self.meeting is None:
            return {"LOCAL_RANK": "0"}
        numbers = {"RANK": self.rank, "WORLD_SIZE": self.ranks, "LOCAL_RANK": self.local_rank}
        return {name: str(number) for name, number in numbers.items()} | self.meeting


def launched(environment: Mapping[str, str] | None = None) -> Launch:
    """Read the launcher's environment variables.

    In this order: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT (torchrun, the deepspeed
    launcher, or set by hand); a step of srun with more than one task; else one process on its own.

    Only a step counts, never a SLURM job as such: in the batch script and in an interactive shell
    SLURM_PROCID is 0 and SLURM_NTASKS what was asked for, and waiting there for the other tasks would
    hang. Within a step MASTER_ADDR and MASTER_PORT may be left out: the first node of the step, and a port
    that follows from the numbers of job and step.

    Raises:
        UserError: half of what is needed, or no numbers.
    """
    environment = os.environ if environment is None else environment
    if "RANK" in environment:
        if missing := [key for key in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if not environment.get(key)]:
            raise UserError(
                f"the environment has RANK and not {', '.join(missing)}: start the processes with torchrun, "
                f"deepspeed or srun, or unset RANK"
            )
        rank, ranks = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        local_rank = _number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else 0
        return _checked(Launch(rank, ranks, local_rank, _meeting(environment)))
    if "SLURM_STEP_ID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
        rank, ranks = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_STEP_NUM_TASKS")
        meeting = _meeting(_meeting_of_step(environment) | dict(environment))
        return _checked(Launch(rank, ranks, _number(environment, "SLURM_LOCALID"), meeting))
    return Launch(0, 1, 0, None)


def device_index(local_rank: int, visible: int) -> int:
    """Which of the visible GPUs is this process's.

    A launcher may show each process all GPUs of the node, or (srun --gpus-per-task=1) its own alone, which
    is number 0 in every process.

    Raises:
        UserError: more processes on the node than GPUs.
    """
    if local_rank < visible:
        return local_rank
    if visible == 1:
        return 0
    raise UserError(
        f"process {local_rank} of this node (from 0) sees {visible} GPUs; start one process for each GPU, no more"
    )


def first_host(nodes: str) -> str:
    """The first name in a SLURM list of nodes: "rack[3-5]node[01-04,7],login" is "rack3node01"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^,\-\]]*)[^\]]*\]", r"\1", first[0] if first else "")


def _meeting(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: environment[key] for key in ("MASTER_ADDR", "MASTER_PORT")}


def _meeting_of_step(environment: Mapping[str, str]) -> dict[str, str]:
    port = FIRST_PORT + (_number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID")) % PORTS
    alone = environment.get("SLURM_STEP_NUM_NODES") == "1"
    host = "127.0.0.1" if alone else first_host(environment.get("SLURM_STEP_NODELIST", ""))
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port)}


def _number(environment: Mapping[str, str], key: str, otherwise: int | None = None) -> int:
    text = environment.get(key, "" if otherwise is None else str(otherwise))
    if not text.isdecimal():
        raise UserError(f"the environment variable {key} must be a whole number, not {text!r}")
    return int(text)


def _checked(launch: Launch) -> Launch:
    if launch.rank >= launch.ranks:
        raise UserError(f"rank {launch.rank} of {launch.ranks} processes: ranks count from 0")
    return launch

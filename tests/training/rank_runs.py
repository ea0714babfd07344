"""One process of the runs in test_ranks_and_stages.py: several small trainings, one after another.

Started with a folder and a JSON list of jobs; two of it by torch.distributed.run. What rank r saw of job n goes to
FOLDER/<job's name>.rank<r>.pt.
"""

import errno
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from small_trainer import Options, train

from l2e.errors import UserError
from l2e.training import background_save
from l2e.training.cadence import Cadence
from l2e.training.engine import process_group


def fill_the_disk() -> Any:
    """A writer that fails from its second file on, twice."""
    usual, written = background_save.write_durably, 0

    def write(path: Path, content: Any) -> None:
        nonlocal written
        written += 1
        if written in (2, 3):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        usual(path, content)

    background_save.write_durably = write  # type: ignore[assignment]
    return usual


def saves_by_the_clock() -> list[int]:
    """Updates after which this rank saves every ten minutes; only rank 0 has a clock that goes."""
    now = 0.0
    cadence = Cadence(0, 10, torch.device("cpu"), lambda: now)
    cadence.start(0)
    found = []
    for step in range(1, 101):
        now += 30.0 if dist.get_rank() == 0 else 0.0
        if cadence.due(step):
            cadence.start(step)
            found.append(step)
    return found


def run(job: dict[str, Any], folder: Path, device: torch.device) -> dict[str, Any]:
    usual = fill_the_disk() if job.get("full_disk_on_rank") == dist.get_rank() else None
    try:
        return train(folder / job["run"], Options(**job["options"]), device)
    except UserError as error:
        return {"refused": str(error)}
    finally:
        if usual:
            background_save.write_durably = usual


def main(folder: Path, jobs: list[dict[str, Any]]) -> None:
    gc.freeze()
    with process_group() as device:
        for job in jobs:
            torch.save(run(job, folder, device), folder / f"{job['name']}.rank{dist.get_rank()}.pt")
        torch.save(saves_by_the_clock(), folder / f"clock.rank{dist.get_rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))

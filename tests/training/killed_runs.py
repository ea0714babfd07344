"""Start runs again and again, killing them with SIGKILL; test_killed_runs.py runs this.

Its one argument is a JSON list of runs: the folder of their logs, the kills as [updates, seconds after the last of
them], and the overrides of scripts/pretrain.py. The attempts are forks of this process, so that the libraries are
imported once. Attempt i writes rows<i>.txt: the update it begins with, then a line for each micro-batch with the
first token of each row that it trains on; what it prints goes to printed<i>.txt. After its kills a run is left alone.
Prints the exit codes of each run's attempts.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

import l2e.cli.pretrain
from l2e.cli.entry import main
from l2e.training.trainer import Trainer


def record(file: TextIO) -> None:
    """Have the trainer write down where it begins and what it trains on."""
    fit, loss = Trainer.fit, Trainer.loss

    def recorded_fit(self: Trainer) -> None:
        print(self.step, file=file, flush=True)
        fit(self)

    def recorded_loss(self: Trainer, tokens: Tensor) -> Any:
        print(*tokens[:, 0].tolist(), file=file, flush=True)
        return loss(self, tokens)

    Trainer.fit, Trainer.loss = recorded_fit, recorded_loss  # type: ignore[method-assign]


def attempt(folder: Path, number: int, overrides: list[str]) -> int:
    """Fork a run; its process id."""
    process = os.fork()
    if process:
        return process
    with (folder / f"printed{number}.txt").open("w") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    record((folder / f"rows{number}.txt").open("w"))
    sys.argv = ["pretrain.py", *overrides]
    code = 1
    try:
        main("pretrain", "l2e.cli.pretrain:run")
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kill_after(process: int, rows: Path, updates: int, seconds: float) -> int:
    """Kill the process some time after it has begun so many updates; its exit code, -9 if it was killed."""
    while not rows.exists() or len(rows.read_text().splitlines()) < 1 + updates:
        if os.waitpid(process, os.WNOHANG)[0]:
            raise SystemExit(f"ended before it had begun {updates} updates: {rows}")
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(folder: Path, kills: list[tuple[int, float]], overrides: list[str]) -> list[int]:
    """Attempt until no kill is left; the exit codes."""
    codes = []
    for number, (updates, seconds) in enumerate(kills):
        codes.append(kill_after(attempt(folder, number, overrides), folder / f"rows{number}.txt", updates, seconds))
    _, status = os.waitpid(attempt(folder, len(kills), overrides), 0)
    return [*codes, os.waitstatus_to_exitcode(status)]


if __name__ == "__main__":
    assert l2e.cli.pretrain  # imported before the forks
    print(json.dumps([run(Path(one["logs"]), one["kills"], one["overrides"]) for one in json.loads(sys.argv[1])]))

"""scripts/pretrain.py with a fault planted in it, for test_stop.py and test_lost_ranks.py.

The environment variable FAULT holds a JSON list of {"rank", "step", "event", "action"}: at that event of that update
(counted from 0) that rank does what the action says. With "member" only a run that has this among its overrides.
"""

import json
import os
import signal
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from l2e.cli import entry, pretrain
from l2e.training.callbacks.checkpoint import CheckpointCallback
from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class Fault(Callback):
    """Do `action` at `event` of update `step` on `rank`."""

    priority = -10_000

    def __init__(self, rank: int, step: int, event: str, action: str) -> None:
        self.rank, self.step, self.action = rank, step, action
        setattr(self, event, self.strike)

    def strike(self, trainer: Trainer) -> Tensor | None:
        if trainer.step != self.step or dist.get_rank() != self.rank:
            return None
        if self.action == "nan":
            return torch.tensor(torch.nan)
        if self.action == "raise":
            raise ZeroDivisionError("planted")
        os.kill(os.getpid(), getattr(signal, self.action))
        return None


def _with_faults(planted: list[dict[str, Any]]) -> None:
    callbacks = pretrain.all_callbacks
    pretrain.all_callbacks = lambda *given: [*callbacks(*given), *(Fault(**fault) for fault in planted)]


def _signal_in(owner: Any, name: str) -> None:
    """A SIGTERM at the start of a function."""
    function = getattr(owner, name)

    def signalled(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return function(*given, **named)

    setattr(owner, name, signalled)


if __name__ == "__main__":
    faults = [fault for fault in json.loads(os.environ["FAULT"]) if fault.pop("member", sys.argv[0]) in sys.argv]
    _with_faults([fault for fault in faults if "event" in fault])
    places = {
        "set-up": (pretrain, "open_data"),
        "save": (CheckpointCallback, "save"),
        "eval": (pretrain, "evaluate_exports"),
    }
    for fault in faults:
        if "within" in fault:
            _signal_in(*places[fault["within"]])
    entry.main("pretrain", "l2e.cli.pretrain:run")

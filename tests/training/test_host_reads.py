"""Where an update makes the host wait for the device: every value that Python reads out of a tensor."""

import traceback
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import build_trainer, small_model
from torch.utils._python_dispatch import TorchDispatchMode

import l2e
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.metrics import MetricsCallback
from l2e.training.engine import process_group
from l2e.training.trainer import Trainer

READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select"}
"""What needs a value on the host (item, tolist, float, bool and if all end in the first), or a size from one."""


class Reads(TorchDispatchMode):
    """Counts them by the file of the package, or of DeepSpeed, that asked; torch's own frames are passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in READS:
            self.found[asked_by()] += 1
        return func(*args, **(kwargs or {}))


WHOLE = ("tolist", "cpu", "numpy")
"""Methods that read a whole tensor without an operation that the mode above sees."""


def count_whole(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    def counting(usual: Any) -> Any:
        def method(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.dim():  # a single number is counted above
                reads.found[asked_by()] += 1
            return usual(self, *args, **kwargs)

        return method

    for name in WHOLE:
        monkeypatch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name)))


def asked_by() -> str:
    for frame in reversed(traceback.extract_stack()):
        parts = Path(frame.filename).parts
        if "deepspeed" in parts or ("l2e" in parts and "tests" not in parts):
            return "deepspeed" if "deepspeed" in parts else Path(frame.filename).stem
    return "elsewhere"


def reads_of_updates(stage: int, method: str, monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """Of each of ten updates; metrics are handed over after the fifth and the last."""
    model = small_model()
    settings = {"weight": 0.01, "late_start": 1, "warmup": 1} if method == "l2e" else {}
    with process_group():
        inhibition = l2e.attach(model, method, **settings)
        rows: list[Any] = []
        callbacks = [InhibitionCallback(inhibition, 5), MetricsCallback(5, [rows.extend], lambda trainer, speed: {})]
        trainer = build_trainer(callbacks, stage=stage, model=model, steps=10, loss_chunk=None)
        found: list[Counter[str]] = []
        fitted = Trainer.update

        def update(self: Trainer) -> None:
            found.append(reads.found.copy())
            fitted(self)

        trainer.update = update.__get__(trainer)  # type: ignore[method-assign]
        try:
            with Reads() as reads:
                count_whole(reads, monkeypatch)
                trainer.fit()
                found.append(reads.found.copy())
        finally:
            trainer.engine.close()
    assert len(rows) == 10
    return [after - before for before, after in pairwise(found)]


@pytest.mark.parametrize(
    ("stage", "method", "allowed"),
    [
        (1, "none", {}),
        (1, "l2e", {"statistics": 1}),  # whether the tapped outputs are finite: one number an update
        (0, "none", {"engine": 1}),  # whether the norm is finite; DeepSpeed reads it itself from stage 1 on
    ],
)
def test_what_an_update_reads(
    stage: int, method: str, allowed: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = reads_of_updates(stage, method, monkeypatch)
    quiet = [
        reads for number, reads in enumerate(updates, start=1) if number not in (1, 2, 5, 10)
    ]  # 2: the warm-up of the threshold
    for reads in quiet:
        ours = {name: count for name, count in reads.items() if name != "deepspeed"}
        assert ours == allowed, ours
        assert reads["deepspeed"] <= 6  # its norm, and whether to clip, for each of two groups
    # The counter sees: metrics are read where they are handed over.
    assert updates[4]["metrics"] == 11  # loss and norm of five updates, and the losses averaged over ranks

"""A small training with restart points, without the command line: for tests, and for processes that they kill.

As a script: python small_trainer.py FOLDER OPTIONS, where OPTIONS is JSON, alone or under torch.distributed.run.
Trains to the end, from the newest restart point, and writes FOLDER/weights.pt.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

import l2e
from l2e import files, manifest
from l2e.data import StepLoader
from l2e.models import build_pythia
from l2e.training import background_save
from l2e.training.callbacks.checkpoint import CheckpointCallback, resume
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.metrics import MetricsCallback, MetricsFile
from l2e.training.callbacks.randomness import RandomnessCallback
from l2e.training.config import CheckpointConfig, DeepSpeedConfig, TrainingConfig
from l2e.training.engine import Engine, process_group
from l2e.training.events import Callback
from l2e.training.restart_points import Identity
from l2e.training.trainer import Trainer

VOCABULARY, LENGTH, BATCH = 96, 16, 4


class Rows:
    """Walks in small steps; row i is a function of i."""

    def __len__(self) -> int:
        return 1 << 30

    def gather(self, positions: Sequence[int]) -> npt.NDArray[Any]:
        rows = []
        for position in positions:
            numbers = np.random.Generator(np.random.PCG64(position))
            rows.append((numbers.integers(VOCABULARY) + numbers.integers(0, 4, LENGTH + 1).cumsum()) % VOCABULARY)
        return np.stack(rows)

    def prefetch(self, positions: Sequence[int]) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        return {"rows": "walks"}


@dataclass(kw_only=True)
class Options:
    """Of one training."""

    steps: int = 12
    every: int = 4
    keep: int = 2
    stage: Any = 1
    precision: Any = "fp32"
    method: str = "l2e"
    dropout: float = 0.0
    """Of the embedding's output."""

    lr: float = 2e-3
    data: str = "walks"
    stop_after: int = 0
    """Leave the loop as if killed, after this many updates."""

    kill_at_write: int = 0
    """SIGKILL to this process in the middle of its n-th file of restart points, manifests included."""

    progress: bool = False
    """Print each step."""

    extra: list[Callback] = field(default_factory=list)


class Stop(Callback):
    """End the loop with an exception after `step` updates."""

    priority = 1000

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise KeyboardInterrupt


class Show(Callback):
    """Print each step, line and newline in one write: print() makes two, and two ranks' lines came out as one."""

    def after_step(self, trainer: Trainer) -> None:
        os.write(1, f"rank {dist.get_rank()} pid {os.getpid()} step {trainer.step}\n".encode())


def identity(options: Options) -> Identity:
    return Identity(
        config={"training": {"lr": options.lr, "precision": options.precision}, "deepspeed": {"stage": options.stage}},
        data={"rows": options.data},
        ranks=dist.get_world_size(),
        stage=options.stage,
        precision=options.precision,
        versions={"torch": torch.__version__},
        git={},
    )


def build(folder: Path, options: Options, device: torch.device) -> Trainer:
    """A trainer at step 0 that keeps its restart points in `folder/checkpoints`."""
    training = TrainingConfig(
        steps=options.steps,
        batch_size=BATCH,
        seq_length=LENGTH,
        lr=options.lr,
        eps=1e-5,  # see deepspeed_rank.py
        schedule="cosine",
        precision=options.precision,
    )
    micro = training.micro_batch(dist.get_world_size())
    loader = StepLoader(Rows(), BATCH, micro, dist.get_rank(), dist.get_world_size())
    model = build_pythia("tiny", vocab_size=VOCABULARY, max_length=LENGTH, seed=3)
    if options.dropout:
        model.gpt_neox.emb_dropout.p = options.dropout
    zero = DeepSpeedConfig(stage=options.stage)
    engine = Engine(model, training, zero, micro_batch_size=micro, accumulation=loader.accumulation, device=device)
    settings = {"late_start": 1, "warmup": 1, "rate": 0.1, "reduction": "sequence", "forget_after": 3}
    inhibition = l2e.attach(model, options.method, **(settings | {"weight": 0.01} if options.method == "l2e" else {}))
    folder.mkdir(parents=True, exist_ok=True)
    config = CheckpointConfig(every=options.every, every_minutes=0, keep=options.keep)
    callbacks = [
        RandomnessCallback(1),
        InhibitionCallback(inhibition, 5),
        MetricsCallback(5, [MetricsFile(folder / "metrics.jsonl")], lambda trainer, speed: {}),
        CheckpointCallback(folder / "checkpoints", config, identity(options)),
        *options.extra,
        *([Stop(options.stop_after)] if options.stop_after else []),
        *([Show()] if options.progress else []),
    ]
    return Trainer(engine, loader, training, callbacks)


def train(folder: Path, options: Options, device: torch.device) -> dict[str, Any]:
    """Continue to the end (or the stop); returns weights and the states of the callbacks."""
    trainer = build(folder, options, device)
    try:
        began = resume(trainer, folder / "checkpoints", identity(options))
        try:
            trainer.fit()
        except KeyboardInterrupt:
            wait_for_saves(trainer)
        with trainer.engine.whole_weights():
            weights = {name: p.detach().clone() for name, p in trainer.engine.model.named_parameters()}
        return {"weights": weights, "began": began, "step": trainer.step, **trainer.state_dict()}
    finally:
        trainer.engine.close()


def wait_for_saves(trainer: Trainer) -> None:
    for callback in trainer.callbacks:
        if isinstance(callback, CheckpointCallback):
            callback.after_training(trainer)


def kill_in_the_middle_of_write(number: int) -> None:
    """Write half of the n-th file, then die."""
    written = 0

    def write(path: Path, content: memoryview) -> None:
        nonlocal written
        written += 1
        if written == number:
            path.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        files.write_durably(path, content)

    background_save.write_durably = manifest.write_durably = write  # type: ignore[assignment]


def main(folder: Path, options: Options) -> None:
    if options.kill_at_write:
        kill_in_the_middle_of_write(options.kill_at_write)
    with process_group() as device:
        result = train(folder, options, device)
        if dist.get_rank() == 0:
            torch.save(result, folder / "weights.pt.tmp")
            (folder / "weights.pt.tmp").rename(folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Options(**json.loads(sys.argv[2])))

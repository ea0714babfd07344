"""The trainer benchmark: that all ways train the same, its JSON. No timing is asserted."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from l2e.benchmarks import trainer
from l2e.benchmarks.trainer_config import TrainerBenchmarkConfig
from l2e.benchmarks.trainer_ways import BareLoop, HuggingFace, Ours, Way
from l2e.training.engine import process_group

ROOT = Path(__file__).parents[2]
SMALL = {"model": "tiny", "micro_batch_size": 2, "micro_batches": 2, "seq_length": 16, "steps": 2, "rounds": 1}
CPU = torch.device("cpu")


def without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_ours_and_the_bare_loop_train_the_same(tmp_path: Path) -> None:
    """Weights after three updates of two micro-batches: not one more update than the other, no other rate or batch."""
    config = TrainerBenchmarkConfig(**SMALL)
    rows = config.rows(4 * 3)
    bare = BareLoop(config, rows, CPU)
    with process_group() as device:
        ours = Ours(config, rows, device, tmp_path)
        start = [p.detach().clone() for p in ours.trainer.engine.model.parameters()]
        try:
            assert ours() > 0
            assert bare() > 0
            pairs = list(zip(ours.trainer.engine.model.parameters(), bare.model.parameters(), strict=True))
            wrong = sum(float((a - b).square().sum()) for a, b in pairs)
            moved = sum(float((a - b).square().sum()) for a, b in zip(bare.model.parameters(), start, strict=True))
        finally:
            ours.trainer.engine.close()
    assert len(ours.ends) == len(bare.ends) == 3
    assert ours.losses == pytest.approx(bare.losses, rel=1e-5)
    assert (wrong / moved) ** 0.5 < 1e-2


def test_hugging_faces_trainer_trains_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss leaves out each row's last token: the bare loop without it."""
    without_a_launcher(monkeypatch)
    config = TrainerBenchmarkConfig(**SMALL)
    rows = config.rows(4 * 3)
    theirs = HuggingFace(config, rows, CPU, tmp_path)
    assert theirs() > 0
    bare = BareLoop(config, rows[:, :-1], CPU)
    bare()
    assert len(theirs.ends) == 3
    assert theirs.losses == pytest.approx([sum(bare.losses) / 3], rel=1e-3)
    pairs = list(zip(theirs.trainer.model.parameters(), bare.model.parameters(), strict=True))
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-4  # three updates of 1e-4 each


def test_the_ratios(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ours takes half a second for 2 x 4 x 16 tokens, the others one, two and (litgpt) none, being absent."""

    def way(seconds: float) -> Any:
        class Made(Way):
            def __init__(self, *_: Any) -> None:
                super().__init__()
                self.losses = [math.log(96)]
                self.trainer = type("T", (), {"engine": type("E", (), {"close": staticmethod(lambda: None)})})

            def __call__(self) -> float:
                return seconds

        return Made

    def absent(*_: Any) -> Way:
        raise ImportError("no litgpt here")

    for name, found in {"Ours": way(0.5), "HuggingFace": way(1.0), "BareLoop": way(2.0), "LitGpt": absent}.items():
        monkeypatch.setattr(trainer, name, found)
    results = trainer.measure(TrainerBenchmarkConfig(**SMALL), CPU, tmp_path)
    assert (results["vs_hf_trainer"], results["vs_bare_loop"], results["vs_litgpt"]) == (2.0, 4.0, None)
    assert results["ours"]["tokens_per_second"] == 2 * 4 * 16 / 0.5


@pytest.mark.slow
def test_the_script() -> None:
    overrides = [f"benchmark.{key}={value}" for key, value in SMALL.items()]
    command = [sys.executable, "scripts/benchmark.py", "benchmark=trainer", *overrides]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["benchmark"] == "trainer"
    assert printed["results"]["vs_hf_trainer"] > 0
    assert printed["results"]["vs_bare_loop"] > 0


def test_litgpts_loop() -> None:
    pytest.importorskip("litgpt", reason="litgpt is not installed")
    from l2e.benchmarks.trainer_litgpt import LitGpt

    config = TrainerBenchmarkConfig(**(SMALL | {"model": "pythia-14m"}))
    way = LitGpt(config, config.rows(12), CPU)
    assert way() > 0
    assert len(way.ends) == 3
    assert way.losses[0] == pytest.approx(math.log(50304), rel=0.02)
    assert way.losses[2] < way.losses[0]
    with pytest.raises(ImportError, match="knows no model tiny"):
        LitGpt(TrainerBenchmarkConfig(**SMALL), config.rows(12), CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"model": "gpt"}, "unknown model 'gpt'"),
        ({"precision": "bf16", "stage": 0}, "stage: bf16 needs 1 or higher"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainerBenchmarkConfig(**(SMALL | settings))

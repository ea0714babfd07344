"""Runs that a signal stops: where, with what saved, with which exit code, and how they go on."""

import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_runs
import pytest
import torch
from faulty_runs import run, start
from small_training import build_trainer
from training_runs import metrics, pretrain, weights

from l2e.errors import Stopped
from l2e.training.callbacks.metrics import MetricsCallback, Row
from l2e.training.callbacks.stop import StopCallback
from l2e.training.engine import process_group
from l2e.training.events import Callback
from l2e.training.ranks import HostGroup

STOPPED = 85  # DESIGN.md, 5


class SignalAfter(Callback):
    """Leave the note that a signal leaves, after some updates."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.signals: Any = SimpleNamespace(received=None)
        self.saved: list[int] = []
        self.closed = 0

    def save(self, trainer: Any) -> None:
        self.saved.append(trainer.step)

    def before_step(self, trainer: Any) -> None:
        if trainer.step == self.step:
            self.signals.received = signal.SIGUSR1

    def close(self, trainer: Any) -> None:
        self.closed += 1


@pytest.fixture
def alone() -> Iterator[None]:
    with process_group():
        yield


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("at", "done", "saved"),
    [
        pytest.param(2, 3, [3], id="in the middle: the update is finished and saved"),
        pytest.param(5, 6, [], id="in the last update: the export needs no restart point"),
        pytest.param(-1, 0, [], id="before the first update: there is nothing to save"),
    ],
)
def test_where_a_run_stops_and_what_it_saves(at: int, done: int, saved: list[int]) -> None:
    rows: list[Row] = []
    probe = SignalAfter(at)
    if at < 0:
        probe.signals.received = signal.SIGTERM
    pending = MetricsCallback(4, [rows.extend], lambda trainer, speed: {})
    stop = StopCallback(probe.signals, HostGroup(timedelta(minutes=1)), pending, probe)  # type: ignore[arg-type]
    trainer = build_trainer([probe, pending, stop])
    with pytest.raises(Stopped):
        trainer.fit()
    assert trainer.step == done
    assert probe.saved == saved
    assert [row["step"] for row in rows] == list(range(1, done + 1))  # those that were pending too
    assert probe.closed == 1
    trainer.engine.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run, and the data of all."""
    folder = tmp_path_factory.mktemp("runs")
    pretrain(folder, "whole", "logging.peak_tflops=0.001")
    return folder


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly_and_a_second_signal_does_not_disturb_the_save(folder: Path) -> None:
    faults = [{"rank": 0, "step": 6, "event": "before_step", "action": "SIGUSR1"}, {"within": "save"}]
    ((code, printed),) = run(folder, "cut", faults=faults)
    assert code == STOPPED, printed
    assert "after update 7 of 12" in printed
    run_folder = folder / "runs" / "cut"
    assert [path.name for path in (run_folder / "checkpoints").iterdir()] == ["step7"]
    assert list(metrics(folder, "cut", "loss")) == list(range(1, 8))
    assert not (run_folder / "hf").exists()
    assert "resumed after 7 updates" in pretrain(folder, "cut")
    assert metrics(folder, "cut", "loss") == metrics(folder, "whole", "loss")
    expected = weights(folder, "whole")
    for name, weight in weights(folder, "cut").items():
        assert torch.equal(weight, expected[name]), name


def test_all_ranks_stop_after_the_same_update_when_one_gets_the_signal(folder: Path) -> None:
    faults = [{"rank": 1, "step": 4, "event": "before_step", "action": "SIGTERM"}]
    results = run(folder, "two", faults=faults, ranks=2)
    assert [code for code, _ in results] == [STOPPED, STOPPED], results
    assert "stopped by a signal on another rank after update 5 of 12" in results[0][1]
    assert [path.name for path in (folder / "runs" / "two" / "checkpoints").iterdir()] == ["step5"]
    state = torch.load(folder / "runs" / "two" / "checkpoints" / "step5" / "trainer.pt", weights_only=False)
    assert state["step"] == 5


@pytest.mark.slow
def test_a_signal_during_set_up_leaves_nothing_behind(folder: Path) -> None:
    ((code, printed),) = run(folder, "early", faults=[{"within": "set-up"}])
    assert code == STOPPED, printed
    assert "stopped by SIGTERM before the first update" in printed
    assert not (folder / "runs" / "early").exists()


@pytest.mark.slow
def test_a_signal_during_evaluation_ends_it_and_the_next_start_evaluates(folder: Path) -> None:
    overrides = ["evaluation.enabled=true", "evaluation.limit=8", "evaluation.initial=false"]
    ((code, printed),) = run(folder, "scored", *overrides, faults=[{"within": "eval"}])
    assert code == STOPPED, printed
    summary = folder / "runs" / "scored" / "eval" / "step12" / "summary.json"
    assert not summary.exists()
    assert "is trained already" in pretrain(folder, "scored", *overrides)
    assert json.loads(summary.read_text())


@pytest.mark.slow
def test_a_stopped_sweep_stops_as_a_whole_and_its_next_start_goes_on(folder: Path) -> None:
    overrides = ["name=sweep-${inhibition.weight}", "inhibition.weight=0,0.01", "-m"]
    faults = [{"rank": 0, "step": 6, "event": "before_step", "action": "SIGUSR1"}]
    ((code, printed),) = run(folder, "overridden", *overrides, faults=faults)
    assert code == STOPPED, printed
    assert [path.name for path in (folder / "runs").glob("sweep-*")] == ["sweep-0"]
    pretrain(folder, "overridden", *overrides)
    expected = weights(folder, "whole")
    for name, weight in weights(folder, "sweep-0.01").items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.slow
def test_torchrun_hands_sigterm_on_and_hides_the_exit_code(folder: Path) -> None:
    """All save, and torchrun itself ends with 1 whatever its processes said: docs/running.md."""
    launcher = faulty_runs.torchrun(2)
    (agent,) = start(
        folder, "launched", "training.steps=4000", "data.world.documents=300", faults=[], launcher=launcher
    )
    faulty_runs.wait_for_line(folder / "runs" / "launched" / "metrics.jsonl")
    agent.send_signal(signal.SIGTERM)
    ((code, printed),) = faulty_runs.end([agent])
    assert "stopped by SIGTERM after update" in printed
    (checkpoint,) = (folder / "runs" / "launched" / "checkpoints").iterdir()
    assert checkpoint.name.startswith("step")
    assert code == 1

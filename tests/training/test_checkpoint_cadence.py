"""When restart points and exports are due."""

import itertools

import pytest
import torch

from l2e.errors import UserError
from l2e.settings import build_settings
from l2e.training.cadence import Cadence
from l2e.training.config import CheckpointConfig
from l2e.training.engine import start_processes


class Clock:
    """A clock that says what it is told, and counts how often it is asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


def saves(cadence: Cadence, clock: Clock, seconds: list[float]) -> list[tuple[int, float]]:
    """Steps and times at which a run saves whose updates take so long."""
    start_processes()
    cadence.start(0)
    found = []
    for step, duration in enumerate(seconds, start=1):
        clock.now += duration
        if cadence.due(step):
            cadence.start(step)
            found.append((step, clock.now - 1000))
    return found


def test_minutes_are_kept_to_within_an_update() -> None:
    clock = Clock()
    found = saves(Cadence(0, 10, torch.device("cpu"), clock), clock, [0.7] * 4000)
    assert len(found) == 4
    times = [0.0] + [time for _, time in found]
    for before, after in itertools.pairwise(times):
        assert 600 <= after - before < 601.5
    assert clock.asked < 4 * 20 + 10  # not once an update


def test_minutes_are_kept_when_updates_get_slower() -> None:
    """A look at the clock is planned at most 60 s ahead by the pace so far."""
    clock = Clock()
    found = saves(Cadence(0, 10, torch.device("cpu"), clock), clock, [0.1] * 3000 + [1.0] * 900)
    (_, first), *_ = found
    assert 600 <= first < 900


def test_an_update_longer_than_the_cadence_saves_each_time() -> None:
    clock = Clock()
    found = saves(Cadence(0, 0.5, torch.device("cpu"), clock), clock, [40.0] * 5)
    assert [step for step, _ in found] == [1, 2, 3, 4, 5]


def test_updates_are_counted_and_both_cadences_work_together() -> None:
    clock = Clock()
    assert [s for s, _ in saves(Cadence(3, 0, torch.device("cpu"), clock), clock, [1.0] * 10)] == [3, 6, 9]
    assert saves(Cadence(0, 0, torch.device("cpu"), clock), clock, [1000.0] * 10) == []
    # Every 100 updates of a second, and a minute: a restart point by count starts the minute anew.
    found = [s for s, _ in saves(Cadence(100, 1, torch.device("cpu"), clock), clock, [1.0] * 200)]
    assert found == [60, 100, 160, 200]


def test_pythias_exports() -> None:
    """pythia.md D.6: 154 published checkpoints of 143,000 updates."""
    steps = CheckpointConfig(exports="pythia").export_steps(143_000)
    assert steps[:12] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    assert len(steps) == 154
    assert (steps[-2], steps[-1]) == (142_000, 143_000)
    assert CheckpointConfig(exports="pythia").export_steps(14_300)[-2:] == [14_000, 14_300]
    assert CheckpointConfig(exports="pythia").export_steps(3) == [0, 1, 2, 3]
    assert CheckpointConfig(exports=[7, 5]).export_steps(12) == [5, 7, 12]
    assert CheckpointConfig().export_steps(12) == [12]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"every_minutes": -1}, "every_minutes must be at least 0, not -1"),
        ({"exports": [-1]}, "exports must be steps of at least 0"),
        ({"exports": "pile"}, "checkpoint.exports"),
        ({"keep": 0}, "keep must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(tree: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_settings(CheckpointConfig, tree, "checkpoint")

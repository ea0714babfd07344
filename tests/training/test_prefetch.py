"""Micro-batches one ahead: the same, in the same order, and nobody disturbed."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from l2e.data import StepLoader
from l2e.training.prefetch import Prefetch

CPU = torch.device("cpu")
WAIT = 60.0


class Rows:
    """Row i is [i, i + 1, i + 2]; remembers what was read, and whether two threads ever read at once."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.read: list[int] = []
        self.overlapped = False
        self.reached = threading.Condition()
        self._busy = threading.Lock()

    def __len__(self) -> int:
        return 1000

    def gather(self, positions: Sequence[int]) -> npt.NDArray[Any]:
        self.overlapped |= not self._busy.acquire(blocking=False)
        try:
            if self.fail_at in positions:
                raise OSError(f"row {self.fail_at} is gone")
            with self.reached:
                self.read += positions
                self.reached.notify_all()
            time.sleep(0.002)  # long enough for another thread to come
            return np.array([[p, p + 1, p + 2] for p in positions])
        finally:
            self._busy.release()

    def prefetch(self, positions: Sequence[int]) -> None:
        pass

    def fingerprint(self) -> dict[str, Any]:
        return {}


def loader(rows: Rows) -> StepLoader:
    """Two micro-batches of two rows an update on each of two ranks; this is rank 1."""
    return StepLoader(rows, 8, 2, 1, 2)


@pytest.mark.parametrize("steps", [[0, 1, 2, 3], [5, 6], [0, 0, 0], [3, 7, 4], [0]])
def test_the_same_micro_batches(steps: list[int]) -> None:
    prefetch = Prefetch(loader(Rows()), CPU)
    for number, step in enumerate(steps):
        found = list(prefetch.micro_batches(step, last=number == len(steps) - 1))
        expected = list(loader(Rows()).micro_batches(step))
        assert len(found) == 2
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    prefetch.close()


def test_the_next_is_read_while_this_one_is_used() -> None:
    rows = Rows()
    prefetch = Prefetch(loader(rows), CPU)
    parts = prefetch.micro_batches(0, last=False)
    next(parts)  # rows 2 and 3: the first half of a part is rank 0's
    with rows.reached:
        assert rows.reached.wait_for(lambda: rows.read == [2, 3, 6, 7], WAIT)
    next(parts)
    assert next(parts, None) is None
    with rows.reached:  # the next update's first, before anybody asks
        assert rows.reached.wait_for(lambda: rows.read == [2, 3, 6, 7, 10, 11], WAIT)
    prefetch.close()


def test_nothing_is_read_past_the_last_update() -> None:
    rows = Rows()
    prefetch = Prefetch(loader(rows), CPU)
    list(prefetch.micro_batches(0, last=True))
    prefetch.close()
    assert rows.read == [2, 3, 6, 7]


def test_an_error_comes_when_its_rows_are_asked_for() -> None:
    prefetch = Prefetch(loader(Rows(fail_at=10)), CPU)
    assert len(list(prefetch.micro_batches(0, last=False))) == 2
    with pytest.raises(OSError, match="row 10 is gone"):
        next(prefetch.micro_batches(1, last=False))
    prefetch.close()


def test_closed_there_is_no_thread_and_it_can_go_on() -> None:
    prefetch = Prefetch(loader(Rows()), CPU)
    for _ in range(2):
        assert len(list(prefetch.micro_batches(0, last=False))) == 2
        assert any(thread.name.startswith("l2e-rows") for thread in threading.enumerate())
        prefetch.close()
        assert not any(thread.name.startswith("l2e-rows") for thread in threading.enumerate())


def test_only_one_thread_reads_at_a_time() -> None:
    """As when a bad batch is read again while the next one comes."""
    rows = Rows()
    ours = loader(rows)
    prefetch = Prefetch(ours, CPU)
    for step in range(50):
        for _ in prefetch.micro_batches(step, last=False):
            ours.gather(range(4))
    prefetch.close()
    assert not rows.overlapped

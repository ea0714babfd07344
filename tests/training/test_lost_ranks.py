"""One of two processes ends, is stuck or goes wrong: the other does not wait for it. No launcher looks after them."""

import json
from pathlib import Path

import numpy as np
import pytest
from faulty_runs import end, run, start

from l2e.training.ranks import _lost


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def planted(rank: int, action: str, event: str = "before_step") -> list[dict[str, object]]:
    return [{"rank": rank, "step": 4, "event": event, "action": action}]


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_other_long_before_the_time_limit(folder: Path, victim: int) -> None:
    """The limit is 30 minutes; `end` waits for a sixth of that."""
    results = run(folder, f"killed{victim}", faults=planted(victim, "SIGKILL"), ranks=2)
    code, printed = results[1 - victim]
    assert results[victim][0] == -9
    assert code == 1
    assert f"error: rank {1 - victim} has lost another process of this run (" in printed
    assert "peer" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
def test_an_error_in_one_process_is_told_by_that_one_and_ends_the_other(folder: Path) -> None:
    (first, told), (second, trace) = run(folder, "error", faults=planted(1, "raise"), ranks=2)
    assert (first, second) == (1, 1)
    assert "rank 0 has lost another process" in told
    assert "Traceback" not in told
    assert "ZeroDivisionError: planted" in trace


@pytest.mark.slow
def test_a_process_that_is_stuck_is_given_up_at_the_time_limit(folder: Path) -> None:
    processes = start(folder, "stuck", "training.timeout_minutes=1.0", faults=planted(1, "SIGSTOP"), ranks=2)
    try:
        ((code, printed),) = end(processes[:1])
    finally:
        processes[1].kill()
        processes[1].communicate()
    assert code == 1
    assert "rank 0 has lost another process" in printed
    assert "imed out" in printed


def test_both_stop_with_one_message_when_one_gradient_is_not_finite(folder: Path) -> None:
    (first, told), (second, silent) = run(folder, "spoiled", faults=planted(1, "nan", "add_to_loss"), ranks=2)
    assert (first, second) == (1, 1)
    assert "error: update 5: the gradient is not finite" in told
    assert "Traceback" not in told
    assert silent.strip() == ""
    bad = folder / "runs" / "spoiled" / "bad_batches"
    assert np.load(bad / "step5.npz")["positions"].tolist() == [16, 17, 18, 19]
    assert "--- row 16, loss of its micro-batch" in (bad / "step5.txt").read_text()
    lines = (folder / "runs" / "spoiled" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3, 4]


def test_the_reason_is_told_without_the_librarys_source_files() -> None:
    gloo = (
        "[/__w/pytorch/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:6811: Connection reset by peer. This is"
    )
    text = _lost(RuntimeError(f"{gloo} typically caused by a remote worker hanging.\nMore."), rank=3)
    assert text.startswith(
        "rank 3 has lost another process of this run (Read error [127.0.0.1]:6811: Connection reset by peer); "
    )

"""Our way against other ways of doing one piece of work, in turns."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from l2e.benchmarks.pairing import BASELINE, median, paired_ratios, quartiles, round_order

Work = Callable[[], float]
"""Does the work; returns the seconds that it took."""


def timed(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Work:
    """The work of calling `action`."""

    def work() -> float:
        start = clock()
        action()
        return clock() - start

    return work


def compare(ours: Work, others: Mapping[str, Work], rounds: int, amount: float) -> dict[str, dict[str, Any]]:
    """Speeds, and how many times as fast ours is.

    Each work is done once untimed. Then, in every round, each of the others stands between two of ours.

    Args:
        ours: the work our way.
        others: the same work by name of the way.
        rounds: timings of each.
        amount: how much is done, e.g. tokens.

    Returns:
        Under "ours" and each name: `per_second`, its quartiles as `spread`, and for the others `ratio`, our
        speed over theirs, with its quartiles as `ratio_spread`.
    """
    works = {BASELINE: ours, **others}
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for index in range(rounds):
        order = round_order(list(others), index) if others else [BASELINE]
        times = [works[name]() for name in order]
        seconds[BASELINE] += times[::2]
        for name, its_seconds, ratio in paired_ratios(order, times):
            seconds[name].append(its_seconds)
            ratios[name].append(ratio)
    results: dict[str, dict[str, Any]] = {"ours": _speed(seconds[BASELINE], amount)}
    for name, found in ratios.items():
        results[name] = _speed(seconds[name], amount) | {"ratio": median(found), "ratio_spread": quartiles(found)}
    return results


def _speed(seconds: list[float], amount: float) -> dict[str, Any]:
    return {"per_second": amount / median(seconds), "spread": [amount / part for part in reversed(quartiles(seconds))]}

"""The "up" column of the paper's tables."""

from collections.abc import Sequence


def up(accuracies: Sequence[float], baseline: Sequence[float]) -> float:
    """How far the summed accuracy lies above the baseline's, in percent (L20).

    The paper prints this column without a formula; this one reproduces it (method.md 2.19). It compares sums, not
    the mean of per-task ratios, so a task with a high accuracy counts for more.

    Args:
        accuracies: one accuracy per task.
        baseline: the baseline's accuracies on the same tasks.

    Raises:
        ValueError: no tasks, not the same number of tasks, or a baseline whose sum is zero.
    """
    if not accuracies or len(accuracies) != len(baseline):
        raise ValueError(f"up needs the same tasks on both sides, not {len(accuracies)} and {len(baseline)}")
    if sum(baseline) == 0:
        raise ValueError("up is not defined for a baseline whose accuracies sum to zero")
    return 100 * (sum(accuracies) / sum(baseline) - 1)

"""What an update did to an output: by how much its score fell, and how far it moved (rows M19, M20)."""

from torch import Tensor


def decrease_ratio(before: Tensor, after: Tensor) -> Tensor:
    """By how much an update lowered the score: (1 - phi(z') / phi(z)) x 100% (M19).

    Args:
        before: Monosemanticity Scores phi(z) before the update, above 0.
        after: phi(z') of the same outputs after it, with the same statistics.

    Returns:
        Percent, shape of the arguments: positive where the output came nearer to its mean.
    """
    return 100 * (1 - after / before)


def total_update_ratio(before: Tensor, after: Tensor) -> Tensor:
    """By how much an update moved the output: |z' / z - 1| x 100% (M20).

    Args:
        before: outputs z before the update, not 0. Near 0 the ratio explodes, so its mean has a heavy tail.
        after: z' of the same outputs after it.

    Returns:
        Percent, shape of the arguments.
    """
    return 100 * (after / before - 1).abs()

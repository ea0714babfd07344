"""Learning rates by name (pythia.md D.3). Both are pure functions of the update's number, from 0."""

import math


def pythia_v1(step: int, peak: float, total: int = 143_000, warmup: float = 0.01, floor: float = 0.1) -> float:
    """The rate that Pythia was trained with (GPT-NeoX v1.0).

    Update 0 has rate 0 and changes nothing. The cosine aims at 0 over `total` updates counted from the
    end of the warm-up, and is cut off at `floor` x peak: from update 115,139 of 143,000 on it is flat.

    Args:
        step: number of the update, from 0.
        peak: highest rate.
        total: updates of the whole schedule; a run may stop before.
        warmup: share of `total` that the linear warm-up takes.
        floor: lowest rate after the warm-up, as a share of the peak.
    """
    warm = int(warmup * total)
    n = min(step, total - warm)
    if step <= warm and warm:
        return peak * n / warm
    return max(peak / 2 * (1 + math.cos(math.pi * (n - warm) / total)), floor * peak)


def cosine(step: int, peak: float, total: int, warmup: float = 0.01, floor: float = 0.1) -> float:
    """Linear warm-up, then a cosine that ends at `floor` x peak (GPT-NeoX since 2023-08).

    Arguments as in `pythia_v1`.
    """
    warm = int(warmup * total)
    if step < warm:
        return peak * max(1, step) / warm
    progress = min(1.0, (step - warm) / max(1, total - warm))
    return peak * (floor + (1 - floor) / 2 * (1 + math.cos(math.pi * progress)))


SCHEDULES = {"pythia_v1": pythia_v1, "cosine": cosine}

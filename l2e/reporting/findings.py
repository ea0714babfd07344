"""What can and cannot be concluded, in plain sentences that follow from the numbers."""

import math
from collections.abc import Sequence
from typing import Any

from l2e.reporting.cells import decimals
from l2e.reporting.facts import method
from l2e.reporting.paired import LEVEL, Comparison, compare_runs
from l2e.reporting.results import cells_at, find_baseline
from l2e.reporting.runs import RunRecord, TaskResult


def findings(runs: Sequence[RunRecord]) -> list[str]:
    """The sentences under the tables."""
    baseline = find_baseline(runs)
    found = [f"{run.label} has no evaluation yet." for run in runs if run.last_evaluated is None]
    if baseline is None:
        found += [sentence for run in runs for sentence in _against_chance(run)]
        if len(runs) > 1:
            several = any(run.is_baseline for run in runs)
            reason = "The runs are of several models" if several else "No run here is without inhibition"
            found.append(f"{reason}, so nothing is compared with a baseline.")
        return [*found, _seeds(runs)]
    comparisons = compare_runs(runs)
    found += [sentence(one) for one in comparisons]
    found += _not_comparable(runs, baseline, comparisons)
    if len(comparisons) > 1:
        by_chance = LEVEL * len(comparisons)
        found.append(f"Of {len(comparisons)} comparisons, up to {by_chance:.1f} are expected to be marked by chance.")
    found += [text for run in runs if run is not baseline for text in _other_differences(run, baseline)]
    return [*found, _seeds(runs)]


def sentence(one: Comparison) -> str:
    """One comparison in words: the difference, and whether the items' noise alone could have made it."""
    where = f"the baseline on {one.column[1]} ({one.column[0]}-shot, {one.n:,} items)"
    if one.gained + one.lost == 0:
        return f"{one.run.label} answers every item as {where} does."
    if not one.error > 0:
        return f"{one.run.label} against {where}: too few items for a standard error, so nothing can be concluded."
    side = "above" if one.difference > 0 else "below"
    size = f"{decimals(100 * abs(one.difference), 1)} ± {decimals(100 * one.error, 1)} points"
    start = f"{one.run.label} is level with" if one.difference == 0 else f"{one.run.label} is {size} {side}"
    if one.beyond_noise:
        return f"{start} {where}: more than the noise of the items, for this pair of runs."
    if one.beyond_error:
        few = f"only {one.gained + one.lost} items changed (p = {one.p_value:.3f})"
        return f"{start} {where}: beyond two standard errors, but {few}: not enough to conclude from."
    return f"{start} {where}: within noise."


def _not_comparable(runs: Sequence[RunRecord], baseline: RunRecord, comparisons: Sequence[Comparison]) -> list[str]:
    found = []
    compared = {(id(one.run), one.column): one.n for one in comparisons}
    for run in runs:
        if run is baseline or run.last_evaluated is None:
            continue
        for column, result in cells_at(run, run.last_evaluated).items():
            n = compared.get((id(run), column))
            where = f"{run.label} on {column[1]} ({column[0]}-shot)"
            if n is None:
                found.append(f"{where}: no items in common with the baseline, so no paired difference.")
            elif n != result.n:
                found.append(
                    f"{where}: only {n:,} of its {result.n:,} items are the baseline's too; those are compared."
                )
    return found


def _against_chance(run: RunRecord) -> list[str]:
    step = run.last_evaluated
    return [_chance_sentence(run, result) for result in cells_at(run, step).values()]


def _chance_sentence(run: RunRecord, result: TaskResult) -> str:
    start = f"{run.label} answers {decimals(result.acc, 3)} of {result.task} ({result.num_fewshot}-shot)"
    if math.isnan(result.chance) or not result.acc_stderr > 0:
        return f"{start}; how far that is from chance is not known."
    errors = (result.acc - result.chance) / result.acc_stderr
    if abs(errors) <= 2:
        return f"{start}: within two standard errors of chance ({decimals(result.chance, 3)})."
    side = "above" if errors > 0 else "below"
    return f"{start}: {abs(errors):.1f} standard errors {side} chance ({decimals(result.chance, 3)})."


def _seeds(runs: Sequence[RunRecord]) -> str:
    methods = [method(run) for run in runs]
    if len(runs) == 1:
        return "One run with one seed: how much another seed would change is not measured here."
    if len(set(methods)) == len(methods):
        return (
            "One seed per method: seed-to-seed spread is not measured here, so other seeds may give other differences."
        )
    return "Runs are compared one by one: runs of one method are not pooled, seed-to-seed spread is not tested."


def _other_differences(run: RunRecord, baseline: RunRecord) -> list[str]:
    """What else sets a run apart from the baseline: then a difference is not the method's alone."""
    sections = ("seed", "model", "data", "training")
    ours, theirs = (_flat({key: one.config.get(key) for key in sections}) for one in (run, baseline))
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
    if run.environment.get("data") != baseline.environment.get("data"):
        keys.append("the data's fingerprint")
    if None not in (run.last_evaluated, baseline.last_evaluated) and run.last_evaluated != baseline.last_evaluated:
        keys.append("the step evaluated")
    if not keys:
        return []
    named = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
    return [
        f"{run.label} differs from the baseline in {named} too: a difference cannot be put down to the method alone."
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}

"""What a filled table of the papers says, in plain sentences, and what it cannot say."""

from collections.abc import Sequence

from l2e.reporting.cells import decimals
from l2e.reporting.paired import LEVEL
from l2e.reporting.paper_table import Judged
from l2e.reporting.published import PublishedTable
from l2e.reporting.study import BASELINE, Group


def paper_findings(published: PublishedTable, groups: Sequence[Group], judged: Sequence[Judged]) -> list[str]:
    """A sentence for each method, size and number of shots; then what limits them all."""
    found = []
    for group in groups:
        for shots in sorted({one.shots for one in judged}):
            cells = [o for o in judged if (o.scale, o.setting, o.shots) == (group.scale, group.setting, shots)]
            if cells:
                found.append(_sentence(cells))
    with_baseline = {group.scale for group in groups if group.setting == BASELINE}
    found += [
        f"{group.setting}, {group.scale}: there is no run of {BASELINE} of this size, so nothing is compared."
        for group in groups
        if group.scale not in with_baseline
    ]
    return found + _limits(judged) + [_misprint(published, one) for one in published.misprints]


def _sentence(cells: Sequence[Judged]) -> str:
    first = cells[0]
    beyond = [one.column for one in cells if one.beyond_noise]
    differences = "; ".join(_difference(one) for one in cells)
    verdict = f"Beyond noise: {', '.join(beyond)}" if beyond else "All within noise"
    seeds = max(one.effect.seeds for one in cells)
    return (
        f"{first.setting} against {BASELINE}, {first.scale}, {first.shots}-shot, "
        f"{seeds} seed{'s' if seeds > 1 else ''}, in points with 95% intervals: {differences}. {verdict}."
    )


def _difference(one: Judged) -> str:
    if one.effect.error == 0 and one.effect.difference == 0:
        return f"{one.column} no item changed"
    low, middle, high = (
        decimals(100 * value, 1, sign=True) for value in (one.effect.low, one.effect.difference, one.effect.high)
    )
    return f"{one.column} {middle} [{low}, {high}], p {_p(one.p_value)}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _limits(judged: Sequence[Judged]) -> list[str]:
    if not judged:
        return []
    one_seed = [one for one in judged if one.effect.seeds == 1]
    found = [
        f"p-values are corrected for the {len(judged)} differences of this table (Holm), so at most one table in "
        f"{round(1 / LEVEL)} shows a mark by chance."
    ]
    if one_seed:
        found.append(
            "Where there is one seed, intervals and p-values (bootstrap over items, McNemar's exact test) are about "
            "these two models on other items: they do not say that other seeds would give the same."
        )
    if len(one_seed) < len(judged):
        found.append(
            "Where there are several seeds, both seeds and items are counted as random: the intervals are about other "
            "seeds on other items."
        )
    return found


def _misprint(published: PublishedTable, one: dict[str, str]) -> str:
    return (
        f"* In the paper's Table {published.number}, {one['setting']} {one['scale']}, {one['cell']} is printed as "
        f"{one['printed']} where {one['expected']} is expected: {one['why']}."
    )

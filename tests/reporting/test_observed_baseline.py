from pathlib import Path

from l2e.reporting.facts import method
from l2e.reporting.runs import RunRecord


def record(**inhibition: object) -> RunRecord:
    names = RunRecord.__dataclass_fields__
    known = {"path": Path("a"), "label": "a", "config": {"inhibition": inhibition}}
    return RunRecord(**{**{name: {} for name in names}, **known})  # type: ignore[arg-type]


def test_a_penalty_of_weight_zero_is_a_baseline() -> None:
    assert record(method="none").is_baseline
    assert record(method="l2e", weight=0.0).is_baseline
    assert not record(method="l2e", weight=1e-4).is_baseline
    assert method(record(method="l2e", weight=0.0)) == "none (baseline, observed: weight 0)"

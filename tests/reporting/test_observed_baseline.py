from pathlib import Path

from l2e.reporting.facts import method
from l2e.reporting.inhibition_figures import blocks_of, measure
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


def test_a_weight_of_zero_that_is_not_used_makes_no_baseline() -> None:
    assert not record(method="l2e", weight=0.0, strength=0.01).is_baseline
    assert record(method="l2e", weight=1e-4, strength=0.0).is_baseline
    assert not record(method="memel", weight=0.0).is_baseline
    assert not record(method="dropout").is_baseline


def test_a_method_is_told_with_the_settings_that_it_uses() -> None:
    assert method(record(method="l2e", weight=1e-4, strength=0.01, rate=0.02)) == "l2e (strength 0.01, rate 0.02)"
    assert method(record(method="memel", weight=1e-4, rate=0.02, top_k=1)) == "memel (top_k 1)"
    assert method(record(method="dropout", rate=0.02, dropout=0.2)) == "dropout (dropout 0.2)"


def test_taps_named_by_path_are_found_and_numbers_come_in_their_order() -> None:
    keys = [f"inhibition/{tap}/threshold" for tap in ("block10", "block9", "gpt_neox.layers.2.mlp", "a/b")]
    found = RunRecord(**{**{name: {} for name in RunRecord.__dataclass_fields__}, "metrics": dict.fromkeys(keys)})
    assert blocks_of(found) == ["9", "10", "a/b", "gpt_neox.layers.2.mlp"]
    found.metrics.update({key: key for key in keys})
    assert measure(found, "10", "threshold") == keys[0]
    assert measure(found, "gpt_neox.layers.2.mlp", "threshold") == keys[2]

"""The audit names what differs from the published runs, and nothing else."""

from dataclasses import fields, replace
from typing import Any

import pytest
from workloads import pythia, workload

from l2e.cluster.audit import NOT_AUDITED, audit
from l2e.cluster.published_pythia import l2e_published, published
from l2e.cluster.workload import Workload
from l2e.data.config import PileDataConfig
from l2e.inhibition import InhibitionConfig
from l2e.models import PYTHIA, ModelConfig
from l2e.training.config import DeepSpeedConfig, TrainingConfig

L2E = {"method": "l2e", "weight": 1e-11}

# By hand, from the suite's YAML files: rate, micro-batch, ZeRO stage, precision, checkpointing, vocabulary, GPUs.
SUITE = {
    "pythia-14m": (1e-3, 32, 0, "fp16", False, 50304, 32),
    "pythia-31m": (1e-3, 32, 0, "fp16", False, 50304, 32),
    "pythia-70m": (1e-3, 32, 1, "fp16", True, 50304, 32),
    "pythia-160m": (6e-4, 32, 1, "fp16", True, 50304, 32),
    "pythia-410m": (3e-4, 32, 1, "fp16", True, 50304, 32),
    "pythia-1b": (2.5e-4, 16, 0, "bf16", True, 50304, 64),
    "pythia-1.4b": (2e-4, 16, 1, "fp16", True, 50304, 64),
    "pythia-2.8b": (1.6e-4, 16, 1, "fp16", True, 50304, 64),
    "pythia-6.9b": (1.2e-4, 8, 1, "fp16", True, 50432, 64),
    "pythia-12b": (1.2e-4, 8, 1, "fp16", True, 50688, 64),
}


def faithful(name: str) -> Workload:
    """The published run, built from the numbers above and not from the table that the audit reads."""
    rate, micro, stage, precision, recompute, vocabulary, gpus = SUITE[name]
    work = pythia(name, gpus, stage, lr=rate, micro_batch_size=micro, precision=precision)
    training = replace(work.training, activation_checkpointing=recompute)
    return replace(work, training=training, model=ModelConfig(name=name, vocab_size=vocabulary))


def changed(work: Workload, key: str, value: Any) -> Workload:
    group, field = key.split(".")
    return replace(work, **{group: replace(getattr(work, group), **{field: value})})


def named(work: Workload) -> list[str]:
    found = audit(work)
    assert found is not None
    return [difference.field for difference in found]


@pytest.mark.parametrize("name", SUITE)
def test_the_published_run_differs_in_nothing(name: str) -> None:
    assert set(SUITE) == set(PYTHIA)
    assert named(faithful(name)) == []


MUTATIONS: dict[str, Any] = {
    "training.steps": 142_999,
    "training.batch_size": 2048,
    "training.seq_length": 1024,
    "training.lr": 1.1e-3,
    "training.schedule": "cosine",
    "training.schedule_steps": 143_001,
    "training.warmup": 0.02,
    "training.lr_floor": 0.0,
    "training.weight_decay": 0.01,
    "training.betas": [0.9, 0.999],
    "training.eps": 1e-6,
    "training.clip": 0.5,
    "training.precision": "bf16",
    "training.micro_batch_size": 16,
    "training.activation_checkpointing": False,
    "deepspeed.stage": 2,
    "model.activation": "erf",
    "model.vocab_size": 50_277,
    "inhibition.method": "dropout",
    "data.kind": "text",
    "data.name": "pile",
    "data.row_length": 1025,
}


@pytest.mark.parametrize("key", MUTATIONS)
def test_each_change_is_named(key: str) -> None:
    work = faithful("pythia-70m")
    work = changed(work, "training.schedule_steps", 143_000)  # the schedule must not follow a change of steps
    assert named(changed(work, key, MUTATIONS[key])) == [key]


def test_every_published_fact_is_mutated() -> None:
    assert set(MUTATIONS) == set(published("pythia-70m"))


def test_every_setting_is_audited_or_said_to_be_harmless() -> None:
    """A new setting must be put on one of the two lists."""
    settings = {"model": ModelConfig, "training": TrainingConfig, "deepspeed": DeepSpeedConfig}
    ours = {f"{group}.{field.name}" for group, cls in settings.items() for field in fields(cls)}
    assert ours - set(published("pythia-70m")) == set(NOT_AUDITED)


def test_a_difference_says_from_what_to_what() -> None:
    found = audit(changed(faithful("pythia-70m"), "training.clip", 0.0))
    assert found is not None
    (difference,) = found
    assert (difference.published, difference.yours, difference.by, difference.in_l2e) == (1.0, 0.0, "Pythia", False)
    assert difference.why
    assert "gradient_clipping" in difference.source


def test_open_settings_are_resolved() -> None:
    work = faithful("pythia-70m")
    assert named(changed(work, "training.schedule_steps", None)) == []  # it is laid out for the steps
    assert named(changed(work, "training.micro_batch_size", None)) == []  # 1024 over 32 GPUs are 32
    assert named(replace(changed(work, "training.micro_batch_size", None), gpus=8)) == ["training.micro_batch_size"]
    assert named(changed(work, "model.vocab_size", None)) == []


def l2e_run(**settings: Any) -> Workload:
    work = pythia("pythia-70m", 8, steps=14_300, schedule_steps=143_000)
    return replace(work, inhibition=InhibitionConfig(**(L2E | settings)))


def test_the_changes_of_the_l2e_paper_are_told_apart() -> None:
    found = audit(l2e_run())
    assert found is not None
    assert {d.field: d.in_l2e for d in found} == {"training.steps": True, "inhibition.method": True}
    assert named(l2e_run(blocks=[2, 3])) == ["training.steps", "inhibition.method"]  # middle-2 of six


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("blocks", "middle-third"),
        ("rate", 0.03),
        ("weight", 1e-10),
        ("reduction", "sequence"),
        ("neurons", "channel"),
        ("compensation", 0.0),
        ("forget_after", None),
        ("late_start", 11),
    ],
)
def test_changes_of_l2e_itself_are_named(key: str, value: Any) -> None:
    assert f"inhibition.{key}" in l2e_published("pythia-70m", "l2e")
    found = audit(l2e_run(**{key: value}))
    assert found is not None
    assert [d.field for d in found if d.by == "L2E"] == [f"inhibition.{key}"]


def test_dropout_of_the_paper() -> None:
    work = replace(l2e_run(), inhibition=InhibitionConfig(method="dropout", dropout=0.1))
    assert [d for d in named(work) if d.startswith("inhibition")] == ["inhibition.method", "inhibition.dropout"]


def test_nothing_is_known_of_the_tiny_model() -> None:
    assert audit(workload("tiny", data=PileDataConfig(kind="pile", path="/rows"))) is None

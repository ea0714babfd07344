import math

import pytest
import torch

from l2e.models import build_pythia
from l2e.training.config import TrainingConfig
from l2e.training.loss import next_token_loss
from l2e.training.optimizer import build_optimizer
from l2e.training.schedule import cosine, pythia_v1


def test_pythia_v1_at_its_turning_points() -> None:
    """pythia.md D.3, worked by hand for a peak of 1 and 143,000 updates."""
    assert pythia_v1(0, 1.0) == 0  # the first update does nothing
    assert pythia_v1(1, 1.0) == pytest.approx(1 / 1430)
    assert pythia_v1(1430, 1.0) == 1.0
    assert pythia_v1(1431, 1.0) == pytest.approx((1 + math.cos(math.pi / 143000)) / 2)
    assert pythia_v1(71500, 1.0) == pytest.approx((1 + math.cos(math.pi * 70070 / 143000)) / 2)
    assert pythia_v1(14300, 1.0) == pytest.approx(0.980, abs=5e-4)  # method.md 2.21: 98.0% of the peak
    assert pythia_v1(115138, 1.0) > 0.1
    assert pythia_v1(115139, 1.0) == 0.1  # flat from here
    assert pythia_v1(143000, 1.0) == 0.1


def test_pythia_v1_mean_over_the_run() -> None:
    mean = sum(pythia_v1(step, 1.0) for step in range(143000)) / 143000
    assert mean == pytest.approx(0.5176, abs=1e-4)


def test_later_cosine_ends_at_its_floor_and_is_higher_in_between() -> None:
    assert cosine(0, 1.0, 143000) == pytest.approx(1 / 1430)
    assert cosine(1430, 1.0, 143000) == 1.0
    assert cosine(143000, 1.0, 143000) == pytest.approx(0.1)
    assert sum(cosine(step, 1.0, 143000) for step in range(143000)) / 143000 == pytest.approx(0.5495, abs=1e-4)
    for step, ratio in ((71500, 0.926), (100_000, 0.759), (115_000, 0.548)):
        assert pythia_v1(step, 1.0) / cosine(step, 1.0, 143000) == pytest.approx(ratio, abs=1e-3)


def test_schedules_without_warmup() -> None:
    assert pythia_v1(0, 2.0, total=100, warmup=0.0) == 2.0
    assert cosine(0, 2.0, total=100, warmup=0.0) == 2.0


def test_decay_is_for_matrices_alone() -> None:
    model = build_pythia("tiny")
    optimizer = build_optimizer(model, TrainingConfig(steps=1, batch_size=1, seq_length=2, lr=1e-3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert decayed | plain == set(names.values())
    assert {"gpt_neox.embed_in.weight", "lm_head.weight"} <= decayed
    assert "gpt_neox.layers.0.mlp.dense_4h_to_h.weight" in decayed
    assert all(name.endswith("bias") or "norm" in name for name in plain)
    assert not any(name.endswith("bias") or "norm" in name for name in decayed)
    assert optimizer.defaults["betas"] == (0.9, 0.95)


def test_loss_counts_every_target_in_fp32() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 5).to(torch.bfloat16), torch.tensor([[0, 1, 4], [2, 2, 0]])
    probabilities = logits.double().softmax(-1)
    expected = -sum(math.log(probabilities[i, j, targets[i, j]]) for i in range(2) for j in range(3)) / 6
    loss = next_token_loss(logits, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\)"),
        ({"betas": [0.9]}, "betas"),
        ({"schedule_steps": 3}, "schedule_steps must be at least steps"),
        ({"micro_batch_size": 0}, "micro_batch_size"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{"steps": 4, "batch_size": 4, "seq_length": 8, "lr": 1e-3, **settings})


def test_micro_batch() -> None:
    config = TrainingConfig(steps=1, batch_size=12, seq_length=8, lr=1e-3)
    assert config.micro_batch(1) == 12
    assert config.micro_batch(3) == 4
    with pytest.raises(ValueError, match="12 sequences do not divide over 5 ranks; take a multiple of 5"):
        config.micro_batch(5)
    config.micro_batch_size = 4
    with pytest.raises(ValueError, match="micro_batch_size must divide 6"):
        config.micro_batch(2)

"""Strength: measured, held by adapting the weight; rounding that keeps small gradients on average."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import SETTINGS, Network, OneBlock, batches, train
from torch import nn

import l2e
from l2e.inhibition.strength import StrengthControl, round_at_random


def held(strength: float | list[list[float]], updates: int, reduction: str = "sequence") -> list[float]:
    model = Network()
    inhibition = l2e.attach(model, **{**SETTINGS, "reduction": reduction}, strength=strength)
    found = []
    for batch in batches(updates):
        train(model, inhibition, [batch], lr=0.01)
        found.append(inhibition.metrics()["block1/strength"])
    return found


@pytest.mark.parametrize("reduction", ["sum", "sequence"])
@pytest.mark.parametrize("strength", [0.01, 0.3])
def test_an_asked_strength_is_held(strength: float, reduction: str) -> None:
    found = held(strength, 40, reduction)
    # One update gathers, one warms up, one measures the ratio of the norms with a weight of 0.
    assert all(math.isnan(value) for value in found[:2])
    assert found[2] == 0
    assert np.mean(found[10:]) == pytest.approx(strength, rel=0.1)
    assert found[3:] == pytest.approx([strength] * len(found[3:]), rel=0.6)


def test_a_schedule_of_strength_is_followed() -> None:
    found = held([[10, 0.1], [30, 0.02]], 40)
    assert np.mean(found[5:10]) == pytest.approx(0.1, rel=0.2)
    assert np.mean(found[18:22]) == pytest.approx(0.06, rel=0.25)  # half way
    assert np.mean(found[32:]) == pytest.approx(0.02, rel=0.2)


def test_the_target_is_interpolated_between_points() -> None:
    control = StrengthControl([(10, 0.1), (30, 0.02), (40, 0.0)])
    found = [control.target(update) for update in (0, 10, 15, 20, 30, 35, 40, 99)]
    assert found == pytest.approx([0.1, 0.1, 0.08, 0.06, 0.02, 0.01, 0.0, 0.0])


def test_the_weight_is_bounded_smoothed_and_survives_useless_updates() -> None:
    control = StrengthControl([(0, 0.5)])
    assert control.weight == 0
    control.step(torch.tensor(torch.nan), 1)  # nothing was selected
    assert control.weight == 0
    control.step(torch.tensor(20.0), 2)
    assert control.weight.item() == pytest.approx(0.5 / 20)
    for useless in (0.0, math.inf, math.nan):
        control.step(torch.tensor(useless), 3)
        assert control.weight.item() == pytest.approx(0.5 / 20)
    control.step(torch.tensor(20 * 1.1), 4)  # 0.3 of the way
    assert control.weight.item() == pytest.approx(0.5 / 20 / 1.1**0.3)
    control.step(torch.tensor(1e9), 5)  # by at most a factor 1.25
    assert control.weight.item() == pytest.approx(0.5 / 20 / 1.1**0.3 / 1.25)


def test_strength_replaces_the_weight_and_weight_zero_then_still_inhibits() -> None:
    model = Network()
    inhibition = l2e.attach(model, **SETTINGS, weight=0.0, strength=0.2)
    train(model, inhibition, batches(12), lr=0.01)
    metrics = inhibition.metrics()
    assert metrics["block1/strength"] == pytest.approx(0.2, rel=0.5)
    assert metrics["block1/weight"] > 0


def test_accumulation_does_not_change_a_held_strength() -> None:
    found = []
    for parts in (1, 3):
        model = Network()
        inhibition = l2e.attach(model, **SETTINGS, strength=0.1)
        train(model, inhibition, batches(10), parts, lr=0.01)
        found.append(inhibition.metrics()["block1/weight"])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_loss_scale_changes_neither_strength_nor_gradient() -> None:
    """fp16 training multiplies the loss, and what the penalty adds must grow with it."""
    gradients, strengths = [], []
    for scale in (1.0, 4096.0):
        model = Network()
        inhibition = l2e.attach(model, **SETTINGS, weight=0.05)
        train(model, inhibition, batches(3))
        model.zero_grad()
        (scale * (model(batches(1)[0]).square().mean() + inhibition.penalty())).backward()
        gradients.append([parameter.grad / scale for parameter in model.parameters()])
        inhibition.step()
        strengths.append(inhibition.metrics()["block1/strength"])
    assert strengths[0] == pytest.approx(strengths[1], rel=1e-5)
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_absorbs_what_single_precision_keeps(dtype: torch.dtype) -> None:
    """A penalty gradient 1e-4 of the other one: under half the last digit of bf16 (2^-9) and fp16 (2^-12)."""
    shares = {}
    for kind in (torch.float32, dtype):
        model = OneBlock()
        inhibition = l2e.attach(model, blocks=["block"], **{**SETTINGS, "reduction": "sum"}, weight=1e-4)
        for batch in batches(3):
            x = batch.to(kind).requires_grad_()
            (model(x).float() * 3).sum().add(inhibition.penalty()).backward()
            inhibition.step()
        shares[kind] = inhibition.metrics()["block/absorbed"]
        assert inhibition.taps["block"].statistics.moments.mean.dtype == torch.float32
    assert shares[torch.float32] == 0
    assert shares[dtype] > 0.95


def test_random_rounding_lets_a_small_gradient_act_on_average() -> None:
    mean = {}
    for rounding in (False, True):
        model = OneBlock()
        inhibition = l2e.attach(
            model, blocks=["block"], **{**SETTINGS, "reduction": "sum"}, weight=1e-3, stochastic_rounding=rounding
        )
        for batch in batches(2):
            model(batch)
            inhibition.step()
        data = batches(1, size=12, seed=5)[0].bfloat16()
        total = torch.zeros_like(data, dtype=torch.float32)
        for _ in range(400):
            x = data.clone().requires_grad_()
            (3 * model(x).float().sum() + inhibition.penalty()).backward()
            total += x.grad.float()
        mean[rounding] = total / 400 - 3
    moments, tau = inhibition.taps["block"].statistics.moments, inhibition.metrics()["block/threshold"]
    assert moments is not None
    deviation = data.float() - moments.mean
    score = deviation**2 / (moments.var + 0.01 * moments.var.mean())
    exact = torch.where(score > tau, 1e-3 * 2 / deviation, 0.0)
    assert mean[False].abs().max() == 0  # all of it is lost
    # One number of bf16 at 3 is 2^-6 wide: the mean of 400 roundings has a standard error below 4e-4.
    torch.testing.assert_close(mean[True], exact, rtol=0, atol=2e-3)
    assert torch.corrcoef(torch.stack([mean[True].flatten(), exact.flatten()]))[0, 1] > 0.8


def test_random_rounding_is_reproducible_and_saved_by_its_seed() -> None:
    def run(model: nn.Module, inhibition: l2e.Inhibition, updates: slice) -> None:
        for batch in batches(8)[updates]:
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(batch).square().mean() + inhibition.penalty()
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.05 * parameter.grad
            inhibition.step()

    extra = {"weight": 0.05, "stochastic_rounding": True}
    whole, half, other = Network(), Network(), Network()
    one = l2e.attach(whole, **SETTINGS, **extra)
    run(whole, one, slice(None))
    two = l2e.attach(half, **SETTINGS, **extra)
    run(half, two, slice(4))
    two.remove()
    rest = copy.deepcopy(half)
    three = l2e.attach(rest, **SETTINGS, **extra)
    three.load_state_dict(two.state_dict())
    run(rest, three, slice(4, None))
    run(other, l2e.attach(other, **SETTINGS, **extra, seed=1), slice(None))
    for a, b in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole.blocks[1][0].weight, other.blocks[1][0].weight)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-6e4, 6e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6),
    st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_rounding_gives_a_neighbour_and_the_value_in_expectation(value: float, dtype: torch.dtype) -> None:
    values = torch.full((20_000,), value)
    rounded = round_at_random(values, dtype, torch.Generator().manual_seed(0))
    found = rounded.float().unique().tolist()
    nearest = torch.tensor(value).to(dtype)
    below = nearest if nearest.float() <= value else torch.nextafter(nearest, torch.tensor(-math.inf, dtype=dtype))
    above = nearest if nearest.float() >= value else torch.nextafter(nearest, torch.tensor(math.inf, dtype=dtype))
    assert set(found) <= {below.float().item(), above.float().item()}
    gap = above.float().item() - below.float().item()
    assert rounded.double().mean().item() == pytest.approx(values[0].double().item(), abs=0.02 * gap + 1e-12)


def test_rounding_leaves_representable_and_overflowing_values() -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 1e6, -1e6, math.inf, math.nan])
    rounded = round_at_random(values, torch.float16)
    torch.testing.assert_close(rounded, values.to(torch.float16), equal_nan=True)
    assert round_at_random(values, torch.float32) is values


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_a_gradient_scaler_train_like_single_precision(dtype: torch.dtype) -> None:
    found = {}
    for kind in (torch.float32, dtype):
        model = Network()
        inhibition = l2e.attach(model, **SETTINGS, strength=0.1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=kind == torch.float16)
        for batch in batches(15):
            with torch.autocast("cpu", dtype, enabled=kind != torch.float32):
                loss = model(batch).square().mean() + inhibition.penalty()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            inhibition.step()
        moments = inhibition.taps[1].statistics.moments
        assert moments is not None
        assert moments.mean.dtype == moments.var.dtype == torch.float32
        found[kind] = inhibition.metrics()
    for name in ("threshold", "strength", "weight"):
        key = f"block2/{name}"
        assert found[dtype][key] == pytest.approx(found[torch.float32][key], rel=0.05)


def test_a_gradient_that_overflows_moves_neither_weight_nor_statistics_out_of_bounds() -> None:
    model = Network()
    inhibition = l2e.attach(model, **SETTINGS, strength=0.1)
    train(model, inhibition, batches(6), lr=0.01)
    before = inhibition.metrics()
    ((model(batches(1)[0]).square().mean() + inhibition.penalty()) * math.inf).backward()
    inhibition.step()  # the forward pass was fine: a scaler would skip the optimizer's step and go on
    assert inhibition.metrics()["block1/weight"] == before["block1/weight"]
    train(model, inhibition, batches(3), lr=0.01)
    assert inhibition.metrics()["block1/strength"] == pytest.approx(0.1, rel=0.5)

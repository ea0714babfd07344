import copy
import math

import pytest
import torch
from small_networks import SETTINGS, Network, batches, train
from torch import Tensor, nn

import l2e
from l2e.inhibition import RunningMoments, log_penalty, monosemanticity_score


def test_weight_zero_gives_the_baselines_weights_bitwise() -> None:
    plain, observed = Network(), Network()
    train(plain, l2e.attach(plain, method="none"), batches(6))
    inhibition = l2e.attach(observed, weight=0.0, **SETTINGS)
    train(observed, inhibition, batches(6))
    for one, two in zip(plain.parameters(), observed.parameters(), strict=True):
        assert torch.equal(one, two)
    metrics = inhibition.metrics()  # it did observe
    assert metrics["block1/threshold"] > 0
    assert 0 < metrics["block1/selected"] < 0.5
    assert math.isnan(metrics["block1/strength"])


def test_the_forward_pass_is_the_baselines_bitwise_and_the_gradient_is_not() -> None:
    model = Network()
    inhibition = l2e.attach(model, weight=0.1, **SETTINGS)
    train(model, inhibition, batches(3))
    plain = copy.deepcopy(model)
    for block in plain.blocks:
        block._forward_hooks.clear()
    x = batches(1)[0]
    assert torch.equal(model(x), plain(x))
    model.zero_grad()
    (model(x).square().mean() + inhibition.penalty()).backward()
    plain(x).square().mean().backward()
    assert not torch.equal(model.blocks[0][0].weight.grad, plain.blocks[0][0].weight.grad)
    assert torch.equal(model.blocks[3][0].weight.grad, plain.blocks[3][0].weight.grad)  # above both taps


def test_penalty_and_gradient_equal_a_plain_autograd_computation() -> None:
    """The formulas again, with nothing of the taps: hooks that keep outputs, autograd through log_penalty."""
    data = batches(4)
    model = Network()
    inhibition = l2e.attach(model, weight=0.3, **SETTINGS)
    train(model, inhibition, data[:3])
    plain = copy.deepcopy(model)
    outputs: dict[int, Tensor] = {}
    for index in (1, 2):
        plain.blocks[index]._forward_hooks.clear()
        plain.blocks[index].register_forward_hook(lambda m, i, out, index=index: outputs.__setitem__(index, out))
    loss = plain(data[3]).square().mean()
    for index in (1, 2):
        tap = inhibition.taps[index].statistics
        assert tap.moments is not None
        scores = monosemanticity_score(outputs[index], tap.moments.mean, tap.moments.var, 0.01)
        mask = scores > tap.threshold.value
        assert 0 < mask.sum() < mask.numel() / 2
        loss = loss + 0.3 * log_penalty(outputs[index], tap.moments.mean, mask) / len(data[3])
    loss.backward()

    model.zero_grad()
    total = model(data[3]).square().mean() + inhibition.penalty()
    total.backward()
    assert total.item() == pytest.approx(loss.item(), rel=1e-6)
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-7)


def test_statistics_are_those_of_all_samples_before_the_update() -> None:
    data = batches(3)
    model = Network()
    kept: list[Tensor] = []
    model.blocks[1].register_forward_hook(lambda m, i, out: kept.append(out.detach()))
    inhibition = l2e.attach(model, weight=0.0, forget_after=None, **SETTINGS)
    train(model, inhibition, data)
    expected = torch.cat(kept)
    moments = inhibition.taps[1].statistics.moments
    assert moments is not None
    torch.testing.assert_close(moments.mean, expected.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moments.var, expected.var(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_the_split_of_a_batch_changes_nothing_but_rounding(parts: int) -> None:
    whole, split = Network(), Network()
    one = l2e.attach(whole, weight=0.05, **SETTINGS)
    two = l2e.attach(split, weight=0.05, **SETTINGS)
    assert train(whole, one, batches(8)) == pytest.approx(train(split, two, batches(8), parts), rel=1e-5)
    for index in (1, 2):
        a, b = one.taps[index].statistics, two.taps[index].statistics
        assert a.threshold.value == pytest.approx(b.threshold.value, abs=1e-4)
        torch.testing.assert_close(a.moments.var, b.moments.var, rtol=1e-4, atol=1e-6)
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_reductions_differ_by_the_number_of_sequences() -> None:
    values = []
    for reduction in ("sum", "sequence"):
        model = Network()
        inhibition = l2e.attach(model, weight=1.0, **{**SETTINGS, "reduction": reduction})
        for batch in batches(2):
            model(batch)
            inhibition.step()
        model(batches(3)[2])
        values.append(inhibition.penalty().item())
    assert values[0] == pytest.approx(12 * values[1], rel=1e-6)


def test_evaluation_is_the_identity_and_touches_no_statistics() -> None:
    model = Network()
    inhibition = l2e.attach(model, weight=0.1, **SETTINGS)
    train(model, inhibition, batches(3))
    before = copy.deepcopy(inhibition.state_dict())
    model.eval()
    x = batches(1)[0]
    model(x)
    model.train()
    with torch.no_grad():
        model(x)
    assert inhibition.penalty().item() == 0
    assert str(inhibition.state_dict()) == str(before)
    inhibition.step()  # an update that saw nothing moves nothing
    for index, tap in inhibition.state_dict()["taps"].items():
        assert str(tap["statistics"]["moments"]) == str(before["taps"][index]["statistics"]["moments"])
        assert str(tap["statistics"]["threshold"]) == str(before["taps"][index]["statistics"]["threshold"])


def test_saved_in_the_middle_equals_uninterrupted() -> None:
    data = batches(8)
    model = Network()
    inhibition = l2e.attach(model, weight=0.05, **SETTINGS)
    train(model, inhibition, data[:4])
    resumed = Network()
    resumed.load_state_dict(model.state_dict())
    second = l2e.attach(resumed, weight=0.05, **SETTINGS)
    second.load_state_dict(inhibition.state_dict())
    train(model, inhibition, data[4:])
    train(resumed, second, data[4:])
    for one, two in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert inhibition.metrics() == second.metrics()
    assert not any("tap" in key or "moment" in key for key in model.state_dict())


def test_strength_is_the_ratio_of_the_two_gradients_at_the_tap() -> None:
    model = Network()
    inhibition = l2e.attach(model, blocks=[3], weight=0.2, **SETTINGS)
    data = batches(4)
    train(model, inhibition, data[:2])
    tap = inhibition.taps[3].statistics
    assert tap.moments is not None
    mean, var, tau = tap.moments.mean, tap.moments.var, tap.threshold.value
    with torch.no_grad():
        for block in model.blocks[:3]:
            data[2] = data[2] + block(data[2])
        out = model.blocks[3](data[2])
    # The loss is the mean square of x + out, so its gradient at the last block's output is known by hand.
    other = 2 * (data[2] + out) / out.numel()
    mask = monosemanticity_score(out, mean, var, 0.01) > tau
    penalty = torch.where(mask, 0.2 / len(out) * 2 / (out - mean), 0.0)
    fresh = batches(3)[2]
    model.zero_grad()
    (model(fresh).square().mean() + inhibition.penalty()).backward()
    inhibition.step()
    metrics = inhibition.metrics()
    assert metrics["block3/strength"] == pytest.approx((penalty.norm() / other.norm()).item(), rel=1e-4)
    assert metrics["block3/selected"] == pytest.approx(mask.float().mean().item())
    assert metrics["block3/absorbed"] == 0


def test_absorbed_counts_gradients_lost_to_rounding() -> None:
    model = Network()
    inhibition = l2e.attach(model, weight=1e-14, **SETTINGS)
    train(model, inhibition, batches(4))
    assert inhibition.metrics()["block1/absorbed"] == pytest.approx(1.0, abs=0.05)


def test_remove_takes_the_taps_off() -> None:
    model = Network()
    inhibition = l2e.attach(model, weight=0.1, **SETTINGS)
    inhibition.remove()
    model(batches(1)[0])
    assert inhibition.taps[1].statistics.moments is None
    assert not model.blocks[1]._forward_hooks


def test_impossible_settings_are_refused_with_the_key() -> None:
    model = Network()
    for settings, message in [
        ({"rate": 0.0, "weight": 1.0}, "rate must lie in"),
        ({}, "weight: method l2e needs one"),
        ({"weight": -1.0}, "weight must be at least 0"),
        ({"weight": 1.0, "blocks": [4]}, "lie outside the model"),
        ({"weight": 1.0, "late_start": 0}, "late_start"),
        ({"weight": 1.0, "warmup": 0}, "warmup"),
        ({"weight": 1.0, "forget_after": 0}, "forget_after"),
        ({"weight": 1.0, "compensation": -0.1}, "compensation"),
        ({"method": "mymel", "weight": 1.0}, "method must be one of"),
        ({"reduction": "mean", "weight": 1.0}, "reduction must be one of sum, sequence, not 'mean'"),
        ({"scope": "batch", "weight": 1.0}, "scope must be one of step, micro_batch"),
    ]:
        with pytest.raises(ValueError, match=message):
            l2e.attach(model, **settings)
    with pytest.raises(ValueError, match="no list of blocks"):
        l2e.attach(nn.Linear(2, 2), weight=1.0)


def test_state_of_other_blocks_is_refused() -> None:
    one, two = l2e.attach(Network(), weight=0.1), l2e.attach(Network(), weight=0.1, blocks="top-bottom")
    with pytest.raises(ValueError, match=r"saved taps are blocks \[1, 2\], these are \[0, 3\]"):
        two.load_state_dict(one.state_dict())


def test_running_moments_of_the_tap_are_the_public_class() -> None:
    model = Network()
    inhibition = l2e.attach(model, weight=0.1, **SETTINGS)
    model(batches(1)[0])
    assert isinstance(inhibition.taps[1].statistics.moments, RunningMoments)

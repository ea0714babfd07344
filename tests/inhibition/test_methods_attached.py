"""Every method behind `attach`, against computations that share nothing with it."""

import math

import pytest
import torch
from small_networks import SETTINGS, Network, OneBlock, batches, train
from torch import Tensor, nn
from torch.nn import functional as F

import l2e
from l2e.inhibition.methods import METHODS

EDITING = {"memel": 1.0, "reverse_deactivation": 1.0, "naive_a": 0.0, "naive_b": -1.0}


def warm(inhibition: l2e.Inhibition, model: nn.Module, data: list[Tensor]) -> None:
    for batch in data:
        model(batch)
        inhibition.step()


@pytest.mark.parametrize("method", EDITING)
def test_selected_outputs_are_put_at_their_mean_and_their_gradient_is_scaled(method: str) -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, method=method, blocks=["block"], rate=0.1, late_start=1, warmup=1)
    *past, x = batches(4)
    warm(inhibition, model, past)
    seen = torch.cat(past)
    score = (x - seen.mean(0)) ** 2 / (seen.var(0) + 0.01 * seen.var(0).mean())
    if METHODS[method].selection == "exact":
        selected = torch.zeros_like(x, dtype=torch.bool)
        for row, scores in zip(selected, score, strict=True):
            row.view(-1)[scores.flatten().argsort(descending=True)[:4]] = True  # 10% of 5 x 8
    else:
        selected = score > inhibition.metrics()["block/threshold"]
    assert 0 < selected.sum() < selected.numel() / 2
    x.requires_grad_()
    result = model(x)
    torch.testing.assert_close(result[selected], seen.mean(0).expand_as(x)[selected], rtol=1e-5, atol=1e-6)
    assert torch.equal(result[~selected], x[~selected])
    assert inhibition.penalty().item() == 0
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    result.backward(upstream)
    assert torch.equal(x.grad[selected], -EDITING[method] * upstream[selected])
    assert torch.equal(x.grad[~selected], upstream[~selected])
    inhibition.step()
    assert inhibition.metrics()["block/selected"] == pytest.approx(selected.float().mean().item())


@pytest.mark.parametrize("delta", [5.0, 0.5])
def test_any_delta_scales_the_reversed_gradient(delta: float) -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, method="memel", blocks=["block"], delta=delta, top_k=1, late_start=1)
    *past, x = batches(3)
    warm(inhibition, model, past)
    x.requires_grad_()
    model(x).sum().backward()
    assert sorted(x.grad.unique().tolist()) == [-delta, 1.0]
    assert (x.grad == -delta).flatten(1).sum(1).tolist() == [1] * len(x)


def test_l2e_without_threshold_penalises_the_exact_top_of_each_sample() -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, "l2e_no_threshold", ["block"], rate=0.05, late_start=1, weight=0.5, reduction="sum")
    *past, x = batches(3)
    warm(inhibition, model, past)
    seen, x = torch.cat(past), x.requires_grad_()
    score = (x - seen.mean(0)) ** 2 / (seen.var(0) + 0.01 * seen.var(0).mean())
    expected = torch.zeros(())
    for row, scores in zip(x, score, strict=True):
        top = scores.flatten().argsort(descending=True)[:2]  # 5% of 5 x 8
        expected = expected + 0.5 * torch.log((row - seen.mean(0)).flatten()[top] ** 2).sum()
    gradient = torch.autograd.grad(expected, x)[0]
    model(x)
    penalty = inhibition.penalty()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(penalty, x)[0], gradient, rtol=1e-4, atol=1e-6)


def test_the_penalty_alone_has_a_gradient_equal_to_finite_differences() -> None:
    """The mask held: selection is by the statistics of before, and no step is large enough to change it."""
    model = OneBlock().double()
    inhibition = l2e.attach(model, "l2e", ["block"], rate=0.1, late_start=1, warmup=1, weight=0.3, reduction="sum")
    data = [batch.double() for batch in batches(4)]
    warm(inhibition, model, data[:3])
    x = data[3].requires_grad_()
    model(x)
    gradient = torch.autograd.grad(inhibition.penalty(), x)[0]

    def value(z: Tensor) -> float:
        model(z)
        return inhibition.penalty().item()

    big = gradient.abs().flatten().argsort(descending=True)[[0, 3, 10, 20]]
    assert (gradient.flatten()[big] != 0).all()
    for index in big:
        step = torch.zeros_like(x).flatten()
        step[index] = 1e-2
        step = step.view_as(x)
        slope = (value((x + step).detach().requires_grad_()) - value((x - step).detach().requires_grad_())) / 2e-2
        assert slope == pytest.approx(gradient.flatten()[index].item(), rel=1e-2)


@pytest.mark.parametrize(("method", "strict"), [("l2e", True), ("memel", False)])
def test_the_number_selected(method: str, strict: bool) -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, method, ["block"], rate=0.02, weight=0.0, late_start=5, warmup=5)
    for batch in batches(400, size=16):
        model(batch)
        inhibition.step()
    shares = []
    for batch in batches(50, size=16, seed=2):
        model(batch)
        inhibition.step()
        shares.append(inhibition.metrics()["block/selected"])
    # 2% of 40 neurons is one per sample where selection is exact, and 2% on average behind the threshold.
    expected = 0.02 if strict else 1 / 40
    assert sum(shares) / len(shares) == pytest.approx(expected, rel=0.1 if strict else 1e-6)


def test_dropout_at_the_taps() -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, method="dropout", blocks=["block"], dropout=0.25)
    x = torch.ones(40, 50, 20)
    torch.manual_seed(3)
    result = model(x)
    torch.manual_seed(3)
    assert torch.equal(result, F.dropout(x, 0.25))
    assert (result == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert inhibition.penalty().item() == 0
    assert inhibition.metrics() == {}
    inhibition.step()
    model.eval()
    assert torch.equal(model(x), x)
    inhibition.remove()
    assert torch.equal(model.train()(x), x)


def test_dropout_everywhere_sets_the_models_own_and_gives_it_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0), nn.Linear(4, 4), nn.Dropout(0.1))
    inhibition = l2e.attach(model, method="dropout", dropout=0.3, dropout_at="everywhere")
    assert [model[1].p, model[3].p] == [0.3, 0.3]
    inhibition.remove()
    assert [model[1].p, model[3].p] == [0.0, 0.1]
    with pytest.raises(ValueError, match=r"has no torch\.nn\.Dropout; use dropout_at=taps"):
        l2e.attach(Network(), method="dropout", dropout_at="everywhere")


class PublishedMEmeL(nn.Module):
    """MEmeL's module as its code does it (method.md section 5), for one selected neuron per sample."""

    def __init__(self, ratio: float, last: int = 10) -> None:
        super().__init__()
        self.ratio, self.last, self.calls = ratio, last, 0
        self.mu = self.v = torch.zeros(())

    def forward(self, h: Tensor) -> Tensor:
        b = len(h)
        h_u, h_v = h.detach().mean(0), h.detach().var(0, unbiased=False)
        self.calls += 1
        if self.calls == 1:
            self.mu, self.v = h_u, h_v * b / (b - 1)
            return h
        c = min(self.calls, self.last)
        self.v = (self.v * (c - 1 / b) + h_v + (h_u - self.mu) ** 2 / (1 + 1 / c)) / (c + 1 - 1 / b)
        self.mu = (c * self.mu + h_u) / (c + 1)
        if self.calls <= self.last:
            return h
        dev = (h.detach() - self.mu) ** 2 / (self.v + self.v.mean() / 100)
        flat = dev.flatten(1)
        s = (flat == flat.max(1, keepdim=True).values).view_as(h).float()
        return (1 - s * (1 + self.ratio)) * h + s * (self.mu + self.ratio * h.detach())


def test_memel_as_published_is_reproduced_with_its_two_switches() -> None:
    published, ours = Network(), Network()
    published.blocks[2] = nn.Sequential(published.blocks[2], PublishedMEmeL(1.0))
    inhibition = l2e.attach(
        ours, "memel", [2], top_k=1, scope="micro_batch", count_offset=1, update_first=True, late_start=10
    )
    none = l2e.attach(published, "none")
    data = batches(30)
    assert train(ours, inhibition, data) == pytest.approx(train(published, none, data), rel=1e-5)
    for one, two in zip(ours.parameters(), published.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    exact = Network()
    train(exact, l2e.attach(exact, "memel", [2], top_k=1), data)
    assert not torch.allclose(exact.blocks[1][0].weight, ours.blocks[1][0].weight, rtol=1e-3, atol=1e-4)


def test_the_published_count_weighs_the_first_batch_twice() -> None:
    """method.md 2.4: after K batches the mean is (2 batch_1 + batch_2 + ... + batch_K) / (K + 1)."""
    model = OneBlock()
    inhibition = l2e.attach(model, "memel", ["block"], count_offset=1)
    data = batches(6)
    warm(inhibition, model, data)
    means = torch.stack([batch.mean(0) for batch in data])
    moments = inhibition.taps["block"].statistics.moments
    assert moments is not None
    torch.testing.assert_close(moments.mean, (means[0] + means.sum(0)) / 7, rtol=1e-5, atol=1e-6)


def test_micro_batch_scope_is_the_papers_letter() -> None:
    """Score with the statistics of the passes before, then merge; the threshold moves after every pass."""
    model = OneBlock()
    inhibition = l2e.attach(
        model, "l2e", ["block"], rate=0.1, weight=0.1, reduction="sum", scope="micro_batch", late_start=2, warmup=2,
        forget_after=None, compensation=0.0,
    )  # fmt: skip
    data, tau, kth = batches(9), math.nan, []
    for update in range(3):
        for part in range(3):
            x = data[3 * update + part].requires_grad_()
            past = torch.cat(data[: 3 * update + part]).detach() if update or part else None
            model(x)
            penalty = inhibition.penalty()
            if past is None or len(past) < 2 * 12:
                assert penalty.item() == 0
                continue
            score = ((x - past.mean(0)) ** 2 / past.var(0)).detach()
            if len(kth) < 2:
                kth.append(score.flatten().sort(descending=True).values[48 - 1].item())  # 10% of 12 x 5 x 8
                tau = sum(kth) / 2
                assert penalty.item() == 0
                continue
            mask = score > tau
            expected = 0.1 * torch.log((x - past.mean(0))[mask] ** 2).sum().item()
            assert penalty.item() == pytest.approx(expected, rel=1e-4)
            tau += mask.float().mean().item() - 0.1
        inhibition.step()
    assert inhibition.metrics()["block/threshold"] == pytest.approx(tau, rel=1e-4)


def test_pooled_channels_have_one_statistic_each() -> None:
    model = OneBlock()
    settings = {"rate": 0.1, "late_start": 1, "warmup": 1, "weight": 0.2, "reduction": "sum", "neurons": "channel"}
    inhibition = l2e.attach(model, "l2e", ["block"], **settings)
    data = batches(2) + batches(1, seq=7, seed=5) + batches(1, seq=3, seed=6)  # of any length
    warm(inhibition, model, data[:3])
    seen = torch.cat([batch.flatten(0, 1) for batch in data[:3]])
    x = data[3].requires_grad_()
    score = (x - seen.mean(0)) ** 2 / (seen.var(0) + 0.01 * seen.var(0).mean())
    mask = score > inhibition.metrics()["block/threshold"]
    model(x)
    expected = 0.2 * torch.log((x - seen.mean(0))[mask] ** 2).sum().item()
    assert mask.any()
    assert inhibition.penalty().item() == pytest.approx(expected, rel=1e-4)


def test_channels_of_images_are_pooled_at_dimension_one() -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, "memel", ["block"], neurons="channel", channel_dim=1, late_start=1, top_k=2)
    images = [torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    warm(inhibition, model, images[:2])
    seen = torch.cat(images[:2])
    mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3))
    torch.testing.assert_close(seen.transpose(0, 1).flatten(1).var(1), var)
    score = (images[2] - mean.view(3, 1, 1)) ** 2 / (var + 0.01 * var.mean()).view(3, 1, 1)
    selected = torch.zeros_like(score, dtype=torch.bool)
    for row, scores in zip(selected, score, strict=True):
        row.view(-1)[scores.flatten().argsort(descending=True)[:2]] = True
    expected = torch.where(selected, mean.view(3, 1, 1), images[2])
    torch.testing.assert_close(model(images[2]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("none", "dropout")])
def test_every_method_trains_saves_and_continues_exactly(method: str) -> None:
    data = batches(8)
    settings = SETTINGS | ({"strength": 0.1} if METHODS[method].action == "penalty" else {})
    whole, half, rest = Network(), Network(), Network()
    inhibition = l2e.attach(whole, method, **settings)
    train(whole, inhibition, data)
    first = l2e.attach(half, method, **settings)
    train(half, first, data[:4])
    rest.load_state_dict(half.state_dict())
    second = l2e.attach(rest, method, **settings)
    second.load_state_dict(first.state_dict())
    train(rest, second, data[4:])
    for one, two in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, two)
    assert inhibition.metrics() == second.metrics()
    plain = Network()
    train(plain, l2e.attach(plain, "none"), data)
    assert not torch.equal(plain.blocks[1][0].weight, whole.blocks[1][0].weight)

"""MEmeL as published: against NumPy, step by step, and against our own method of that name."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import l2e
from l2e.benchmarks.published_memel import PublishedMemel

BATCH, SHAPE, PASSES = 6, (5, 4), 14

Array = npt.NDArray[np.float64]


class Network(nn.Module):
    """One block that hands on what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity()])

    def forward(self, values: Any) -> Any:
        return self.blocks[0](values)


def outputs() -> Iterator[Array]:
    generator = np.random.default_rng(2)
    for _ in range(PASSES):
        yield generator.normal(size=(BATCH, *SHAPE)) * np.linspace(0.5, 3, 4) + 0.3


def by_numpy(chosen: int, ratio: float) -> Iterator[tuple[Array, Array, Array]]:
    """Of each pass: outputs, factors of the gradient, the inhibited."""
    mean, variance = np.zeros(SHAPE), np.zeros(SHAPE)
    for number, values in enumerate(outputs(), start=1):
        u, v, c = values.mean(0), values.var(0), min(number, 10)
        if number == 1:
            mean, variance = u, values.var(0, ddof=1)
        else:
            variance = (variance * (c - 1 / BATCH) + v + (u - mean) ** 2 / (1 + 1 / c)) / (c + 1 - 1 / BATCH)
            mean = (c * mean + u) / (c + 1)
        mask = np.zeros(values.shape, bool)
        if number > 10:
            deviation = (values - mean) ** 2 / (variance + variance.mean() / 100)
            for sample, row in enumerate(deviation.reshape(BATCH, -1)):
                mask[sample].flat[np.argsort(row)[-chosen:]] = True
        yield np.where(mask, mean, values), np.where(mask, -ratio, 1.0), mask


@pytest.mark.parametrize(("share", "chosen"), [(0.1, 2), (0.01, 1)])
@pytest.mark.parametrize("ratio", [1.0, 0.0, 5.0])
def test_each_pass_against_numpy(share: float, chosen: int, ratio: float) -> None:
    network = Network()
    memel = PublishedMemel(list(network.blocks), share, ratio)
    passes = list(by_numpy(chosen, ratio))
    for values, (wanted, factors, _) in zip(outputs(), passes, strict=True):
        h = torch.tensor(values, dtype=torch.float32, requires_grad=True)
        found = network(h)
        found.sum().backward()
        np.testing.assert_allclose(found.detach(), wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(h.grad, factors, rtol=1e-5)
    mask = passes[-1][2]
    assert memel.layers[0].inhibited.item() == pytest.approx(mask.mean())
    assert mask.sum() == BATCH * chosen
    memel.remove()
    assert network(h) is h


def test_it_selects_as_our_own_does() -> None:
    """Another implementation, told to do what the published code does: updates in each pass, before scoring."""
    ours = Network()
    literal = {"scope": "micro_batch", "update_first": True, "count_offset": 1, "late_start": 10}
    inhibition = l2e.attach(ours, method="memel", blocks=["blocks.0"], rate=0.1, compensation=0.01, **literal)
    theirs = Network()
    PublishedMemel(list(theirs.blocks), 0.1)
    for values in outputs():
        one, two = (torch.tensor(values, dtype=torch.float32, requires_grad=True) for _ in range(2))
        results = ours(one), theirs(two)
        for result in results:
            result.sum().backward()
        inhibition.step()
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(one.grad, two.grad)
    assert (one.grad < 0).sum() == BATCH * 2


def test_nothing_happens_in_evaluation() -> None:
    network = Network().eval()
    memel = PublishedMemel(list(network.blocks), 0.1)
    values = torch.randn(BATCH, *SHAPE)
    assert network(values) is values
    assert memel.layers[0].calls == 0


def test_half_precision_goes_on_in_half_precision() -> None:
    network = Network()
    memel = PublishedMemel(list(network.blocks), 0.1)
    for values in outputs():
        found = network(torch.tensor(values, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert memel.layers[0].mean.dtype == torch.float32

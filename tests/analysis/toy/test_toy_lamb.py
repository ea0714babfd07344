"""LAMB and its learning rate, by hand and against torch (J09)."""

import math

import numpy as np
import torch
from torch import nn

from l2e.analysis.toy.lamb import Lamb, cosine_cycle, trust_ratio


def test_first_step_by_hand() -> None:
    """g = (1, -2): moments (0.1, -0.2) and (0.001, 0.004), Adam step (0.1/(0.0316228+1e-6), -0.2/(0.0632456+1e-6)) =
    (3.162178, -3.162228) of norm 4.472054. Weights (3, 4) of norm 5: ratio 1.118054; step at lr 0.1: (0.353549,
    -0.353554). Weights (30, 40): the norm 50 is clipped to 10. Weights 0: ratio 1."""
    weights = nn.Parameter(torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]]))
    gradient = torch.tensor([[1.0, -2.0]] * 3)
    Lamb([weights], torch.tensor([0.1, 0.1, 0.1])).step([gradient])
    expected = [[3 - 0.353549, 4 + 0.353554], [30 - 0.707098, 40 + 0.707109], [-0.3162178, 0.3162228]]
    np.testing.assert_allclose(weights.detach(), expected, rtol=2e-6)


def test_nothing_is_corrected_for_the_start() -> None:
    """With bias correction the first Adam step would be g / |g| = 1, not 3.16."""
    bias = nn.Parameter(torch.zeros(1, 1))
    lamb = Lamb([bias], torch.tensor([1.0]))
    lamb.step([torch.ones(1, 1)])
    np.testing.assert_allclose(bias.detach(), [[-3.162178]], rtol=1e-6)
    lamb.step([torch.ones(1, 1)])
    # moments 0.19 and 0.001999; Adam step 0.19 / (0.0447102 + 1e-6) = 4.249474; ratio 3.162178 / 4.249474
    np.testing.assert_allclose(bias.detach(), [[-3.162178 * 2]], rtol=1e-6)


def test_each_run_has_its_own_rate_and_ratio() -> None:
    """Against one plain NumPy loop per run and tensor."""
    random = np.random.default_rng(0)
    start = [random.normal(size=(3, 4, 5)), random.normal(size=(3, 1, 5))]
    rates = [0.01, 0.1, 0.5]
    parameters = [nn.Parameter(torch.tensor(values)) for values in start]
    lamb = Lamb(parameters, torch.tensor(rates, dtype=torch.float64))
    gradients = [[random.normal(size=values.shape) for values in start] for _ in range(20)]
    for step, given in enumerate(gradients):
        lamb.step([torch.tensor(gradient) for gradient in given], factor=1 / (step + 1))
    for index, values in enumerate(start):
        for number, rate in enumerate(rates):
            own = [given[index][number] for given in gradients]
            np.testing.assert_allclose(parameters[index][number].detach(), _plain(values[number], own, rate), rtol=1e-9)


def _plain(weights: np.ndarray, gradients: list[np.ndarray], rate: float) -> np.ndarray:
    mean = square = np.zeros_like(weights)
    for step, gradient in enumerate(gradients):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        adam = mean / (np.sqrt(square) + 1e-6)
        ratio = min(np.sqrt((weights**2).sum()), 10) / np.sqrt((adam**2).sum())
        weights = weights - rate / (step + 1) * ratio * adam
    return weights


def test_ratio_is_one_without_a_step() -> None:
    assert trust_ratio(torch.ones(1, 4), torch.zeros(1, 4)).tolist() == [1.0]
    assert trust_ratio(torch.zeros(1, 4), torch.ones(1, 4)).tolist() == [1.0]
    assert trust_ratio(torch.ones(1, 4), torch.full((1, 4), 0.5)).tolist() == [2.0]


def test_the_rate_cycles_as_torch_stepped_on() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=16, eta_min=0)
    for step in range(100):
        assert math.isclose(0.3 * cosine_cycle(step, 16), optimizer.param_groups[0]["lr"], abs_tol=1e-7)
        optimizer.step()
        scheduler.step()
    assert [round(cosine_cycle(step, 512), 12) for step in (0, 256, 512, 768, 1024)] == [1, 0.5, 0, 0.5, 1]

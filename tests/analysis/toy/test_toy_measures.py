"""r_i, its counts and the linear map, by hand (J07, J08, J12)."""

import math

import numpy as np
import pytest
import torch

from l2e.analysis.toy.measures import counts, linear_map, monosemanticity, responses
from l2e.analysis.toy.model import activate

# Three features at 0, 120 and 240 degrees.
TRIANGLE = torch.tensor([[math.cos(a), math.sin(a)] for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)])


def test_r_by_hand() -> None:
    """Neurons: 3/(3+1), 1/1 with the negative left out, 2/(2+2), dead, negative everywhere."""
    answers = torch.tensor([[3.0, 1.0, 2.0, 0.0, -1.0], [1.0, -2.0, 0.0, 0.0, -3.0], [0.0, 0.0, 2.0, 0.0, -0.1]])
    np.testing.assert_allclose(monosemanticity(answers), [0.75, 1.0, 0.5, 0.0, 0.0], rtol=1e-6)


def test_r_of_hand_made_neurons() -> None:
    """Cosines between the features are -0.5. Along feature 0 with bias -0.5: 0.5 to it and nothing to the others;
    against it with bias 0: 0.5 to both others; along it with bias 0.5: 1.5, 0, 0."""
    weight = torch.stack([TRIANGLE[0], -TRIANGLE[0], TRIANGLE[0], TRIANGLE[0]], dim=1)
    bias = torch.tensor([[-0.5, 0.0, 0.5, -5.0]])
    answers = responses(TRIANGLE[None], weight[None], bias[None], "relu")
    expected = [[0.5, 0, 1.5, 0], [0, 0.5, 0, 0], [0, 0.5, 0, 0]]
    np.testing.assert_allclose(answers[0], expected, atol=1e-6)
    np.testing.assert_allclose(monosemanticity(answers)[0], [1, 0.5, 1, 0], atol=1e-6)
    found = {name: value.tolist() for name, value in counts(answers.clamp(min=1e-6) - 1e-6, bias[None]).items()}
    assert found["monosemantic"] == [2]
    assert found["positive"] == [1]
    assert found["dead"] == [1]
    assert found["mean_bias"] == [pytest.approx(-1.25)]


def test_absolute_value_adds_both_signs() -> None:
    """Along feature 0, bias -0.2: 0.8 and 0 to it; to the others 0 and 0.5 - 0.2."""
    answers = responses(TRIANGLE[None], TRIANGLE[0][None, :, None], torch.full((1, 1, 1), -0.2), "relu", "absolute")
    np.testing.assert_allclose(answers[0, :, 0], [0.8, 0.3, 0.3], atol=1e-6)
    np.testing.assert_allclose(monosemanticity(answers)[0], [0.8 / 1.4], rtol=1e-6)


def test_identities_of_r() -> None:
    """r does not change with the neuron's size or the order of features, and lies in [1/N, 1] for a live neuron."""
    answers = torch.rand(7, 50, generator=torch.Generator().manual_seed(0)).double()
    r = monosemanticity(answers)
    torch.testing.assert_close(monosemanticity(answers * 3), r, rtol=1e-8, atol=0)
    torch.testing.assert_close(monosemanticity(answers.flip(0)), r, rtol=1e-12, atol=0)
    assert (r >= 1 / 7).all()
    assert (r <= 1).all()
    np.testing.assert_allclose(monosemanticity(torch.ones(7, 1)), [1 / 7], rtol=1e-6)


def test_activations_by_hand() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0])
    assert activate(values, "relu").tolist() == [0, 0, 1]
    np.testing.assert_allclose(activate(values, "solu"), [-math.exp(-1), 0, math.e], rtol=1e-6)
    phi = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    np.testing.assert_allclose(activate(values, "gelu"), [-(1 - phi), 0, phi], rtol=1e-5)


def test_linear_map_takes_positive_biases_only() -> None:
    projection = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    weight_in = torch.tensor([[2.0, 1.0, 7.0], [0.0, 1.0, 7.0]])
    weight_out = torch.tensor([[1.0, 0.0], [0.0, 3.0], [9.0, 9.0]])
    found = linear_map(projection, weight_in, torch.tensor([0.06, 0.2, 0.05]), weight_out)
    np.testing.assert_allclose(found, [[2.0, 3.0], [1.2, 4.2]], rtol=1e-6)

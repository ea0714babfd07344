"""Features, projections and tasks of the toy models (J01-J04, J06)."""

import numpy as np
import pytest
import torch

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.features import Task, densities, generator, sparse_features, unit_projection, unit_rows

SMALL = {"features": 12, "inputs": 4, "neurons": 8, "batch_size": 16, "steps": 32, "half_cycle": 8}


def test_one_uniform_number_gives_both_draws() -> None:
    """Density 1/4: below 0.75 absent, 0.75 to 1 stretched to 0 to 1."""
    uniform = torch.tensor([[0.0, 0.5, 0.74, 0.75, 0.8, 0.875, 0.999]])
    found = sparse_features(uniform, torch.full((7,), 0.25))
    torch.testing.assert_close(found, torch.tensor([[0, 0, 0, 0, 0.2, 0.5, 0.996]]), atol=1e-6, rtol=0)


def test_each_feature_has_its_own_density() -> None:
    uniform = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(1))
    density = torch.tensor([0.01, 0.2, 1.0])
    found = sparse_features(uniform, density)
    share = (found > 0).double().mean(0)
    torch.testing.assert_close(share, density.double(), atol=3e-3, rtol=0)
    present = [column[column > 0].double() for column in found.T]
    for column in present:  # uniform in [0, 1]: mean 1/2, mean square 1/3
        assert float(column.mean()) == pytest.approx(0.5, abs=0.02)
        assert float((column**2).mean()) == pytest.approx(1 / 3, abs=0.02)


def test_power_law_by_hand() -> None:
    """1, 2^-1.1, 3^-1.1, 4^-1.1 scaled to a sum of 4 x 0.25 = 1."""
    weights = np.array([1, 0.466517, 0.298653, 0.217638])
    expected = weights / weights.sum()
    np.testing.assert_allclose(densities(4, 0.25, "power_law"), expected, rtol=1e-5)
    assert densities(4, 0.6, "power_law").tolist()[0] == 1.0  # 2.4 x 0.504 = 1.21, clipped
    np.testing.assert_allclose(densities(4, 0.6, "power_law")[1:], 2.4 * expected[1:], rtol=1e-5)
    assert densities(3, 0.5, "uniform").tolist() == [0.5] * 3


def test_projection_by_hand() -> None:
    """Columns (1,0,1) and (0,1,1): the projector on their plane is [[2,-1,1],[-1,2,1],[1,1,2]]/3, so rows of its
    basis have length sqrt(2/3), and scaled to 1 their products are these."""
    rows = unit_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64))
    products = [[1.0, -0.5, 0.5], [-0.5, 1.0, 0.5], [0.5, 0.5, 1.0]]
    torch.testing.assert_close(rows @ rows.T, torch.tensor(products, dtype=torch.float64))


def test_projection_is_a_scaled_basis() -> None:
    projection = unit_projection(40, 6, torch.Generator().manual_seed(3))
    gaussian = torch.randn(40, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    basis = np.linalg.svd(gaussian, full_matrices=False)[0]
    basis /= np.sqrt((basis**2).sum(1))[:, None]
    np.testing.assert_allclose(projection @ projection.T, basis @ basis.T, atol=1e-6)
    np.testing.assert_allclose(projection.norm(dim=1), np.ones(40), rtol=1e-6)
    assert np.linalg.matrix_rank(projection.numpy() @ projection.numpy().T, tol=1e-5) == 6


def test_decoder() -> None:
    inputs, targets = (task := Task([ToyRun(**SMALL, density=0.3)])).batch(0)
    torch.testing.assert_close(inputs[0], targets[0] @ task.projection[0])
    assert targets.min() == 0
    assert 0 < float(targets.max()) <= 1


def test_re_projector() -> None:
    task = Task([ToyRun(**SMALL, density=0.3, task="reprojector")])
    inputs, targets = task.batch(0)
    features, decoder_inputs = Task([ToyRun(**SMALL, density=0.3)]).batch(0)[::-1]
    torch.testing.assert_close(inputs, decoder_inputs)
    assert task.second is not None
    assert not torch.allclose(task.second, task.projection)
    torch.testing.assert_close(targets[0], features[0] @ task.second[0])
    assert targets.shape == (1, 16, 4)


def test_absolute_value_halves_the_density_of_each_draw() -> None:
    run = ToyRun(**SMALL | {"batch_size": 20_000}, density=0.2, task="absolute")
    task = Task([run])
    inputs, targets = task.batch(0)
    random = generator("cpu", "features", run.seed, 0)
    half = torch.full((12,), 0.1)
    first, second = (sparse_features(torch.rand(20_000, 12, generator=random), half) for _ in range(2))
    torch.testing.assert_close(targets[0], (first - second).abs())
    torch.testing.assert_close(inputs[0], (first - second) @ task.projection[0])
    assert float((targets > 0).double().mean()) == pytest.approx(1 - 0.9**2, abs=5e-3)


def test_runs_of_a_seed_see_the_same_and_others_something_else() -> None:
    runs = [ToyRun(**SMALL, density=0.3, lr=lr, seed=seed) for lr in (0.01, 0.02) for seed in (1, 2)]
    inputs, targets = Task(runs).batch(7)
    assert torch.equal(inputs[0], inputs[2])
    assert torch.equal(targets[1], targets[3])
    assert not torch.equal(targets[0], targets[1])
    assert not torch.equal(Task(runs).batch(8)[1], targets)
    alone = Task([runs[3]]).batch(7)
    assert torch.equal(alone[1][0], targets[3])


def test_densities_may_differ_side_by_side() -> None:
    runs = [ToyRun(**SMALL | {"batch_size": 5000}, density=density) for density in (0.05, 0.4)]
    shares = (Task(runs).batch(0)[1] > 0).double().mean((1, 2))
    np.testing.assert_allclose(shares, [0.05, 0.4], atol=0.01)

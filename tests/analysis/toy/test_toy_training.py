"""Training side by side, against a plain PyTorch loop for one run (J02, J05, J09-J11)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from l2e.analysis.toy import ToyModel, ToyRun, Training
from l2e.analysis.toy.training import task_loss

SMALL = ToyRun(features=12, inputs=4, neurons=10, density=0.2, batch_size=16, steps=32, half_cycle=8, lr=0.02)
RICH = replace(SMALL, bias_offset=-0.3, bias_decay=2.0, l1=0.05, seed=4)


def trained(training: Training, steps: int | None = None) -> Training:
    for _ in range(training.steps if steps is None else steps):
        training.step()
    return training


def plain_training(run: ToyRun) -> tuple[nn.Sequential, list[float]]:
    """One run as anybody would write it: nn.Linear, LAMB tensor by tensor, torch's scheduler."""
    start, task = ToyModel([run]), Training([run]).task
    model = nn.Sequential(nn.Linear(run.inputs, run.neurons), nn.ReLU(), nn.Linear(run.neurons, run.features, False))
    with torch.no_grad():
        model[0].weight.copy_(start.weight_in[0].T)
        model[0].bias.copy_(start.bias[0, 0])
        model[2].weight.copy_(start.weight_out[0].T)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer := torch.optim.SGD(model.parameters(), lr=run.lr), T_max=run.half_cycle
    )
    moments: list[tuple[Tensor, Tensor]] = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()]
    losses = []
    for step in range(run.steps):
        inputs, targets = (tensor[0] for tensor in task.batch(step))
        hidden = model[1](model[0](inputs))
        loss = ((model[2](hidden) - targets) ** 2).sum() / run.batch_size
        losses.append(loss.item())
        model.zero_grad()
        (loss + run.l1 * hidden.abs().sum() / run.batch_size).backward()
        with torch.no_grad():
            for (mean, square), parameter in zip(moments, model.parameters(), strict=True):
                assert parameter.grad is not None
                mean += 0.1 * (parameter.grad - mean)
                square += 0.001 * (parameter.grad**2 - square)
                adam = mean / (square.sqrt() + 1e-6)
                parameter -= optimizer.param_groups[0]["lr"] * parameter.norm().clamp(0, 10) / adam.norm() * adam
            optimizer.step = lambda: None  # type: ignore[method-assign]
            scheduler.step()
            if step < run.steps / 2:
                model[0].bias *= 1 - run.bias_decay * run.lr
    return model, losses


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
def test_as_a_plain_loop() -> None:
    model, losses = plain_training(RICH)
    ours = trained(Training([RICH]))
    np.testing.assert_allclose(ours.losses[:, 0], losses, rtol=1e-3)
    for found, expected in (
        (ours.model.weight_in[0].T, model[0].weight),
        (ours.model.bias[0, 0], model[0].bias),
        (ours.model.weight_out[0].T, model[2].weight),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)
    assert losses[-1] < losses[0]


def test_side_by_side_as_alone() -> None:
    runs = [
        RICH,
        replace(SMALL, lr=0.005),
        replace(SMALL, seed=2, density=0.1, distribution="power_law"),
        replace(RICH, l1=0.0, bias_decay=0.0),
    ]
    together = trained(Training(runs))
    for index, run in enumerate(runs):
        alone = trained(Training([run]))
        torch.testing.assert_close(together.losses[:, index], alone.losses[:, 0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(together.model.bias[index], alone.model.bias[0], rtol=1e-2, atol=1e-4)
        for step, found in alone.records.items():
            assert together.records[step]["positive"][index] == found["positive"][0]


def test_biases_decay_in_the_first_half_only() -> None:
    """In cycles of two steps the rate of every second step is 0: nothing but the decay 1 - 5 x 0.02 = 0.9 moves it."""
    run = replace(SMALL, half_cycle=1, steps=8, bias_decay=5.0)
    training = trained(Training([run]), 1)
    factors = []
    for step in range(1, 8):
        bias, weight = training.model.bias.detach().clone(), training.model.weight_in.detach().clone()
        training.step()
        if step % 2:
            factors.append((training.model.bias / bias).detach().flatten())
            assert torch.equal(training.model.weight_in, weight)
    expected = [0.9, 0.9, 1.0, 1.0]
    for found, factor in zip(factors, expected, strict=True):
        np.testing.assert_allclose(found, np.full(10, factor), rtol=1e-6)


def test_initial_weights() -> None:
    """As torch.nn.Linear's: uniform within 1/sqrt(inputs of the layer); the offset moves all biases alike."""
    runs = [replace(SMALL, inputs=9, neurons=400, bias_offset=offset) for offset in (0.0, -1.0)]
    model = ToyModel(runs)
    assert 0.32 < float(model.weight_in.detach().abs().max()) <= 1 / 3
    assert 0.049 < float(model.weight_out.detach().abs().max()) <= 1 / 20
    assert abs(float(model.weight_in.detach().mean())) < 0.02
    torch.testing.assert_close(model.bias[1], model.bias[0] - 1)
    assert torch.equal(model.weight_in[0], model.weight_in[1])
    assert not torch.equal(ToyModel([replace(runs[0], seed=2)]).weight_in[0], model.weight_in[0])


def test_loss_by_hand() -> None:
    """Two samples with errors (1, 2) and (0, 3): (1 + 4 + 9) / 2."""
    outputs = torch.tensor([[[1.0, 2.0], [0.0, 3.0]]])
    assert task_loss(outputs, torch.zeros(1, 2, 2)).tolist() == [7.0]


def test_a_silent_model_loses_the_features_squares() -> None:
    """E f^2 = density / 3 for each feature; the absolute value's halves: 2 x density/6 - 2 (density/4)^2."""
    for task, expected in (("decoder", 12 * 0.2 / 3), ("absolute", 12 * (0.2 / 3 - 2 * 0.05**2))):
        run = replace(SMALL, task=task, batch_size=20_000)
        _, targets = Training([run]).task.batch(0)
        assert float(task_loss(torch.zeros_like(targets), targets)) == pytest.approx(expected, rel=0.03)


def test_records_and_whole_cycles() -> None:
    training = trained(Training([SMALL]))
    assert sorted(training.records) == [1, 2, 4, 8, 16, 24, 32]
    assert training.clean_losses().item() == pytest.approx(float(training.losses[-16:].mean()))


@pytest.mark.parametrize("method", ["l2e", "memel"])
def test_inhibited_side_by_side_as_alone(method: str) -> None:
    """Each run has a tap of its own: statistics, threshold and strength of one do not touch another."""
    settings = {"inhibition": method, "steps": 64, "rate": 0.1, "batch_size": 64}
    runs = [replace(SMALL, strength=strength, **settings) for strength in (0.0, 0.3, 1.0)]
    together = trained(Training(runs))
    for index, run in enumerate(runs):
        alone = trained(Training([run]))
        torch.testing.assert_close(together.losses[:, index], alone.losses[:, 0], rtol=2e-2, atol=1e-4)
        torch.testing.assert_close(together.clean_losses()[index], alone.clean_losses()[0], rtol=2e-2, atol=1e-4)


def test_clean_losses_are_measured_without_the_deactivation() -> None:
    """Every eighth step of the last cycle, on its batch, with the weights before it."""
    run = replace(SMALL, inhibition="memel", strength=0.0, rate=0.3, batch_size=64)
    training, expected = Training([run]), []
    for step in range(run.steps):
        if step in (16, 24):
            inputs, targets = training.task.batch(step)
            model = training.model
            hidden = torch.relu(inputs[0] @ model.weight_in[0] + model.bias[0])
            expected.append(float(((hidden @ model.weight_out[0] - targets[0]) ** 2).sum().detach() / 64))
        training.step()
    assert training.clean_losses().item() == pytest.approx(np.mean(expected), rel=1e-4)
    assert training.losses[16, 0].item() != pytest.approx(expected[0], rel=1e-2)


def test_strength_is_held_and_zero_is_without() -> None:
    settings = {"inhibition": "l2e", "steps": 128, "rate": 0.1, "batch_size": 64}
    training = trained(Training([replace(SMALL, strength=strength, **settings) for strength in (0.0, 0.2)]))
    plain = trained(Training([replace(SMALL, steps=128, batch_size=64)]))
    torch.testing.assert_close(training.losses[:, 0], plain.losses[:, 0], rtol=1e-3, atol=1e-5)
    assert training.inhibitions[0].metrics() == {}
    assert training.inhibitions[1].metrics()["taps.1/strength"] == pytest.approx(0.2, rel=0.5)
    assert not torch.allclose(training.losses[-1, 1], plain.losses[-1, 0], rtol=1e-3)


def test_only_one_shape_side_by_side() -> None:
    with pytest.raises(ValueError, match="one shape"):
        Training([SMALL, replace(SMALL, neurons=11)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": 12}, r"inputs must be fewer than features \(12\), not 12"),
        ({"steps": 40}, "steps must be whole cycles of 16"),
        ({"density": 1.5}, "density must be at most 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"bias_decay": -1.0}, "bias_decay must be at least 0"),
        ({"bias_decay": 50.0}, r"bias_decay \* lr must be below 1"),
        ({"rate": 1.0}, r"rate must lie in \(0, 1\)"),
    ],
)
def test_impossible_runs_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)

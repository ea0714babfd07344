"""Figures and tables of the toy experiments: everything drawn, and the numbers behind it right."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.experiments import ShapeSettings, ToySettings, run
from l2e.analysis.toy.results import ToyResult
from l2e.reporting.analysis.toy import Part, draw_toy, linear_parts
from l2e.reporting.analysis.toy_lines import OVER_STEPS
from l2e.reporting.analysis.toy_neurons import monosemantic_features, response_curves
from l2e.reporting.cells import Table
from l2e.reporting.pictures import Picture

SHAPE = ShapeSettings(features=16, inputs=4, neurons=24, density=0.1, batch_size=16, steps=64, half_cycle=16)
EXPECTED = {
    "lr": ["fig1", "fig3", "fig7", "fig5", "fig10", "fig24", "fig25", "fig26", "lr"],
    "bias": ["fig8"],
    "k": ["fig15"],
    "eps": ["fig18"],
    "l1": ["fig14"],
    "tasks": ["tasks"],
    "bridge": ["bridge-roc", "bridge-fkr", "bridge-l2e", "bridge-memel"],
}


def settings_for(experiment: str, folder: Path) -> ToySettings:
    values = {"lr": [0.003, 0.03], "bias": [-0.5, 0.0], "bridge": [0.0, 0.1]}.get(experiment)
    return ToySettings(experiment=experiment, shape=SHAPE, seeds=[1, 2], values=values, folder=str(folder))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy")


def read(picture: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.csv_text)))


@pytest.fixture(scope="module")
def rates(folder: Path) -> list[Part]:
    """All parts of the experiment with learning rates; nine figures take seconds."""
    return draw_toy(settings_for("lr", folder))


@pytest.mark.parametrize("experiment", EXPECTED)
def test_everything_is_drawn(experiment: str, folder: Path, rates: list[Part]) -> None:
    parts = rates if experiment == "lr" else draw_toy(settings_for(experiment, folder))
    pictures = [part for part in parts if isinstance(part, Picture)]
    assert [picture.name for picture in pictures] == [f"toy-{name}" for name in EXPECTED[experiment]]
    for picture in pictures:
        assert picture.png.startswith(b"\x89PNG")
        assert picture.svg_file.rstrip().endswith(b"</svg>")
        assert read(picture)
        assert picture.title
        assert picture.caption
    assert all(len(row) == len(part.header) for part in parts if isinstance(part, Table) for row in part.rows)


def test_a_sweeps_numbers_are_those_of_the_runs(folder: Path, rates: list[Part]) -> None:
    found = run(settings_for("lr", folder))
    (sweep,) = [part for part in rates if isinstance(part, Picture) and part.name == "toy-lr"]
    rows = {(row["series"], float(row["value"]), int(row["seed"])): row for row in read(sweep)}
    assert len(rows) == 8
    result = found[1].results[0.03][1]
    row = rows["negative start", 0.03, 2]
    assert float(row["loss"]) == pytest.approx(result.losses[-32:].mean(), rel=1e-4)
    assert float(row["monosemantic_per_feature"]) == (result.monosemanticity() > 0.999).sum() / 16
    assert float(row["mean_bias"]) == pytest.approx(float(result.bias.mean()), rel=1e-4)
    assert float(row["positive_biases"]) == (result.bias > 0.05).sum()
    (table,) = [part for part in rates if isinstance(part, Table)]
    (cells,) = [row for row in table.rows if row[:2] == ["negative start", "0.03"]]
    losses = [each.loss for each in found[1].results[0.03]]
    assert cells[2] == f"{np.mean(losses):.3f} ± {np.std(losses, ddof=1):.3f}"
    sentence = next(part for part in rates if isinstance(part, str))
    change = 100 * (
        np.mean([r.loss for r in found[0].results[0.03]]) / np.mean([r.loss for r in found[0].results[0.003]]) - 1
    )
    assert f"the loss by {change:+.1f}%" in sentence


def test_losses_are_compared_over_whole_cycles(folder: Path) -> None:
    """Bins from one power of two to the next until the first cycle of 32 ends, then whole cycles."""
    results = run(settings_for("lr", folder))[0].results[0.03]
    steps, lines = OVER_STEPS["loss"](results)
    assert steps.tolist() == [1, 2, 4, 8, 16, 32, 64]
    losses = results[0].losses
    parts = [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64)]
    np.testing.assert_allclose(lines[0], [losses[start:stop].mean() for start, stop in parts])
    steps, lines = OVER_STEPS["monosemantic / N"](results)
    assert steps.tolist() == [1, 2, 4, 8, 32, 64]  # 16 and 48 are bottoms of a cycle
    assert lines[0][-1] == results[0].per_feature


def test_response_curves_by_hand() -> None:
    """One neuron per feature, 2 relu(f - 0.4), and one of bias 0.1 along feature 0 that adds 0.5 (f + 0.1) to both
    outputs; what it gives without any feature, 0.05, is taken off."""
    run = ToyRun(features=2, inputs=1, neurons=3)
    projection = torch.tensor([[1.0], [-1.0]])
    weight_in, bias = torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([-0.4, -0.4, 0.1])
    weight_out = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.5, 0.5]])
    result = ToyResult(run, np.ones(1024), 1.0, np.array([1]), {}, projection, weight_in, bias, weight_out)
    size, total, strongest = response_curves(result)
    assert (size[0], size[50], size[-1]) == (0, 0.5, 1)
    np.testing.assert_allclose(total[[0, 50, 100], 0], [0, 2 * 0.1 + 0.25, 2 * 0.6 + 0.5], atol=1e-6)
    np.testing.assert_allclose(total[[0, 50, 100], 1], [0, 0.2 - 0.05, 1.2 - 0.05], atol=1e-6)
    np.testing.assert_allclose(strongest[[0, 50, 100]], [[0, 0], [0.2, 0.2], [1.2, 1.2]], atol=1e-6)
    assert monosemantic_features(result) == {1: 1, 2: 1}  # neurons 0 and 2 answer to feature 0 alone: 2 without bias
    with pytest.raises(ValueError, match="an output for each feature"):
        response_curves(
            ToyResult(
                ToyRun(features=2, inputs=1, neurons=3, task="reprojector"),
                np.ones(1024),
                1.0,
                np.array([1]),
                {},
                projection,
                weight_in,
                bias,
                weight_out[:, :1],
            )
        )


def test_without_positive_biases_there_is_no_linear_map() -> None:
    assert linear_parts([]) == ["No neuron has a positive bias: there is no linear map to draw (26)."]

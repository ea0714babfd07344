"""The paper's findings at the scaled size, three seeds each (method.md 4); docs/toy-models.md has the whole sweeps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l2e.analysis.toy import ToyRun
from l2e.analysis.toy.experiments import ToySettings, plan
from l2e.analysis.toy.plans import SIZES
from l2e.analysis.toy.results import ToyResult
from l2e.analysis.toy.sweep import run_sweep
from l2e.analysis.toy.truth import judge, labelled_values, roc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy-findings")


def trained(folder: Path, **settings: float) -> list[ToyResult]:
    return run_sweep([replace(ToyRun(), seed=seed, **settings) for seed in SEEDS], folder)  # type: ignore[arg-type]


def mean(results: list[ToyResult], name: str) -> float:
    return float(np.mean([getattr(result, name) for result in results]))


@pytest.fixture(scope="module")
def low_and_high(folder: Path) -> tuple[list[ToyResult], list[ToyResult]]:
    runs = [replace(ToyRun(), lr=lr, seed=seed) for lr in (0.003, 0.03) for seed in SEEDS]
    found = run_sweep(runs, folder)
    return found[:3], found[3:]


def test_the_share_rises_with_the_rate_at_equal_loss(low_and_high: tuple[list[ToyResult], list[ToyResult]]) -> None:
    low, high = low_and_high
    for slow, fast in zip(low, high, strict=True):
        assert fast.per_feature > slow.per_feature + 0.1
        assert fast.count("mean_bias") < -0.2 < slow.count("mean_bias")
    assert mean(high, "loss") == pytest.approx(mean(low, "loss"), rel=0.1)


def test_scores_tell_monosemantic_neurons(low_and_high: tuple[list[ToyResult], list[ToyResult]]) -> None:
    """Each run by itself: l* is the feature that a monosemantic neuron answers to, and phi_{l*} ranks the neurons."""
    for result in low_and_high[1]:
        judged = judge(result, labelled_values(result))
        mono = judged.monosemantic
        assert (judged.star == judged.answers_to)[mono].mean() > 0.9
        assert roc(judged.detectors["phi_l*"], mono)[2] > 0.6
        assert roc(judged.detectors["phi_l*"], judged.r > 0.5)[2] > 0.9


def test_a_negative_start_leaves_about_as_many_positive_biases_as_inputs(folder: Path) -> None:
    size = SIZES["scaled"]
    results = trained(folder, lr=0.003, bias_offset=-1.0, bias_decay=size.decay)
    zero = trained(folder, lr=0.003)
    for result, plain in zip(results, zero, strict=True):
        assert result.count("positive") == pytest.approx(result.run.inputs, rel=0.25)
        assert plain.count("positive") > 3 * result.run.inputs
    assert mean(results, "loss") == pytest.approx(mean(zero, "loss"), rel=0.1)


def test_the_share_of_neurons_peaks_where_there_is_one_for_each_feature(folder: Path) -> None:
    (series,) = plan(ToySettings(experiment="k", values=[0.5, 1.0, 4.0], seeds=list(SEEDS)))
    shares = {
        ratio: mean(run_sweep([replace(run, steps=3 * 1024) for run in runs], folder), "per_neuron")
        for ratio, runs in series.runs.items()
    }
    assert shares[1.0] > shares[0.5] + 0.05
    assert shares[1.0] > shares[4.0] + 0.05

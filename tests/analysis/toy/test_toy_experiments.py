"""The experiments: which runs they compare, what their YAML files say, what is refused."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.experiments import ShapeSettings, ToySettings, plan, run
from l2e.analysis.toy.plans import SIZES, Series
from l2e.errors import UserError
from l2e.settings import build_settings

CONFIGS = Path(__file__).parents[3] / "configs"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("toy_*.yaml"))


def settings_of(name: str, **more: object) -> ToySettings:
    """What analysis=toy experiment=... composes to, without the key that chooses the kind."""
    group = OmegaConf.load(CONFIGS / "analysis" / "toy.yaml")
    assert group.pop("kind") == "toy"
    chosen = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml")
    assert set(chosen) == {"analysis"}
    tree = OmegaConf.to_container(OmegaConf.merge(group, chosen.analysis, more))
    return build_settings(ToySettings, tree, "analysis")  # type: ignore[arg-type]


def runs_of(series: list[Series]) -> list[ToyRun]:
    return [each for one in series for runs in one.runs.values() for each in runs]


def test_all_experiments_are_shipped() -> None:
    assert {f"toy_{name}" for name in ("lr", "bias", "k", "eps", "l1", "tasks", "bridge")} == set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_at_both_sizes(experiment: str) -> None:
    for size, base in (("scaled", ToyRun()), ("paper", SIZES["paper"].base)):
        settings = settings_of(experiment, size=size)
        assert settings.experiment == experiment.removeprefix("toy_")
        runs = runs_of(plan(settings))
        assert {run.seed for run in runs} == {1, 2, 3}
        assert {(run.features, run.inputs, run.steps) for run in runs} == {(base.features, base.inputs, base.steps)}


def test_the_papers_size_and_sweep() -> None:
    """Defaults of the paper and LR1, LR3 (method.md 1.4)."""
    zero, negative = plan(ToySettings(size="paper", seeds=[5]))
    assert list(zero.runs) == [0.001, 0.003, 0.005, 0.007, 0.01, 0.03]
    published = {"features": 512, "inputs": 64, "neurons": 1024, "density": 1 / 64, "batch_size": 8192, "seed": 5}
    published |= {"steps": 2**17, "half_cycle": 512, "bias_offset": 0.0, "bias_decay": 0.0, "l1": 0.0, "lr": 0.003}
    assert published.items() <= asdict(zero.runs[0.003][0]).items()
    assert negative.runs[0.003] == [replace(zero.runs[0.003][0], bias_offset=-1.0, bias_decay=0.03)]


def test_k_keeps_the_papers_product_with_the_batch() -> None:
    (series,) = plan(ToySettings(experiment="k", size="paper", seeds=[1]))
    assert {run.neurons * run.batch_size for run in runs_of([series])} == {2**23}
    assert series.runs[1.0][0].neurons == 512
    (scaled,) = plan(ToySettings(experiment="k", seeds=[1]))
    assert {(run.neurons, run.batch_size) for run in runs_of([scaled])} == {(k, 128) for k in (32, 64, 128, 256, 512)}


def test_without_inhibition_is_the_plain_run_in_both_series() -> None:
    penalty, memel, naive = plan(ToySettings(experiment="bridge"))
    plain = [replace(ToyRun(), seed=seed) for seed in (1, 2, 3)]
    assert penalty.runs[0.0] == memel.runs[0.0] == naive.runs[0.0] == plain
    assert {run.inhibition for runs in list(penalty.runs.values())[1:] for run in runs} == {"l2e"}
    assert [run.strength for run in penalty.runs[0.1]] == [0.1] * 3
    assert {(run.inhibition, run.strength, run.rate) for run in memel.runs[0.01]} == {("memel", 1.0, 0.01)}
    assert {(run.inhibition, run.strength, run.rate) for run in naive.runs[0.04]} == {("memel", 0.0, 0.04)}


def test_the_bridge_is_never_without_its_baseline() -> None:
    penalty = plan(ToySettings(experiment="bridge", values=[0.2]))[0]
    assert list(penalty.runs) == [0.0, 0.2]


def test_what_may_be_changed() -> None:
    shape = ShapeSettings(features=20, inputs=5, neurons=30, density=0.1, batch_size=7, steps=8, half_cycle=2)
    runs = runs_of(plan(ToySettings(values=[0.01], seeds=[9], shape=shape)))
    assert len(runs) == 2
    assert runs[0] == ToyRun(
        features=20, inputs=5, neurons=30, density=0.1, batch_size=7, steps=8, half_cycle=2, lr=0.01, seed=9
    )


def test_results_come_back_by_series_and_value(tmp_path: Path) -> None:
    shape = ShapeSettings(features=6, inputs=3, neurons=4, batch_size=4, steps=8, half_cycle=2)
    settings = ToySettings(values=[0.02, 0.01], seeds=[2, 1], shape=shape, folder=str(tmp_path))
    found = run(settings)
    for series, planned in zip(found, plan(settings), strict=True):
        assert (series.name, series.key) == (planned.name, planned.key)
        assert {value: [result.run for result in results] for value, results in series.results.items()} == planned.runs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "huge"}, "analysis.size: .*'scaled' or 'paper'"),
        ({"experiment": "lr2"}, "analysis.experiment: .*'lr', 'bias'"),
        ({"seeds": []}, "seeds must be whole numbers, each once"),
        ({"seeds": [1, 1]}, "seeds must be whole numbers, each once"),
        ({"values": [0.1, 0.1]}, "values must be numbers, each once"),
        ({"values": [-0.1]}, "lr must be above 0, not -0.1"),
        ({"shape": {"steps": 1000}}, "steps must be whole cycles of 1024"),
        ({"shape": {"neuron": 5}}, r"analysis.shape.neuron: unknown setting \(did you mean neurons\?\)"),
        ({"side_by_side": 0}, "side_by_side must be at least 1"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_trained(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_of("toy_lr", **given)

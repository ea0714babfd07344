"""Every shipped config composes and passes its checks."""

from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2e.cli.analysis_kinds import KINDS
from l2e.cli.analyze_config import AnalyzeConfig, choose
from l2e.cli.benchmark_config import BenchmarkConfig
from l2e.cli.by_model import by_model
from l2e.cli.evaluate_config import EvaluateConfig
from l2e.cli.prepare import PrepareConfig
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.report_config import ReportConfig
from l2e.models import PYTHIA
from l2e.settings import build_settings

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = [
    f"{group}={path.stem}"
    for group in ("model", "data", "inhibition", "training", "deepspeed", "checkpoint", "evaluation", "logging")
    for path in sorted((CONFIGS / group).glob("*.yaml"))
]
NEEDED = [
    "++data.path=/somewhere",
    "++training.lr=1e-3",
    "++training.precision=fp32",
    "++model.max_length=2048",
    "++inhibition.weight=1e-11",
]


def tree(script: str, *overrides: str) -> dict:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return OmegaConf.to_container(compose(script, list(overrides)), resolve=True)  # type: ignore[return-value]


@pytest.mark.parametrize("choice", GROUPS)
def test_every_choice_of_every_group(choice: str) -> None:
    needed = [n for n in NEEDED if not (n.startswith("++data") and choice not in ("data=text", "data=documents"))]
    if choice == "data=documents":
        needed += ["data.tokenizer=/somewhere", "data.samples=10"]
    config = build_settings(PretrainConfig, tree("pretrain", choice, *needed))
    group, name = choice.split("=")
    if group == "model":
        assert config.model.name == name
    if group == "deepspeed":
        assert config.deepspeed.stage == int(name[-1])
    if group == "inhibition":
        assert config.inhibition.method == name


EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


# Those of the toy models are for scripts/analyze.py: tests/analysis/toy/test_toy_experiments.py.
@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if not name.startswith("toy_")])
def test_every_experiment(experiment: str) -> None:
    needed = ["++data.path=/somewhere"] if experiment == "pile_sample" else []
    config = build_settings(PretrainConfig, tree("pretrain", f"experiment={experiment}", *needed))
    assert ("table" in experiment or experiment == "paper") == (config.training.steps == 14_300)
    if experiment == "pile_sample":
        assert config.model.name == "pythia-14m"
        assert config.evaluation.tasks == ["arc_challenge", "arc_easy", "piqa", "sciq"]
        assert config.evaluation.data_dir == "/somewhere/eval"
        assert config.vocab_size == 50304


PUBLISHED = {"pythia-70m": (1e-11, 32, 1e-3), "pythia-410m": (1e-10, 32, 3e-4), "pythia-2.8b": (1e-9, 16, 1.6e-4)}


@pytest.mark.parametrize("model", PUBLISHED)
@pytest.mark.parametrize("inhibition", ["none", "dropout", "l2e", "l2e_no_threshold", "reverse_deactivation"])
def test_the_papers_tables_take_what_is_published_for_the_size(model: str, inhibition: str) -> None:
    """L16, method.md 2.12; the peak rates of pythia.md D.6."""
    for table in (1, 4, 5, 7, 8):
        chosen = tree("pretrain", f"experiment=table{table}", f"model={model}", f"inhibition={inhibition}")
        config = build_settings(PretrainConfig, chosen)
        training = config.training
        assert (config.inhibition.weight, training.micro_batch_size, training.lr) == PUBLISHED[model]
        assert (training.steps, training.batch_size, training.schedule_steps) == (14_300, 1024, 143_000)
        assert config.inhibition.method == inhibition
        assert (config.data.name, config.evaluation.shots) == ("pile_deduped", [0, 5])
        assert config.name == f"{model}-{inhibition}-0.02-middle-2-seed1"  # one run, whichever table asks for it


def test_each_table_sweeps_its_own_settings() -> None:
    swept = {}
    for table in (1, 4, 5, 7, 8):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            composed = compose("pretrain", [f"experiment=table{table}"], return_hydra_config=True)
        swept[table] = dict(composed.hydra.sweeper.params)
    assert swept == {
        1: {"inhibition": "none,dropout,l2e"},
        4: {"inhibition": "l2e", "inhibition.rate": "0.01,0.02,0.03"},
        5: {"inhibition": "l2e", "inhibition.blocks": "top-bottom,middle-third,middle-2"},
        7: {"inhibition": "l2e_no_threshold,l2e"},
        8: {"inhibition": "reverse_deactivation,l2e"},
    }


def test_a_size_without_a_published_weight_must_state_one() -> None:
    with pytest.raises(OmegaConfBaseException, match="nothing is published for tiny"):
        tree("pretrain", "experiment=table1", "model=tiny")
    given = ["inhibition.weight=1e-4", "training.micro_batch_size=8", "training.lr=1e-3", "model.max_length=2048"]
    assert tree("pretrain", "experiment=table1", "model=tiny", *(f"++{one}" for one in given))["training"]["lr"] == 1e-3


def test_a_choice_by_model() -> None:
    assert by_model("a", "a 1e-3", "b 2") == 0.001
    assert isinstance(by_model("b", "a 1e-3", "b 32"), int)
    with pytest.raises(ValueError, match="nothing is published for c, only for a, b: give a value"):
        by_model("c", "a 1", "b 2")


def test_all_sizes_are_shipped() -> None:
    assert {path.stem for path in (CONFIGS / "model").glob("*.yaml")} == {"tiny", *PYTHIA}


def test_the_pythia_recipe_is_the_published_one() -> None:
    training = build_settings(
        PretrainConfig, tree("pretrain", "training=pythia", *NEEDED[2:], "model=pythia-1.4b")
    ).training
    assert training.lr == 2e-4
    assert (training.batch_size, training.seq_length, training.schedule_steps) == (1024, 2048, 143_000)
    assert (training.schedule, training.warmup, training.lr_floor) == ("pythia_v1", 0.01, 0.1)
    assert (training.betas, training.eps, training.weight_decay, training.clip) == ([0.9, 0.95], 1e-8, 0.1, 1.0)


def test_other_scripts() -> None:
    build_settings(ReportConfig, tree("report", "runs=[a]", "output=b"))
    prepare = build_settings(PrepareConfig, tree("prepare", "show=rows"))
    assert (prepare.data.kind, prepare.batch_size, prepare.seq_length) == ("pile", 1024, 2048)
    build_settings(EvaluateConfig, tree("evaluate", "path=a", "output=b"))
    for benchmark in (path.stem for path in (CONFIGS / "benchmark").glob("*.yaml")):
        assert callable(import_module(f"l2e.benchmarks.{benchmark}").run)
        assert build_settings(BenchmarkConfig, tree("benchmark", f"benchmark={benchmark}")).benchmark.kind == benchmark


def test_the_name_comes_from_the_settings() -> None:
    assert tree("pretrain", "seed=7", "inhibition=none")["name"] == "tiny-builtin-none-seed7"


@pytest.mark.parametrize("kind", sorted(path.stem for path in (CONFIGS / "analysis").glob("*.yaml")))
def test_every_analysis(kind: str) -> None:
    config = build_settings(AnalyzeConfig, tree("analyze", f"analysis={kind}", "output=/somewhere"))
    name, found, settings = choose(config.analysis)
    assert (name, found) == (kind, KINDS[kind])
    assert isinstance(settings, found.settings)


def test_every_kind_of_analysis_has_its_file() -> None:
    assert {path.stem for path in (CONFIGS / "analysis").glob("*.yaml")} == set(KINDS)


# Positions that Gurnee et al. leave out at the start (method.md section 3).
@pytest.mark.parametrize(
    ("features", "ignored"), [("builtin", 1), ("natural_language", 1), ("data_subset", 25), ("code_language", 100)]
)
def test_every_feature_set(features: str, ignored: int) -> None:
    needed = [] if features == "builtin" else [f"features.{features}.path=/somewhere"]
    config = build_settings(
        AnalyzeConfig, tree("analyze", "analysis=statistics", f"features={features}", "output=/somewhere", *needed)
    )
    assert list(config.features) == [features]
    settings = config.feature_sets[features]
    assert (settings.window, settings.ignore_first_k) == (512, ignored)

"""Every shipped config composes and passes its checks."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from l2e.cli.benchmark import BenchmarkConfig
from l2e.cli.evaluate import EvaluateConfig
from l2e.cli.prepare import PrepareConfig
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.report import ReportConfig
from l2e.models import PYTHIA
from l2e.settings import build_settings

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = [
    f"{group}={path.stem}"
    for group in ("model", "data", "inhibition", "training", "deepspeed", "checkpoint", "evaluation", "logging")
    for path in sorted((CONFIGS / group).glob("*.yaml"))
]
NEEDED = ["++data.path=/somewhere", "++training.lr=1e-3", "++training.precision=fp32", "++model.max_length=2048"]


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


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml")))
def test_every_experiment(experiment: str) -> None:
    needed = ["++data.path=/somewhere"] if experiment == "pile_sample" else []
    config = build_settings(PretrainConfig, tree("pretrain", f"experiment={experiment}", *needed))
    if experiment == "pile_sample":
        assert config.model.name == "pythia-14m"
        assert config.evaluation.tasks == ["arc_challenge", "arc_easy", "piqa", "sciq"]
        assert config.evaluation.data_dir == "/somewhere/eval"
        assert config.vocab_size == 50304


def test_all_sizes_are_shipped() -> None:
    assert {path.stem for path in (CONFIGS / "model").glob("*.yaml")} == {"tiny", *PYTHIA}


def test_the_pythia_recipe_is_the_published_one() -> None:
    training = build_settings(PretrainConfig, tree("pretrain", "training=pythia", *NEEDED[1:])).training
    assert (training.batch_size, training.seq_length, training.schedule_steps) == (1024, 2048, 143_000)
    assert (training.schedule, training.warmup, training.lr_floor) == ("pythia_v1", 0.01, 0.1)
    assert (training.betas, training.eps, training.weight_decay, training.clip) == ([0.9, 0.95], 1e-8, 0.1, 1.0)


def test_other_scripts() -> None:
    build_settings(ReportConfig, tree("report", "runs=[a]", "output=b"))
    prepare = build_settings(PrepareConfig, tree("prepare", "show=rows"))
    assert (prepare.data.kind, prepare.batch_size, prepare.seq_length) == ("pile", 1024, 2048)
    build_settings(EvaluateConfig, tree("evaluate", "path=a", "output=b"))
    build_settings(BenchmarkConfig, tree("benchmark", "benchmark=overhead"))


def test_the_name_comes_from_the_settings() -> None:
    assert tree("pretrain", "seed=7", "inhibition=none")["name"] == "tiny-builtin-none-seed7"

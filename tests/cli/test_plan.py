"""scripts/plan.py: what it prints, writes and refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from l2e.cli.entry import main
from l2e.cli.plan import measured_mfu
from l2e.cli.plan_config import PlanConfig
from l2e.cluster import GPUS
from l2e.models import PYTHIA
from l2e.models.flops import flops_per_token

CONFIGS = Path(__file__).parents[2] / "configs"
PYTHIA_70M = ["model=pythia-70m", "training=pythia", "training.lr=1e-3", "data=pile_deduped", "gpus=8"]


def plan(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr(sys, "argv", ["plan.py", *overrides])
    main("plan", "l2e.cli.plan:run")


def test_the_groups_are_those_of_a_training_run() -> None:
    lists = [yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["defaults"] for name in ("plan", "pretrain")]
    assert lists[0] == lists[1]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        trees: list[Any] = [
            OmegaConf.to_container(compose(name, ["model=pythia-14m", "inhibition=memel", "seed=3"]), resolve=True)
            for name in ("plan", "pretrain")
        ]
    own = set(trees[0]) - set(trees[1])
    assert {key: trees[0][key] for key in trees[1]} == trees[1]
    assert own == set(PlanConfig.__annotations__)


def test_gpus_are_the_ones_that_can_be_named() -> None:
    assert set(PlanConfig.__annotations__["gpu"].__args__) == set(GPUS)


def test_printed_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan(monkeypatch, *PYTHIA_70M, "inhibition.weight=1e-11", f"output={tmp_path / 'out'}", "runs_dir=nowhere")
    printed = capsys.readouterr().out
    assert "70,426,624" in printed
    assert "Memory of a GPU" in printed
    written = json.loads((tmp_path / "out" / "plan.json").read_text())
    page = (tmp_path / "out" / "plan.md").read_text()
    assert {key: sorted(value) for key, value in written.items() if isinstance(value, dict)} == {
        "parameters": ["non_embedding", "total"],
        "training": [
            "accumulation",
            "micro_batch_size",
            "precision",
            "tokens",
            "tokens_per_update",
            "updates",
            "zero_stage",
        ],
        "device": ["bf16", "memory_gib", "name", "peak_tflops"],
        "compute": [
            "flops",
            "flops_per_token",
            "flops_per_update",
            "gpu_hours",
            "hours",
            "mfu",
            "mfu_source",
            "seconds_per_update",
            "tokens_per_second",
        ],
        "memory": ["fits", "moment", "parts", "total"],
        "disk": ["export", "exports", "restart_point", "restart_points", "rows", "run"],
        "audit": ["differences", "not_reachable"],
    }
    assert set(written) - {k for k, v in written.items() if isinstance(v, dict)} == {
        "model",
        "gpus",
        "nodes",
        "problems",
    }
    assert written["training"]["tokens"] == 14_300 * 1024 * 2048
    assert sum(written["memory"]["parts"].values()) == pytest.approx(written["memory"]["total"])
    differing = [row["field"] for row in written["audit"]["differences"]]
    assert "training.precision" in differing
    assert all(f"| {field} |" in page for field in differing)
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["gpus=0"], "gpus must be at least 1, not 0"),
        (["mfu=1.5"], "mfu must lie in (0, 1], not 1.5"),
        (["gpu=H1000"], "gpu: input should be 'H200', 'H100'"),
        (["peak_tflops=0"], "peak_tflops must be above 0 or null, not 0"),
        (["training.stepz=3"], "training.stepz: unknown setting (did you mean steps?)"),
        (["inhibition.rate=2"], "inhibition: rate must lie in (0, 1), not 2"),
        (["from_run=/nowhere"], "/nowhere"),
        (["gpus=3", "strict=true"], "gpus: 8 sequences do not divide over 3; 2 or 4 GPUs do"),
    ],
)
def test_refusals(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        plan(monkeypatch, *overrides)
    printed = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(printed) == 1
    assert message in printed[0]


def test_problems_are_told_and_the_plan_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(monkeypatch, "gpus=3", "memory_gib=1")
    printed = capsys.readouterr().out
    assert "problem: gpus: 8 sequences do not divide over 3" in printed
    assert "problem: memory:" in printed
    assert "Disk" in printed


def run_folder(path: Path, rows: list[dict[str, float]]) -> Path:
    path.mkdir()
    config = {"model": {"name": "pythia-70m", "vocab_size": None}, "training": {"seq_length": 2048}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "environment.json").write_text(json.dumps({"ranks": 4}))
    (path / "metrics.jsonl").write_text("".join(json.dumps({"step": i, **row}) + "\n" for i, row in enumerate(rows)))
    return path


def test_measured_throughput(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speeds = [{"tokens_per_second": speed} for speed in (10.0, 1.1e6, 1.2e6, 1.3e6)]
    run = run_folder(tmp_path / "a", speeds)
    expected = 1.15e6 * flops_per_token(PYTHIA["pythia-70m"], 2048) / (4 * 989.4e12)
    assert measured_mfu(run, 989.4) == pytest.approx(expected)
    told = run_folder(tmp_path / "b", [{"mfu": 0.31, "tokens_per_second": 1.0}, {"mfu": 0.33}, {"mfu": 0.32}])
    assert measured_mfu(told, 989.4) == 0.32
    plan(monkeypatch, *PYTHIA_70M, "inhibition=none", f"from_run={told}")
    printed = capsys.readouterr().out
    assert "32.0%, measured in" in printed


def test_a_run_that_measured_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path / "a", [{"loss": 1.0}])
    with pytest.raises(SystemExit) as stop:
        plan(monkeypatch, f"from_run={run}")
    assert stop.value.code == 2
    assert "has no mfu and no tokens_per_second" in capsys.readouterr().err

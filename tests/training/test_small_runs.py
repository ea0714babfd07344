"""Whole runs: what inhibition may and may not change, splits, ranks, stages, restarts."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from processes import torchrun
from training_runs import metrics, pretrain, weights
from transformers import AutoModelForCausalLM

from l2e.data import BuiltinDataConfig, StepLoader, open_corpus
from l2e.data.builtin import WorldSettings
from l2e.models import build_pythia
from l2e.training.config import TrainingConfig
from l2e.training.loss import next_token_loss
from l2e.training.optimizer import build_optimizer
from l2e.training.schedule import cosine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that several tests look at."""
    folder = tmp_path_factory.mktemp("runs")
    pretrain(folder, "none", "inhibition=none")
    pretrain(folder, "l2e")
    return folder


def assert_same_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name


def test_the_baseline_equals_a_plain_pytorch_loop(folder: Path) -> None:
    """AdamW, schedule, clipping, data order and loss again, without DeepSpeed or the trainer."""
    world = WorldSettings(documents=300, items=16, known_items=16)
    config = TrainingConfig(steps=12, batch_size=4, seq_length=32, lr=4e-3, schedule="cosine", warmup=0.05)
    data = BuiltinDataConfig(kind="builtin", seed=1, world=world)
    corpus = open_corpus(data, seq_length=32, vocab_size=768, cache_dir=folder / "cache")
    model = build_pythia("tiny", max_length=512, seed=1)
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizer = build_optimizer(model, config)
    loader = StepLoader(corpus.train, 4, 4, 0, 1)
    losses, norms, rates = [], [], []
    for step in range(12):
        (tokens,) = loader.micro_batches(step)
        loss = next_token_loss(model(tokens[:, :-1]).logits, tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        rates.append(cosine(step, 4e-3, 12, 0.05))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.step()
        losses.append(loss.item())
    assert list(metrics(folder, "none", "loss").values()) == pytest.approx(losses, rel=1e-5)
    assert list(metrics(folder, "none", "grad_norm").values()) == pytest.approx(norms, rel=1e-4)
    assert list(metrics(folder, "none", "learning_rate").values()) == pytest.approx(rates)
    for name, weight in weights(folder, "none").items():
        three = [weight, model.state_dict()[name], start[name]]
        if name.endswith("query_key_value.bias"):
            # Softmax ignores a bias of the keys: its gradient is rounding, which Adam scales up to the rate.
            three = [bias.view(4, 3, 32)[:, [0, 2]] for bias in three]
        found, expected, first = three
        # Against the way that each tensor went: the fused loss rounds its sums in another order, and where a gradient
        # is little more than its rounding, Adam scales that up too (2 elements of 16,384 were seen to differ by 3e-5).
        assert (found - expected).norm() <= 1e-3 * (expected - first).norm(), name


def test_validation_loss_is_that_of_the_exported_model(folder: Path) -> None:
    world = WorldSettings(documents=300, items=16, known_items=16)
    corpus = open_corpus(
        BuiltinDataConfig(kind="builtin", world=world), seq_length=32, vocab_size=768, cache_dir=folder / "cache"
    )
    assert corpus.validation is not None
    rows = torch.from_numpy(np.stack([corpus.validation[row] for row in range(10)]))
    model = AutoModelForCausalLM.from_pretrained(folder / "runs" / "none" / "hf" / "step12")
    with torch.no_grad():
        expected = next_token_loss(model(rows[:, :-1]).logits, rows[:, 1:]).item()
    found = metrics(folder, "none", "validation_loss")
    assert list(found) == [0, 6, 12]
    assert found[12] == pytest.approx(expected, rel=1e-5)


def test_weight_zero_gives_the_baselines_weights_bitwise(folder: Path) -> None:
    pretrain(folder, "zero", "inhibition.weight=0")
    assert_same_weights(weights(folder, "none"), weights(folder, "zero"))
    assert metrics(folder, "zero", "loss") == metrics(folder, "none", "loss")


def test_the_first_loss_with_a_penalty_is_the_baselines_bitwise_and_later_ones_are_not(folder: Path) -> None:
    plain, inhibited = metrics(folder, "none", "loss"), metrics(folder, "l2e", "loss")
    # Updates 1 to 4 gather statistics; update 5 is the first with a penalty, its forward pass is unchanged.
    assert [inhibited[step] == plain[step] for step in range(1, 6)] == [True] * 5
    assert inhibited[6] != plain[6]
    assert not torch.equal(weights(folder, "none")["lm_head.weight"], weights(folder, "l2e")["lm_head.weight"])
    assert metrics(folder, "l2e", "inhibition/block1/strength")[12] > 0
    assert "inhibition/block1/strength" not in (folder / "runs" / "none" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "override",
    [
        pytest.param("training.micro_batch_size=2", marks=pytest.mark.slow),
        pytest.param("deepspeed=zero0", marks=pytest.mark.slow),
        pytest.param("deepspeed=zero3", marks=pytest.mark.slow),
    ],
)
def test_accumulation_and_stages_change_nothing_but_rounding(folder: Path, override: str) -> None:
    name = override.replace("=", "-")
    pretrain(folder, name, override)
    expected = list(metrics(folder, "l2e", "loss").values())
    assert list(metrics(folder, name, "loss").values()) == pytest.approx(expected, rel=1e-5)
    assert list(metrics(folder, name, "grad_norm").values()) == pytest.approx(
        list(metrics(folder, "l2e", "grad_norm").values()), rel=1e-4
    )


@pytest.mark.parametrize("stage", ["zero1", pytest.param("zero3", marks=pytest.mark.slow)])
def test_two_processes_give_the_loss_curve_of_one(folder: Path, stage: str) -> None:
    name = f"two-{stage}"
    pretrain(folder, name, f"deepspeed={stage}", launcher=torchrun(2))
    expected = list(metrics(folder, "l2e", "loss").values())
    assert list(metrics(folder, name, "loss").values()) == pytest.approx(expected, abs=1e-5)
    assert metrics(folder, name, "validation_loss")[12] == pytest.approx(
        metrics(folder, "l2e", "validation_loss")[12], abs=1e-5
    )
    threshold = "inhibition/block2/threshold"
    assert metrics(folder, name, threshold)[12] == pytest.approx(metrics(folder, "l2e", threshold)[12], rel=1e-3)
    environment = json.loads((folder / "runs" / name / "environment.json").read_text())
    assert environment["ranks"] == 2


@pytest.mark.slow
def test_bf16_trains_close_to_fp32_and_exports_bf16(folder: Path) -> None:
    pretrain(folder, "bf16", "training.precision=bf16")
    expected = list(metrics(folder, "l2e", "loss").values())
    assert list(metrics(folder, "bf16", "loss").values()) == pytest.approx(expected, rel=0.02)
    assert weights(folder, "bf16")["lm_head.weight"].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["activation_checkpointing", "compile"])
def test_recomputing_and_compiling_blocks_change_nothing_but_rounding(folder: Path, setting: str) -> None:
    if setting == "compile" and not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("torch.compile needs a C++ compiler (g++, or CXX)")
    pretrain(folder, setting, f"training.{setting}=true")
    expected = list(metrics(folder, "l2e", "loss").values())
    assert list(metrics(folder, setting, "loss").values()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_restart_point(folder: Path) -> None:
    pretrain(folder, "whole", "checkpoint.every=4")
    run = folder / "runs" / "killed"
    pretrain(folder, "killed", "checkpoint.every=4", "logging.wandb.mode=offline")
    # As if it had been killed after update 10: the last restart point is that of update 8.
    (run / "hf" / "step12").rename(run / "elsewhere")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step4", "step8"]
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= 10]
    (run / "metrics.jsonl").write_text("".join(kept) + '{"step": 11, "lo')
    printed = pretrain(folder, "killed", "checkpoint.every=4", "logging.wandb.mode=offline")
    assert "resumed after 8 updates" in printed
    assert_same_weights(weights(folder, "whole"), weights(folder, "killed"))
    for key in ("loss", "learning_rate", "inhibition/block1/threshold", "inhibition/block1/strength"):
        assert metrics(folder, "killed", key) == metrics(folder, "whole", key), key
    records = [path.stem for path in (run / "wandb").glob("offline-run-*/run-*.wandb")]
    assert len(records) == 2
    assert len(set(records)) == 1, "the same wandb run goes on"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("inhibition=dropout",),
        ("inhibition=dropout", "inhibition.dropout_at=everywhere"),
        ("inhibition.strength=[[0,0.1],[12,0.01]]",),
        ("training.precision=bf16", "inhibition.stochastic_rounding=true"),
        ("inhibition=l2e_no_threshold", "inhibition.scope=micro_batch", "training.micro_batch_size=2"),
    ],
)
def test_what_is_drawn_or_adapted_goes_on_exactly_after_a_restart(folder: Path, settings: tuple[str, ...]) -> None:
    names = [f"{kind}-{'-'.join(settings)}".translate(str.maketrans("=.[],", "-----")) for kind in ("whole", "cut")]
    for name in names:
        pretrain(folder, name, "checkpoint.every=8", *settings)
    run = folder / "runs" / names[1]
    (run / "hf" / "step12").rename(run / "elsewhere")
    assert "resumed after 8 updates" in pretrain(folder, names[1], "checkpoint.every=8", *settings)
    assert_same_weights(weights(folder, names[0]), weights(folder, names[1]))
    assert metrics(folder, names[0], "loss") == metrics(folder, names[1], "loss")
    assert metrics(folder, names[0], "loss")[12] != metrics(folder, "none", "loss")[12]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["memel", "reverse_deactivation", "naive_a", "naive_b"])
def test_the_other_methods_train_from_the_command_line(folder: Path, method: str) -> None:
    pretrain(folder, method, f"inhibition={method}")
    found = metrics(folder, method, "loss")
    assert found[1] == metrics(folder, "none", "loss")[1]
    assert found[12] != metrics(folder, "none", "loss")[12]
    assert 0 < metrics(folder, method, "inhibition/block1/selected")[12] < 0.2


def test_a_finished_run_is_not_trained_again(folder: Path) -> None:
    before = (folder / "runs" / "l2e" / "metrics.jsonl").read_bytes()
    assert "is trained already" in pretrain(folder, "l2e")
    assert (folder / "runs" / "l2e" / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_run_directory_is_refused(folder: Path) -> None:
    run = folder / "runs" / "l2e"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    printed = pretrain(folder, "l2e", "training.lr=0.1", expect=2)
    assert "training.lr is 0.004 there and 0.1 here; choose another name" in printed
    assert len(printed.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_run_directory_is_self_sufficient(folder: Path) -> None:
    run = folder / "runs" / "l2e"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["training"]["steps"] == 12
    assert config["training"]["betas"] == [0.9, 0.95]  # defaults too
    assert "training.steps=12" in yaml.safe_load((run / "overrides.yaml").read_text())
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["data"]["row_length"] == 33
    assert "step     12/12" in (run / "train.log").read_text()
    assert (run / "report.html").exists()
    assert "inhibition" not in " ".join(weights(folder, "l2e"))


@pytest.mark.slow
def test_wandb_offline_keeps_a_local_record(folder: Path) -> None:
    pretrain(folder, "wandb", "logging.wandb.mode=offline")
    assert list((folder / "runs" / "wandb" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.slow
def test_a_sweep_runs_its_members_one_after_another(folder: Path) -> None:
    pretrain(folder, "sweep-${inhibition.weight}", "inhibition.weight=0,0.01", "-m")
    assert_same_weights(weights(folder, "none"), weights(folder, "sweep-0"))
    assert_same_weights(weights(folder, "l2e"), weights(folder, "sweep-0.01"))


@pytest.mark.slow
def test_ranks_run_the_members_of_a_sweep_together(folder: Path) -> None:
    """Under torchrun, whose store remembers the addresses of the member before."""
    printed = pretrain(folder, "ranks-${seed}", "seed=1,2", "-m", launcher=torchrun(2))
    assert printed.count("Sweep of 2 runs") == 1
    for seed in (1, 2):
        environment = json.loads((folder / "runs" / f"ranks-{seed}" / "environment.json").read_text())
        assert environment["ranks"] == 2
        assert len(weights(folder, f"ranks-{seed}")) > 0


@pytest.mark.slow
def test_bad_data_ends_all_processes(folder: Path) -> None:
    overrides = ["data=text", "data.path=/nowhere", "~data.world"]
    printed = pretrain(folder, "stuck", *overrides, launcher=torchrun(2), expect=1)  # torchrun's own code
    assert "error: data.path: there is no folder /nowhere" in printed
    assert not (folder / "runs" / "stuck").exists()


def test_evaluation_data_is_checked_before_training(folder: Path) -> None:
    overrides = ["evaluation.enabled=true", "evaluation.tasks=[world_arc]", f"evaluation.data_dir={folder}"]
    printed = pretrain(folder, "unscored", *overrides, expect=2)
    assert "world_arc" in printed
    assert not (folder / "runs" / "unscored").exists()

"""The Table 2 benchmark: its step, its arithmetic, its JSON. No timing is asserted."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

from l2e.benchmarks import bandwidth, table2
from l2e.benchmarks.bandwidth import device_copy, tap_bytes, tap_seconds
from l2e.benchmarks.paper_steps import MILLISECONDS, label, paper_row, projected
from l2e.benchmarks.report import write_result
from l2e.benchmarks.table2_config import Table2Config
from l2e.benchmarks.table2_methods import METHODS
from l2e.benchmarks.training_step import TrainingStep
from l2e.models import build_pythia
from l2e.training.config import TrainingConfig
from l2e.training.optimizer import decay_groups

ROOT = Path(__file__).parents[2]
TINY = {"models": ["tiny"], "micro_batch_size": 2, "seq_length": 16, "rounds": 2, "seconds": 0, "device": "cpu"}
CPU = torch.device("cpu")


def test_the_papers_times_are_those_of_the_reports() -> None:
    rows = yaml.safe_load((ROOT / "l2e" / "reporting" / "published.yaml").read_text())["l2e"]["step_time"]["rows"]
    names = {"Pythia": "none", "MEmeL": "memel", "L2E": "l2e"}
    for row in rows:
        assert all(MILLISECONDS[size][names[row["setting"]]] == row[size] for size in MILLISECONDS)


def test_the_papers_row() -> None:
    """Issue 8: 5%, 10%, 14% of the peak if 24 GPUs worked on a run, 15%, 30%, 42% if 8 did."""
    shares = []
    for model in ("pythia-70m", "pythia-410m", "pythia-2.8b"):
        row = paper_row(model)
        assert row is not None
        shares.append([round(100 * row["mfu"][key]) for key in ("24_gpus", "8_gpus")])
    assert shares == [[5, 15], [10, 30], [14, 42]]
    row = paper_row("pythia-410m")
    assert row is not None
    assert row["overhead_percent"] == pytest.approx({"memel": 14.44, "l2e": 2.06}, abs=0.005)
    assert paper_row("tiny") is None
    assert [label("pythia-2.8b"), label("pythia-70m"), label("tiny")] == ["2.8B", "70M", "tiny"]


def test_a_projection_by_hand() -> None:
    """2,097,152 tokens at 1,048,576 tokens/s on each of 8 GPUs: a quarter of a second."""
    assert projected(1_048_576)["8_gpus"] == 250
    assert projected(1_048_576)["24_gpus"] == pytest.approx(250 / 3)


def test_bytes_of_a_tap_by_hand() -> None:
    """2 sequences of 3 neurons in bf16: 6 outputs, 4 times 2 bytes each; 8 numbers of 4 bytes for each neuron."""
    assert tap_bytes(2, 3, 2) == 48 + 96


def test_bandwidths_are_bytes_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bandwidth.COPIED, "cpu", 1000)
    monkeypatch.setattr(bandwidth, "_seconds", lambda work, device, repeats: (work(), 0.5)[1])
    assert device_copy(CPU) == 2 * 1000 / 0.5
    assert tap_seconds((4, 3, 8), torch.bfloat16, CPU, weight=1e-3) == 0.5


def training(**settings: Any) -> TrainingConfig:
    base = {"steps": 1, "batch_size": 4, "micro_batch_size": 2, "seq_length": 16, "lr": 1.0}
    return TrainingConfig(**(base | settings))


class Nothing:
    def penalty(self) -> torch.Tensor:
        return torch.zeros(())

    def step(self) -> None:
        pass


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-6), ("bf16", 2e-2)])
def test_a_step_is_an_update_of_plain_pytorch(precision: Any, allowed: float) -> None:
    """With a rate: two micro-batches, clipped, AdamW in two groups; PyTorch's in fp32."""
    config = training(precision=precision, loss_chunk=10)
    work = TrainingStep("tiny", config, CPU)
    for group in work.optimizer.optimizer.param_groups:
        group["lr"] = 1e-2
    model = build_pythia("tiny").train()
    model.load_state_dict({k: v.float() for k, v in work.model.state_dict().items()})
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    found = [work.step(Nothing(), index) for index in range(2)]  # type: ignore[arg-type]
    for index, loss in enumerate(found):
        rows = work.rows[index].flatten(0, 1)
        logits = model(rows[:, :-1]).logits.flatten(0, 1)
        expected = F.cross_entropy(logits, rows[:, 1:].flatten())
        expected.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=allowed)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    moved = sum(float((a - b).square().sum()) for a, b in zip(model.parameters(), start, strict=True))
    wrong = sum(float((a - b).square().sum()) for a, b in zip(model.parameters(), work.optimizer.masters, strict=True))
    assert (wrong / moved) ** 0.5 < (0.3 if precision == "bf16" else 1e-3)  # Adam's first steps follow signs
    if precision == "bf16":
        for weight, master in zip(work.optimizer.weights, work.optimizer.masters, strict=True):
            assert weight.dtype == torch.bfloat16
            assert torch.equal(weight, master.bfloat16())


def test_a_method_that_selects_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    size = table2.Size(Table2Config(**TINY, precision="fp32"), "tiny", CPU, False)  # nothing is warmed up
    with pytest.raises(RuntimeError, match="l2e selected nothing while it was timed"):
        size.time_steps("l2e", 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_on_where_it_stood(method: str) -> None:
    """Taken off and put on again it selects at once, and off it leaves nothing on the model."""
    work = TrainingStep("tiny", training(), CPU)
    first = METHODS[method](work.model, method, "middle-2", 0.05, None)
    work.steps(first, first.warm_up)
    assert not (first.selected() or 0) > 0 or method == "memel"
    state = first.state()
    first.remove()
    assert not any(module._forward_hooks for module in work.model.modules())
    again = METHODS[method](work.model, method, "middle-2", 0.05, state)
    work.steps(again, 1, first=7)
    share = again.selected()
    assert share is None if method == "none" else share is not None and 0.02 < share < 0.1
    again.remove()


def check(printed: dict[str, Any], methods: Sequence[str]) -> None:
    assert printed["benchmark"] == "table2"
    found = printed["results"]["tiny"]
    assert found["tokens_per_step"] == 32
    for method in ("none", *methods):
        result = found[method]
        assert result["tokens_per_second"] == pytest.approx(32000 / result["step_ms"])
        assert result["mfu"] is None
        assert result["memory_mib"] > 10
    for method in methods:
        result = found[method]
        low, high = result["step_ratio_spread"]
        assert 0 < low <= result["step_ratio"] <= high
        assert result["overhead_percent"] == pytest.approx(100 * (result["step_ratio"] - 1))
        assert result["selected"] > 0
    assert found["tap"]["share_of_copy"] == pytest.approx(
        found["tap"]["achieved_gb_per_s"] / found["tap"]["device_copy_gb_per_s"]
    )


def test_a_machine_with_torch_and_transformers_alone(tmp_path: Path) -> None:
    absent = ["hydra", "omegaconf", "pydantic", "deepspeed", "datasets", "lm_eval", "wandb", "matplotlib", "scipy"]
    given = TINY | {"output": str(tmp_path), "precision": "fp32"}
    arguments = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent})); sys.argv[1:] = {arguments}; "
        "runpy.run_module('l2e.benchmarks.table2', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    check(printed, ["l2e", "memel", "published_memel"])
    assert json.loads((tmp_path / "table2-cpu.json").read_text()) == printed


def test_the_time_limit_leaves_out_what_it_must(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is over after the first size: the second is named."""
    monkeypatch.setattr(table2, "measure_size", lambda config, model, device, clock: {"done": model})
    answers = iter([False, True])
    monkeypatch.setattr(table2.Clock, "over", lambda self: next(answers))
    config = Table2Config(**(TINY | {"models": ["tiny", "pythia-14m"], "output": str(tmp_path)}))
    result = table2.run(config)
    assert result["results"] == {"tiny": {"done": "tiny"}}
    assert result["left_out"] == ["14M"]
    assert json.loads((tmp_path / "table2-cpu.json").read_text())["left_out"] == ["14M"]
    assert asdict(config).items() <= result["settings"].items()


def test_where_memory_runs_out_blocks_are_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    class Full:
        def __init__(self, config: Any, model: str, device: Any, recompute: bool) -> None:
            tried.append(recompute)

        def measure(self, clock: Any) -> dict[str, bool]:
            if not tried[-1]:
                raise torch.cuda.OutOfMemoryError
            return {"recomputed": True}

    monkeypatch.setattr(table2, "Size", Full)
    clock = table2.Clock(None)
    assert table2.measure_size(Table2Config(**TINY), "tiny", CPU, clock) == {"recomputed": True}
    assert tried == [False, True]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        table2.measure_size(Table2Config(**TINY, activation_checkpointing=False), "tiny", CPU, clock)


def test_a_file_is_named_after_the_device(tmp_path: Path) -> None:
    assert write_result({"device": "cuda: NVIDIA H200"}, tmp_path, "table2").name == "table2-nvidia-h200.json"
    assert write_result({"device": "cpu: AMD EPYC, 2 threads"}, tmp_path, "table2").name == "table2-cpu.json"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": []}, "models must be a list, each once"),
        ({"models": ["gpt"]}, "unknown model 'gpt'"),
        ({"methods": ["l2e", "l3e"]}, "methods: each must be one of none, l2e, memel, published_memel, not 'l3e'"),
        ({"rounds": 0}, "rounds must be a whole number, at least 1, not 0"),
        ({"minutes": 0}, "minutes must be above 0 or null, not 0"),
        ({"rate": 1.5}, r"rate must lie in \(0, 1\), not 1.5"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table2Config(**(TINY | settings))

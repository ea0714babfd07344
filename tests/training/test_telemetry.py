"""Speed, MFU, memory, position: by hand; the profiler's trace; the dry run."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_training import MadeUpRows, build_trainer, small_model
from training_runs import pretrain

import l2e
from l2e.data import PackedRows, ShuffledRows, StepLoader
from l2e.data.document_order import DocumentRows
from l2e.errors import UserError
from l2e.inhibition import InhibitionConfig
from l2e.settings import build_settings
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.metrics import MetricsCallback, Row
from l2e.training.callbacks.profile import ProfileCallback
from l2e.training.config import LoggingConfig, TrainingConfig
from l2e.training.device_peak import peak_tflops
from l2e.training.dry_run import acting_at_once, dry_run
from l2e.training.engine import process_group
from l2e.training.profile_config import ProfileConfig
from l2e.training.ranks import HostGroup
from l2e.training.telemetry import Telemetry, memory, peak_of


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with process_group():
        yield


@pytest.fixture
def ranks() -> HostGroup:
    return HostGroup(timedelta(minutes=1))


def at(step: int, rows: Any, scale: float | None = None) -> Any:
    """A trainer after `step` updates of 8 rows."""
    engine = SimpleNamespace(device=torch.device("cpu"), loss_scale=scale)
    return SimpleNamespace(step=step, loader=StepLoader(rows, 8, 8, 0, 1), engine=engine)


def test_mfu_by_hand(ranks: HostGroup) -> None:
    # pythia-70m: 343,277,568 FLOPs a token (test_flops.py). At 1,000,000 tokens/s on 2 devices of 989.4 TFLOP/s:
    # 343.28 of 1978.8 TFLOP/s.
    ranks.size = 2
    found = Telemetry(343_277_568, 989.4, ranks)(at(3, MadeUpRows()), 1e6)
    assert found["mfu"] == pytest.approx(0.17348, rel=1e-4)


def test_without_a_known_peak_there_is_no_mfu(ranks: HostGroup) -> None:
    assert "mfu" not in Telemetry(1e9, None, ranks)(at(3, MadeUpRows()), 1e6)
    assert peak_of(torch.device("cpu"), "bf16", None) is None
    assert peak_of(torch.device("cpu"), "bf16", 2.5) == 2.5


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756.0),
        ("NVIDIA H100 NVL", "bf16", None),
        ("NVIDIA H200", "fp16", 989.4),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA A100 80GB PCIe", "bf16", 312.0),
        ("NVIDIA A100-SXM4-80GB", "fp32", None),
        ("Tesla V100-SXM2-32GB", "fp16", 125.0),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("NVIDIA L40S", "bf16", 362.05),
        ("NVIDIA L40", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
    ],
)
def test_peaks_are_known_by_whole_names(name: str, precision: str, peak: float | None) -> None:
    assert peak_tflops(name, precision) == peak


def test_where_in_the_data_the_run_is(ranks: HostGroup, tmp_path: Path) -> None:
    telemetry = Telemetry(1e9, None, ranks)
    (tmp_path / "tokens").write_bytes(bytes(2 * (16 * 20 + 1)))
    shuffled = ShuffledRows(PackedRows(tmp_path / "tokens", "uint16", 16), seed=1)
    found = telemetry(at(5, shuffled), 1.0)
    assert (found["rows"], found["epoch"]) == (40, 2.0)  # of 20 rows
    documents = DocumentRows.__new__(DocumentRows)
    documents.file = [None] * 25  # type: ignore[assignment]
    documents.order = SimpleNamespace(doc_idx=np.zeros(100), shuffle_idx=np.zeros(1000))  # type: ignore[assignment]
    found = telemetry(at(5, documents), 1.0)
    assert (found["rows"], found["epoch"]) == (40, 0.16)  # 40 of 1000 rows, which are 4 epochs of 25 documents
    assert "epoch" not in telemetry(at(5, MadeUpRows()), 1.0)


def test_the_loss_scale_is_told_where_there_is_one(ranks: HostGroup) -> None:
    assert Telemetry(1e9, None, ranks)(at(1, MadeUpRows(), 4096.0), 1.0)["loss_scale"] == 4096.0
    assert "loss_scale" not in Telemetry(1e9, None, ranks)(at(1, MadeUpRows()), 1.0)


def test_resident_memory_is_what_linux_says() -> None:
    """In a process that has just touched 300 MB more, started by one that holds 900 MB."""
    program = (
        "import datetime, torch, re; from l2e.training.engine import process_group\n"
        "from l2e.training.ranks import HostGroup; from l2e.training.telemetry import memory\n"
        "with process_group():\n"
        "    torch.ones(75_000_000)\n"
        "    found = memory(torch.device('cpu'), HostGroup(datetime.timedelta(minutes=1)))\n"
        "    peak = int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
        "print('found', found['memory_resident_gib'], peak / 2**20)"
    )
    starter = "import subprocess, sys; held = b'x' * 900_000_000; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", starter, program], capture_output=True, text=True, check=True)
    found, expected = map(float, done.stdout.split("found")[1].split())
    assert found == pytest.approx(expected, rel=0.02)
    assert 0.28 < found < 0.85


def test_the_last_row_of_each_hand_over_carries_it(ranks: HostGroup) -> None:
    rows: list[Row] = []
    trainer = build_trainer([MetricsCallback(2, [rows.extend], Telemetry(1000.0, 5.0, ranks))])
    trainer.fit()
    trainer.engine.close()
    assert [row["step"] for row in rows if "mfu" in row] == [2, 4, 6]
    assert [row["rows"] for row in rows if "rows" in row] == [8, 16, 24]
    for row in rows[1::2]:
        assert row["mfu"] == pytest.approx(row["tokens_per_second"] * 1000 / 5e12)
        assert row["memory_resident_gib"] == pytest.approx(
            memory(torch.device("cpu"), ranks)["memory_resident_gib"], 0.3
        )


def test_a_profile_holds_the_chosen_updates_and_no_others(tmp_path: Path) -> None:
    trainer = build_trainer([ProfileCallback(ProfileConfig(steps=[3, 4]), tmp_path / "profile")])
    trainer.fit()
    trainer.engine.close()
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == [
        "steps3-4.rank0.json",
        "steps3-4.rank0.txt",
    ]
    events = json.loads((tmp_path / "profile" / "steps3-4.rank0.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    # Two updates of two micro-batches; a block multiplies by four matrices with a bias, and there are four blocks.
    assert names.count("aten::addmm") == 2 * 2 * 4 * 4
    assert names.count("aten::_fused_adamw_") + names.count("aten::_fused_adamw") == 2 * 2  # two groups of weights
    assert "aten::addmm" in (tmp_path / "profile" / "steps3-4.rank0.txt").read_text()


def test_other_ranks_and_other_updates_are_not_profiled(tmp_path: Path) -> None:
    callbacks = [
        ProfileCallback(ProfileConfig(), tmp_path),
        ProfileCallback(ProfileConfig(steps=[1, 2], ranks=[1]), tmp_path),
    ]
    trainer = build_trainer(callbacks, steps=2)
    trainer.fit()
    trainer.engine.close()
    assert list(tmp_path.iterdir()) == []


def test_a_profile_that_a_signal_cuts_short_is_written(tmp_path: Path) -> None:
    trainer = build_trainer([ProfileCallback(ProfileConfig(steps=[2, 50]), tmp_path)], steps=3)
    trainer.fit()
    trainer.engine.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps2-3.rank0.json", "steps2-3.rank0.txt"]


def test_a_dry_run_makes_whole_updates_and_inhibits_in_the_last(ranks: HostGroup) -> None:
    model = small_model()
    config = InhibitionConfig(method="l2e", blocks=[1], weight=0.01, rate=0.1)
    assert (config.late_start, config.warmup) == (10, 10)
    inhibition = l2e.attach(model, **asdict(acting_at_once(config)))
    passes: list[None] = []
    model.gpt_neox.embed_in.register_forward_hook(lambda *_: passes.append(None))
    trainer = build_trainer([InhibitionCallback(inhibition, 1)], 1, model)
    found = dry_run(trainer, ranks)
    trainer.engine.close()
    assert len(passes) == 3 * 2  # three updates of two micro-batches
    assert inhibition.metrics()["block1/selected"] > 0
    assert trainer.step == 0
    assert found.tokens_per_second == pytest.approx(4 * 16 / found.seconds)
    assert found.memory["memory_resident_gib"] > 0.1


def test_a_dry_run_from_the_command_line_leaves_no_run_behind(tmp_path: Path) -> None:
    printed = pretrain(tmp_path, "dry", "training.dry_run=true", "training.micro_batch_size=2")
    assert "dry run: an update of 4 x 32 tokens took" in printed
    assert "GiB resident" in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("cls", "tree", "message"),
    [
        (LoggingConfig, {"profile": {"steps": [3]}}, "profile: steps must be"),
        (LoggingConfig, {"profile": {"steps": [3, 2]}}, "profile: steps must be"),
        (LoggingConfig, {"profile": {"steps": [0, 2]}}, "profile: steps must be"),
        (LoggingConfig, {"profile": {"steps": [1, 2], "ranks": []}}, "profile: ranks must be"),
        (LoggingConfig, {"spikes": {"window": 3}}, "spikes: window must be"),
        (LoggingConfig, {"peak_tflops": 0}, "peak_tflops must be above 0"),
        (TrainingConfig, {"non_finite": "ignore"}, "non_finite: "),
        (TrainingConfig, {"max_skips": -1}, "max_skips must be"),
        (TrainingConfig, {"timeout_minutes": 0}, "timeout_minutes must be"),
    ],
)
def test_impossible_settings_name_their_key(cls: type, tree: dict[str, Any], message: str) -> None:
    whole = {"steps": 1, "batch_size": 1, "seq_length": 2, "lr": 1.0} if cls is TrainingConfig else {}
    with pytest.raises(UserError, match=message):
        build_settings(cls, whole | tree)

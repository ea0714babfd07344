"""Bad input: one line that says what to do, exit code 2, nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from l2e.cli.entry import main

ROOT = Path(__file__).parents[2]


def settings_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """What the command says of these overrides; in this process, because it must fail before anything is loaded."""
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *overrides])
    with pytest.raises(SystemExit) as stop:
        main("pretrain", "l2e.cli.pretrain:run")
    printed = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(printed) == 1
    return printed[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=pythia-99m"], "Could not find 'model/pythia-99m' Available options in 'model': pythia-1.4b"),
        (["inhibition=memle"], "Available options in 'inhibition': dropout l2e l2e_no_threshold memel"),
        (["training.stepz=3"], "training.stepz: unknown setting (did you mean steps?); allowed here: steps"),
        (["bogus=3"], "bogus: unknown setting; allowed here: name, seed"),
        (["training.steps=abc"], 'training.steps: input should be a valid integer, not "abc"'),
        (["training.steps=2.5"], "training.steps: input should be a valid integer"),
        (["inhibition.rate=2"], "inhibition: rate must lie in (0, 1), not 2"),
        (["inhibition.weight=null"], "inhibition: weight: method l2e needs one (published: 1e-11 for 70M"),
        (["inhibition.blocks=[4]"], "blocks: [4] lie outside the model, whose blocks are 0 to 3"),
        (["inhibition.blocks=middle"], "blocks must be one of middle-2, middle-third, middle-4, top-bottom"),
        (["training.micro_batch_size=3"], "training.micro_batch_size: a batch of 8 does not divide into 3"),
        (["training.precision=fp8"], "training.precision: input should be 'fp32', 'bf16' or 'fp16', not \"fp8\""),
        (["training.precision=bf16", "deepspeed=zero0"], "bf16 needs deepspeed=zero1 or higher"),
        (["training.precision=fp16", "deepspeed=zero0"], "fp16 needs deepspeed=zero1 or higher"),
        (["training.compile=true", "deepspeed=zero3"], "training.compile: true goes with deepspeed=zero0 to zero2"),
        (
            ["deepspeed.extra={zero_optimization:{stage:2}}"],
            "deepspeed: extra.zero_optimization.stage: this is decided by deepspeed=zero0 to zero3; set that",
        ),
        (["training.seq_length=4096"], "training.seq_length: 4096 tokens are more than model.max_length, 512"),
        (["data.world.items=1"], "data.world: items must be a whole number from"),
        (["experiment=pile_sample"], "data.path: a value is required, give data.path=... on the command line"),
        (["evaluation.data_dir=/nowhere"], "/nowhere"),
        (["name=a/b"], "name: 'a/b' is no name for a folder"),
        (["offline=true", "logging.wandb.mode=online"], "online needs the network that offline=true forbids"),
        (["training.non_finite=pass"], "training.non_finite: input should be 'stop' or 'skip', not \"pass\""),
        (["training.non_finite=skip", "inhibition.scope=micro_batch"], "skip needs inhibition.scope=step"),
        (["logging.profile.steps=[450,457]"], "logging.profile.steps: the run has 456 updates, not 457"),
        (["logging.profile.steps=[3]"], "logging.profile: steps must be the first and the last update"),
        (["logging.spikes.window=5"], "logging.spikes: window must be at least 10, not 5"),
    ],
)
def test_settings(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"]
    assert message in settings_error(monkeypatch, capsys, *runs, *overrides)
    assert not list(tmp_path.iterdir())


def test_a_batch_that_the_ranks_cannot_divide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for key, value in launch.items():
        monkeypatch.setenv(key, value)
    message = settings_error(monkeypatch, capsys, f"runs_dir={tmp_path / 'runs'}")
    assert "8 sequences do not divide over 3 ranks; take a multiple of 3" in message


def test_a_folder_that_is_no_run_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "thesis.txt").write_text("all my work")
    message = settings_error(monkeypatch, capsys, f"runs_dir={tmp_path / 'runs'}", "name=mine")
    assert "exists and is no run directory; choose another name" in message
    assert [path.name for path in (tmp_path / "runs" / "mine").iterdir()] == ["thesis.txt"]


def damage_nothing(folder: Path) -> list[str]:
    return [f"data.path={folder / 'nowhere'}"]


def damage_zst(folder: Path) -> list[str]:
    packed = zstandard.ZstdCompressor().compress((folder / "train.jsonl").read_bytes())
    (folder / "train.jsonl.zst").write_bytes(packed[: len(packed) // 2])
    return ["data.train=train.jsonl.zst"]


def damage_line(folder: Path) -> list[str]:
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"txt": "b"}\n')
    return []


def damage_length(folder: Path) -> list[str]:
    (folder / "train.jsonl").write_text('{"text": "short"}\n')
    return []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(damage_nothing, "data.path: there is no folder", marks=pytest.mark.slow),
        pytest.param(damage_zst, "train.jsonl.zst: the file is truncated", marks=pytest.mark.slow),
        (damage_line, 'train.jsonl, line 41: no string under "text"'),
        pytest.param(
            damage_length,
            "tokens do not fill one row of 129; give more text or a smaller training.seq_length",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_data(damage, message: str, tmp_path: Path, real_data: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps({"text": "word " * 50}) + "\n")
    with (folder / "train.jsonl").open("a") as file:
        file.writelines(json.dumps({"text": f"word {number} " * 20}) + "\n" for number in range(39))
    overrides = [
        "data=text",
        f"data.path={folder}",
        "data.validation=null",
        f"data.tokenizer={real_data / 'tokenizer'}",
        "model=pythia-14m",
        "evaluation.enabled=false",
        f"runs_dir={tmp_path / 'runs'}",
        f"cache_dir={tmp_path / 'cache'}",
        *damage(folder),
    ]
    command = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("error")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("script", "overrides", "message"),
    [
        ("report", ["runs=[/nowhere]", "output=/tmp/x"], "/nowhere: no such run directory"),
        ("report", ["output=/tmp/x"], "runs: a value is required"),
        ("evaluate", ["path=/nowhere", "output=/tmp/x"], "there is no folder /nowhere"),
    ],
)
def test_other_scripts(
    script: str,
    overrides: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [script, *overrides])
    with pytest.raises(SystemExit) as stop:
        main(script, f"l2e.cli.{script}:run")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err

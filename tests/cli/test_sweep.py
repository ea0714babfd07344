"""Sweeps: the grid is Hydra's, members are checked before anything is submitted, every character survives."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from l2e.cli.entry import compose
from l2e.cli.evaluate_config import EvaluateConfig
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.sweep import Member, evaluation, plan, read, report
from l2e.cli.sweeps.grid import expand
from l2e.errors import UserError
from l2e.settings import build_settings

ROOT = Path(__file__).parents[2]

PROBE = """
import sys
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path=None)
def task(config):
    with open(sys.argv[0] + ".txt", "a") as file:
        print(repr(sorted(config.items(), key=str)), file=file)

task()
"""


def test_the_grid_is_the_product_last_one_fastest() -> None:
    assert expand(["inhibition=none,l2e", "seed=1,2", "training.steps=100"]) == [
        ["inhibition=none", "seed=1", "training.steps=100"],
        ["inhibition=none", "seed=2", "training.steps=100"],
        ["inhibition=l2e", "seed=1", "training.steps=100"],
        ["inhibition=l2e", "seed=2", "training.steps=100"],
    ]


def test_an_experiment_brings_its_own_grid() -> None:
    """Of configs/experiment/table1.yaml, as `-m` would take it; what is given besides it varies too, or wins."""
    own = [["inhibition=none"], ["inhibition=dropout"], ["inhibition=l2e"]]
    given = ["experiment=table1", "model=pythia-70m", "data.path=x"]
    assert expand(given) == [[*each, *given] for each in own]
    assert len(expand([*given, "seed=1,2"])) == 6
    assert expand([*given, "inhibition=memel"]) == [["inhibition=memel", *given]]


def test_the_grid_is_what_multirun_runs(tmp_path: Path) -> None:
    """Against Hydra itself: each member alone gives the config that --multirun gives, in the same order."""
    overrides = ["+a=1,2", "+b='x,y',[1,2],{k: 1}", "+c=range(5,7)", "+d=choice(true)", "+e=plain text"]
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"]

    def run(*arguments: str) -> list[str]:
        output = Path(f"{probe}.txt")
        output.unlink(missing_ok=True)
        subprocess.run([sys.executable, str(probe), *arguments, *quiet], cwd=tmp_path, check=True, capture_output=True)
        return output.read_text().splitlines()

    theirs = run("--multirun", *overrides)
    members = expand(overrides)  # pretrain.yaml's own experiment varies nothing
    assert len(theirs) == len(members) == 2 * 3 * 2
    for place in (0, 5):
        assert run(*members[place]) == [theirs[place]]


def test_a_plan_is_written_and_read_again(tmp_path: Path) -> None:
    overrides = [f"runs_dir={tmp_path}", "inhibition=none,l2e", "seed=1,2", "training.steps=100"]
    file, members = plan("grid", overrides)
    assert file == tmp_path / "grid" / "members.json"
    assert [member.name for member in members] == [
        "tiny-builtin-none-seed1",
        "tiny-builtin-none-seed2",
        "tiny-builtin-l2e-seed1",
        "tiny-builtin-l2e-seed2",
    ]
    assert read(str(file)) == [member.record for member in members]
    assert {member.steps for member in read(str(file))} == {100}
    plan("grid", overrides)  # the same again: continues
    with pytest.raises(UserError, match="another sweep"):
        plan("grid", [*overrides, "training.lr=1e-3"])


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    plan("grid", [f"runs_dir={tmp_path}", "seed=1,2"], dry_run=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.lr=1e-3,1e-2"], r"2 members would share .*'name=grid-\$\{training.lr\}'"),
        (["inhibition=none,l2e", "name=x"], r"2 members would share .*\$\{inhibition.method\}"),
        (["seed=1,2", "seed=3"], "seed is given more than once"),
        (["seed=1,2", "training.stepz=3"], "seed=1 training.stepz=3: training.stepz: unknown setting"),
        (["inhibition=none,l3e"], "inhibition=l3e.*l3e"),
        (["seed=1,2", "runs_dir=a,b"], "runs_dir: the members of a sweep share one"),
        (["seed=1,2", "training.lr=???"], "training.lr: a value is required"),
        (["training.lr=interval(0,1)"], "sweep type"),
        (["seed=[1"], "mismatched input|missing|no viable"),
    ],
)
def test_a_member_that_cannot_run_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan("grid", [f"runs_dir={tmp_path}", *overrides] if "runs_dir" not in str(overrides) else overrides)
    assert not list(tmp_path.iterdir())


def test_a_sweep_takes_no_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "config.yaml").write_text("name: grid")
    with pytest.raises(UserError, match="is a run directory"):
        plan("grid", [f"runs_dir={tmp_path}", "seed=1,2"])


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "slurm" / "README.md").read_text(), flags=re.S)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("words", readme_commands(), ids=lambda words: words[-1])
def test_the_commands_of_the_cluster_readme_compose(words: list[str]) -> None:
    script = next(place for place, word in enumerate(words) if word.startswith("slurm/"))
    given = [word for word in words[script + 1 :] if "=" in word]
    match words[script]:
        case "slurm/pretrain.sbatch":
            build_settings(PretrainConfig, compose("pretrain", given))
        case "slurm/evaluate.sbatch":
            build_settings(EvaluateConfig, compose("evaluate", given))
        case "slurm/sweep.sh":
            assert len(plan("a", given, dry_run=True)[1]) == 6
        case other:
            pytest.fail(other)


def command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "l2e.cli.sweep", *arguments], cwd=ROOT, capture_output=True, check=False
    )


def test_members_leave_as_bytes_with_a_zero_after_each(tmp_path: Path) -> None:
    odd = ["logging.wandb.project='two  words \"x\" $HOME * `a`'", "name='a\nb'"]
    file = tmp_path / "members.json"
    file.write_text(json.dumps([{"run": "runs/it's", "steps": 1, "overrides": odd}]))
    done = command("train", str(file), "0")
    assert done.stdout.split(b"\0") == [*(each.encode() for each in odd), b"evaluation.separate=true", b""]
    assert command("evaluate", str(file), "0").stdout == b"path='runs/it\\'s'\0"
    done = command("train", str(file), "1")
    assert done.returncode == 2
    assert b"there is no member 1" in done.stderr


@pytest.mark.parametrize("folder", ["runs/a", "runs/it's", "runs/a=b,c", "runs/back\\slash", "runs/\\'\\\\'s end\\"])
def test_the_run_directory_is_quoted_for_hydra(folder: str) -> None:
    """Hydra's own parser gives the folder back."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = evaluation(Member(folder, 1, []))
    assert OverridesParser.create().parse_override(override).value() == folder


@pytest.mark.parametrize("arguments", [[], ["train", "file"], ["report"], ["report", "/nowhere/members.json"]])
def test_wrong_use_is_bad_input(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")


def test_a_report_names_what_is_missing(tmp_path: Path) -> None:
    names = ["done", "unevaluated", "stopped", "absent"]
    for name, folders in zip(names, (["hf/step5", "eval/step5"], ["hf/step5"], []), strict=False):
        run = tmp_path / name
        run.mkdir()
        (run / "config.yaml").write_text(f"name: {name}\ninhibition: {{method: none}}\n")
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
        for folder in folders:
            (run / folder).mkdir(parents=True)
            (run / folder / "summary.json").write_text("[]")
    file = tmp_path / "grid" / "members.json"
    file.parent.mkdir()
    file.write_text(json.dumps([{"run": str(tmp_path / name), "steps": 5, "overrides": []} for name in names]))
    assert report(str(file)) == tmp_path / "grid" / "report.html"
    text = (tmp_path / "grid" / "report.md").read_text()
    assert "- absent: failed before training began; it is not in this report" in text
    assert "- stopped: not trained to the end (5 updates)" in text
    assert "- unevaluated: not evaluated after 5 updates" in text
    assert "- done: not" not in text
    assert "- done: failed" not in text


def test_a_sweep_of_which_nothing_began_is_told(tmp_path: Path) -> None:
    file = tmp_path / "members.json"
    file.write_text(json.dumps([{"run": str(tmp_path / "a"), "steps": 5, "overrides": []}]))
    with pytest.raises(UserError, match="no member of the sweep"):
        report(str(file))

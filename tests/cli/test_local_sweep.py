"""--multirun: what is said before, which members run, what becomes of the rest when one fails or a signal comes.

The members are a stand-in script here, told by the environment how each shall end; tests/integration/test_sweep_runs.py
does the same with real runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from l2e.cli.sweeps import cost as costs
from l2e.cli.sweeps import local
from l2e.cli.sweeps.cost import cost
from l2e.cli.sweeps.grid import expand, plan_each, settings_of
from l2e.cli.sweeps.state import state_of
from l2e.cli.sweeps.statement import cost_lines, hours
from l2e.cli.sweeps.study import baseline_line, baselines, table_of
from l2e.errors import UserError

ROOT = Path(__file__).parents[2]

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
name = "/".join(sys.argv[1:])
print("member", name, os.environ.get("MASTER_PORT", ""), flush=True)
with open("started.txt", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
end = next((end for part, end in json.loads(os.environ["ENDS"]).items() if part in name), 0)
if end == "told":
    Path(os.environ["L2E_REASON"]).write_text("no such\\nthing")
    sys.exit(2)
if end == "signal":
    def stop(*_):
        Path("stopped").touch()
        sys.exit(85)
    signal.signal(signal.SIGTERM, stop)
    Path("waiting").touch()
    time.sleep(300)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(end)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stand-in, which --multirun takes for scripts/pretrain.py."""
    (tmp_path / "member.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "member.py")])
    monkeypatch.setenv("ENDS", "{}")
    return tmp_path


def started(place: Path) -> list[str]:
    """The seeds of the members that were started."""
    lines = (place / "started.txt").read_text().splitlines() if (place / "started.txt").exists() else []
    return [next(each for each in json.loads(line) if each.startswith("seed=")) for line in lines]


def finished(*overrides: str) -> Path:
    """The run directory of a finished run without evaluation, as far as a sweep looks at it."""
    config = settings_of(overrides)
    folder = Path(config.runs_dir) / config.name
    (folder / "hf" / f"step{config.training.steps}").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
    return folder


def test_the_others_run_when_members_fail(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENDS", json.dumps({"seed=2": "told", "seed=3": "killed", "seed=4": 1}))
    (place / "runs" / "tiny-builtin-l2e-seed5").mkdir(parents=True)
    (place / "runs" / "tiny-builtin-l2e-seed5" / "notes.txt").write_text("mine")
    assert local.run(["seed=1,2,3,4,5,6"]) == 1
    assert started(place) == ["seed=1", "seed=2", "seed=3", "seed=4", "seed=6"]
    printed = capfd.readouterr().err
    before, after = printed.split("[0] tiny-builtin-l2e-seed1")
    assert "Sweep of 6 runs, 0 done already" in before
    assert [line.split()[1:5] for line in before.splitlines() if "to run" in line] == [
        [f"tiny-builtin-l2e-seed{seed}", "l2e", "tiny", str(seed)] for seed in (1, 2, 3, 4, 6)
    ]
    assert "cannot run: runs/tiny-builtin-l2e-seed5 exists and is no run directory" in before
    end = after[after.index("seed  state") :].splitlines()
    states = {line.split()[4]: " ".join(line.split()[5:]) for line in end[1:7]}
    assert states["1"] == states["6"] == "done"
    assert states["2"] == "failed: no such thing"
    assert states["3"] == "failed: ended by SIGKILL (by hand, or for want of memory)"
    assert states["4"] == "failed: exit code 1, see what it printed"
    assert states["5"].startswith("failed: runs/tiny-builtin-l2e-seed5 exists and is no run")
    assert "4 of 6 members failed" in after
    assert f"  python {place}/member.py seed=3" in after


def test_what_is_done_is_not_started_again(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fixed = ["training.steps=7", "evaluation.enabled=false"]
    finished(*fixed, "seed=1")
    assert local.run([*fixed, "seed=1,2"]) == 0
    assert started(place) == ["seed=2"]
    assert "2 runs, 1 done already" in capfd.readouterr().err


def test_a_done_member_is_evaluated_and_of_these_settings(place: Path) -> None:
    run = finished("training.steps=7", "evaluation.initial=false")

    def state(*overrides: str) -> str:
        (member,) = plan_each([["training.steps=7", "evaluation.initial=false", *overrides]])
        return state_of(member).text

    assert state() == "trained, not evaluated"
    results = run / "eval" / "step7"
    (results / "0-shot").mkdir(parents=True)
    (results / "0-shot" / "results.json").write_text('{"config": {"limit": null}}')
    numbers = dict.fromkeys(("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "chance"), 0.2)
    entries = [{"task": f"world_{task}", "num_fewshot": 0, "n": 5, **numbers} for task in ("arc", "piqa", "sciq")]
    (results / "summary.json").write_text("[{}]")
    assert state() == "trained, not evaluated"  # and no traceback
    (results / "summary.json").write_text(json.dumps(entries))
    assert state() == "done"
    assert state("evaluation.num_fewshot=5") == "trained, not evaluated"
    assert state("evaluation.separate=true", "evaluation.num_fewshot=5") == "done"
    assert state("training.lr=1e-3").startswith("cannot run: ")
    (run / "hf" / "step7").rmdir()
    (run / "checkpoints" / "step4").mkdir(parents=True)
    (member,) = plan_each([["training.steps=7", "evaluation.initial=false"]])
    assert (state(), state_of(member).updates) == ("goes on after 4 of 7", 3)


def test_a_mistake_in_every_member_starts_nothing(place: Path) -> None:
    with pytest.raises(UserError, match=r"^training.stepz: unknown setting"):
        local.run(["training.stepz=3", "seed=1,2"])
    with pytest.raises(UserError, match="2 members would share the run directory"):
        local.run(["training.lr=1e-3,1e-2"])
    assert started(place) == []


def test_of_a_setting_given_twice_the_last_counts(place: Path) -> None:
    assert local.run(["seed=1", "seed=2,3"]) == 0
    assert started(place) == ["seed=2", "seed=3"]


def test_a_member_that_stopped_stops_the_sweep(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDS", json.dumps({"seed=1": 85}))
    assert local.run(["seed=1,2"]) == 85
    assert started(place) == ["seed=1"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_sweep_reaches_the_member(place: Path, how: signal.Signals) -> None:
    """SIGKILL cannot be handed on; the member is told that its parent is gone (on Linux)."""
    if how == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("needs prctl")
    code = f"import sys; sys.argv = [{str(place / 'member.py')!r}]; from l2e.cli.sweeps import local; "
    code += "sys.exit(local.run(['seed=1,2']))"
    environment = os.environ | {"ENDS": json.dumps({"seed": "signal"}), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=place, env=environment)
    wait_for(lambda: (place / "waiting").exists())
    (child,) = children_of(process.pid)
    try:
        process.send_signal(how)
        assert process.wait(timeout=60) == (85 if how == signal.SIGTERM else -how)
        wait_for(lambda: (place / "stopped").exists() and not alive(child), 60)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    assert started(place) == ["seed=1"]


def wait_for(condition, seconds: int = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_members_under_torchrun_meet_at_a_port_each(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The agent's store keeps the addresses of the member before; other launchers have no agent."""
    for key, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "65535"}.items():
        monkeypatch.setenv(key, value)
    assert local.run(["seed=1,2"]) == 0
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert local.run(["seed=1,2"]) == 0
    printed = capfd.readouterr()
    ports = [line.split()[-1] for line in printed.out.splitlines()]
    assert ports == ["65535", "65535", "1024", "1025"]
    assert "Sweep of" not in printed.err  # rank 0 says it


# What it costs


def test_tokens_flops_and_time_by_hand(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny, two members of 7 updates of 8 x 128 tokens; 3 x (layers x (24 h^2 + 4 s h) + 2 h v) FLOPs a token."""
    fixed = ["training.steps=7", "evaluation.enabled=false"]
    members = plan_each(expand([*fixed, "seed=1,2,3"]))
    config = members[0].config
    assert config is not None
    layers, hidden = 4, 128
    flops = 3 * (layers * (24 * hidden**2 + 4 * 128 * hidden) + 2 * hidden * config.vocab_size)
    monkeypatch.setattr(costs, "device_name", lambda: "CPU (abc)")
    found = cost(members, costs.speeds_here(1))
    assert (found.members, found.updates, found.tokens, found.timed) == (3, 21, 21 * 1024, 0)
    assert found.flops == pytest.approx(21 * 1024 * flops)
    assert "Time: not known" in cost_lines(found, 1)

    run = finished(*fixed, "seed=1")
    (run / "environment.json").write_text('{"device": "CPU (abc)", "ranks": 1}')
    rows = [{"step": step, "tokens_per_second": speed} for step, speed in enumerate((1.0, 512.0, 600.0))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"tokens_per_second": 9')
    found = cost(members, costs.speeds_here(1))
    assert (found.members, found.tokens, found.timed) == (2, 14 * 1024, 2)
    assert found.device_seconds == pytest.approx(14 * 1024 / 512)
    assert "Time: about 28 s, training alone; CPU (abc), as measured in runs/tiny-builtin-l2e-seed1" in cost_lines(
        found, 1
    )
    for other in (["training.batch_size=16"], ["training.seq_length=64"], ["model=pythia-14m"]):
        elsewhere = plan_each(expand([*fixed, *other, "name=x${seed}", "seed=2,3"]))
        assert cost(elsewhere, costs.speeds_here(1)).timed == 0, other
    assert cost(members, costs.speeds_here(2)).timed == 0  # two processes were not measured
    monkeypatch.setattr(costs, "device_name", lambda: "CPU (other)")
    assert cost(members, costs.speeds_here(1)).timed == 0


def test_the_same_method_tells_more_than_another(place: Path) -> None:
    for method, speed in (("l2e", 100.0), ("none", 300.0)):
        run = finished(f"inhibition={method}")
        (run / "environment.json").write_text('{"device": "CPU (abc)", "ranks": 2}')
        (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "tokens_per_second": speed}) + "\n")
    for method, expected in (("none", 150.0), ("l2e", 50.0), ("memel", 50.0)):
        (member,) = plan_each([[f"inhibition={method}", "seed=9"]])
        assert member.config is not None
        speed = costs.measured(member.config, lambda device: True)
        assert speed is not None
        assert speed.tokens_per_second == expected


def test_on_a_cluster_the_planner_tells_the_hours_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """410M, 14,300 updates of 1024 x 2048 tokens at 2,724,986,880 FLOPs each (docs/running.md)."""
    grid = ["experiment=table1", "model=pythia-410m", "data.path=x", "runs_dir=/nowhere"]
    members = plan_each(expand(grid))
    monkeypatch.delenv("L2E_GPU", raising=False)
    found = cost(members, costs.speeds_on_a_cluster())
    tokens = 3 * 14_300 * 1024 * 2048
    assert (found.members, found.tokens) == (3, tokens)
    assert found.flops == pytest.approx(tokens * 2_724_986_880)
    expected = tokens * 2_724_986_880 / (0.4 * 989.4e12) / 3600
    assert f"{expected:,.2f} device-hours, training alone; H100 at 40% of its peak (assumed)" in cost_lines(found, None)
    monkeypatch.setenv("L2E_GPU", "A100-80")
    assert cost(members, costs.speeds_on_a_cluster()).device_seconds / 3600 == pytest.approx(expected * 989.4 / 312)
    monkeypatch.setenv("L2E_DEVICE", "cpu")
    assert cost(members, costs.speeds_on_a_cluster()).timed == 0
    monkeypatch.setenv("L2E_GPU", "B9000")
    with pytest.raises(UserError, match="L2E_GPU must be one of H200, H100"):
        costs.speeds_on_a_cluster()


def test_on_a_gpu_of_known_peak_the_planner_tells_the_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """70M, 343,277,568 FLOPs a token (docs/running.md), 8 processes; the driver's own name of the device."""
    (place / "nvidia-smi").write_text("#!/bin/sh\nprintf 'NVIDIA H100 80GB HBM3\\nNVIDIA H100 80GB HBM3\\n'\n")
    (place / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setattr(costs.torch.cuda, "is_available", lambda: True)
    costs.device_name.cache_clear()
    try:
        members = plan_each(expand(["experiment=table1", "model=pythia-70m", "data.path=x", "inhibition=l2e"]))
        found = cost(members, costs.speeds_here(8))
        seconds = 14_300 * 1024 * 2048 * 343_277_568 / (0.4 * 989.4e12)
        assert found.device_seconds == pytest.approx(seconds)
        assert (
            f"about {seconds / 8 / 60:.0f} min, training alone; NVIDIA H100 80GB HBM3 at 40% of its peak"
            in cost_lines(found, 8)
        )
    finally:
        costs.device_name.cache_clear()


def test_the_assumed_share_is_the_planner_s() -> None:
    assert yaml.safe_load((ROOT / "configs" / "plan.yaml").read_text())["mfu"] == costs.ASSUMED_MFU


@pytest.mark.parametrize(
    ("seconds", "text"), [(28, "28 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h"), (200_000, "2.3 days")]
)
def test_a_duration_for_a_reader(seconds: float, text: str) -> None:
    assert hours(seconds) == text


# Tables and their baselines


def test_the_baseline_of_a_table_is_table_1_s(place: Path) -> None:
    fixed = ["model=pythia-70m", "data.path=x", "seed=1,2"]
    for table in (4, 8):
        members = expand([f"experiment=table{table}", *fixed])
        assert table_of(members) == table
        wanted = baselines(members)
        assert [run.name for run in wanted] == [f"pythia-70m-none-0.02-middle-2-seed{seed}" for seed in (1, 2)]
    (own, *_) = expand(["experiment=table1", *fixed])
    assert settings_of(own).name == wanted[0].name
    line = baseline_line(members)
    assert "not there yet: pythia-70m-none-0.02-middle-2-seed1, pythia-70m-none-0.02-middle-2-seed2" in line
    finished("experiment=table1", "model=pythia-70m", "data.path=x", "inhibition=none")
    assert ": pythia-70m-none-0.02-middle-2-seed1; not there yet: pythia-70m-none-0.02-middle-2-seed2" in baseline_line(
        members
    )
    assert baseline_line(expand(["experiment=table1", *fixed])) == ""
    assert table_of([["experiment=table1"], ["experiment=table4"]]) is None
    assert table_of([["experiment=pile_sample"], ["experiment=pile_sample"]]) is None
    assert table_of([["seed=1"]]) is None


def test_the_command_line_takes_what_hydra_takes(place: Path) -> None:
    """--help with -m stays Hydra's; a sweep of other YAML files is refused."""

    def pretrain(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    shown = pretrain("-m", "--help")
    assert (shown.returncode, "runs_dir: runs" in shown.stdout) == (0, True), shown.stderr
    refused = pretrain("--multirun", "seed=1,2", "--config-dir", str(place))
    assert refused.returncode == 2
    assert "leave out --config-path" in refused.stderr

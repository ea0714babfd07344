"""The overhead benchmark: its arithmetic, its JSON line, its refusals. No timing is asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from l2e.benchmarks.memory import peak_bytes
from l2e.benchmarks.overhead import Bench
from l2e.benchmarks.overhead_config import OverheadConfig
from l2e.benchmarks.pairing import median, paired_ratios, quartiles, round_order
from l2e.cli.entry import main

ROOT = Path(__file__).parents[2]
TINY = {"model": "tiny", "seq_length": 16, "batch_size": 2, "rounds": 2, "steps": 1, "device": "cpu"}
RESULT = {
    "step_ratio",
    "step_ratio_spread",
    "step_ms",
    "cpu_ratio",
    "memory_ratio",
    "state_values_per_neuron",
    "selected",
}


def last_line(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(printed: dict, methods: list[str]) -> None:
    assert {"benchmark", "device", "versions", "results", "settings", "memory_method"} <= set(printed)
    assert printed["benchmark"] == "overhead"
    assert printed["device"].startswith("cpu")
    assert printed["versions"]["torch"] == torch.__version__
    assert list(printed["results"]) == methods
    for method, result in printed["results"].items():
        assert set(result) >= RESULT
        low, high = result["step_ratio_spread"]
        assert 0 < low <= result["step_ratio"] <= high
        assert result["step_ms"] > 0
        assert result["cpu_ratio"] > 0
        assert result["memory_ratio"] == 1 if method == "none" else result["memory_ratio"] > 0
    assert printed["results"]["l2e"]["selected"] > 0


@pytest.mark.slow
def test_the_script() -> None:
    overrides = [f"benchmark.{key}={value}" for key, value in TINY.items()]
    command = [sys.executable, "scripts/benchmark.py", "benchmark=overhead", "benchmark.methods=[none,l2e]"]
    printed = last_line([*command, *overrides])
    check(printed, ["none", "l2e"])
    # The mean and the variance of each neuron, and a few scalars per tap.
    assert 2 < printed["results"]["l2e"]["state_values_per_neuron"] < 2.1
    assert printed["results"]["none"]["state_values_per_neuron"] == 0


def test_a_machine_with_torch_and_transformers_alone() -> None:
    absent = ["hydra", "omegaconf", "pydantic", "deepspeed", "datasets", "lm_eval", "wandb", "accelerate"]
    arguments = [f"{key}={value}" for key, value in TINY.items()] + ['methods=["l2e"]']
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent})); sys.argv[1:] = {arguments}; "
        "runpy.run_module('l2e.benchmarks.overhead', run_name='__main__', alter_sys=True)"
    )
    check(last_line([sys.executable, "-c", program]), ["l2e"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "You must specify 'benchmark', e.g, benchmark=<OPTION> Available options: activations data"),
        (
            ["benchmark=overhed"],
            "Could not find 'benchmark/overhed' Available options in 'benchmark': activations data",
        ),
        (["benchmark=overhead", "benchmark.methods=[none,l3e]"], "methods: each must be one of none, "),
        (["benchmark=overhead", "benchmark.methods=[l2e,l2e]"], "methods must be a list such as"),
        (["benchmark=overhead", "benchmark.roundz=3"], "benchmark.roundz: unknown setting (did you mean rounds?)"),
        (["benchmark=overhead", "benchmark.rounds=0"], "benchmark: rounds must be a whole number, at least 1, not 0"),
        (["benchmark=overhead", "benchmark.model=gpt"], "unknown model 'gpt'; known are tiny, pythia-14m"),
        (["benchmark=overhead", "benchmark.weight=0"], "weight must be above 0"),
    ],
)
def test_bad_settings(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *overrides])
    with pytest.raises(SystemExit) as stop:
        main("benchmark", "l2e.cli.benchmark:run")
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert len(printed.err.strip().splitlines()) == 1
    assert message in printed.err
    assert not printed.out


def test_each_method_stands_between_two_of_the_baseline() -> None:
    assert round_order(["l2e", "memel"], 0) == ["none", "l2e", "none", "memel", "none"]
    assert round_order(["l2e", "memel"], 3) == ["none", "memel", "none", "l2e", "none"]
    assert round_order(["none", "l2e"], 0) == ["none", "none", "none", "l2e", "none"]


def test_a_ratio_is_to_the_mean_of_the_neighbours() -> None:
    order = ["none", "l2e", "none", "memel", "none"]
    assert paired_ratios(order, [1.0, 3.0, 2.0, 3.0, 4.0]) == [("l2e", 3.0, 2.0), ("memel", 3.0, 1.0)]


def test_a_steady_drift_cancels() -> None:
    order = round_order(["none", "l2e", "memel"], 0)
    cost = {"none": 1.0, "l2e": 1.25, "memel": 2.0}
    times = [cost[method] * (10 + index) for index, method in enumerate(order)]
    assert {method: ratio for method, _, ratio in paired_ratios(order, times)} == pytest.approx(cost)


def test_median_and_quartiles() -> None:
    assert median([5.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 100.0]) == 3.0
    assert quartiles([5.0, 1.0, 2.0, 3.0, 4.0]) == [2.0, 4.0]
    assert quartiles([7.0]) == [7.0, 7.0]


def test_peak_memory_counts_what_is_alive_together() -> None:
    resident = torch.zeros(1000)

    def work(kept: torch.Tensor) -> None:
        for _ in range(3):
            (kept + 1).sum()  # 8 kB and a scalar at a time, freed each time

    kept, peak = peak_bytes(torch.device("cpu"), [resident], lambda: torch.zeros(2000), work)
    assert kept.numel() == 2000
    assert 4000 + 8000 + 8000 <= peak < 4000 + 8000 + 8000 + 1000


def test_a_method_that_selects_nothing_is_refused() -> None:
    bench = Bench(OverheadConfig(**TINY), torch.device("cpu"))
    fresh = bench.attach("l2e")  # its threshold is still warming up
    bench.work.steps(fresh, 1)
    with pytest.raises(RuntimeError, match="l2e selected nothing while it was measured"):
        bench.check_selection("l2e", fresh)

"""The evaluation benchmark: both ways find the same, what is counted is counted, and its last line is JSON."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from l2e.benchmarks import evaluation, evaluation_ways, trajectory
from l2e.benchmarks.evaluation_config import EvaluationBenchmarkConfig
from l2e.cli.benchmark_config import BenchmarkConfig
from l2e.cli.entry import compose
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, Evaluator
from l2e.settings import build_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> evaluation_ways.Case:
    asked = EvaluationConfig(tasks=["world_arc", "world_piqa"], num_fewshot=[0, 1], limit=6)
    config = EvaluationBenchmarkConfig(evaluation=asked, items=16)
    return evaluation.prepare(config, tmp_path_factory.mktemp("case"), torch.device("cpu"))


def test_both_ways_find_the_same_in_one_process(case: evaluation_ways.Case) -> None:
    assert evaluation_ways.theirs_inside(case) == evaluation_ways.ours_inside(case) == case.expected
    assert case.questions == 2 * 2 * 6
    assert set(case.expected) == {(task, shots) for task in ("world_arc", "world_piqa") for shots in (0, 1)}


def test_a_way_that_finds_something_else_is_not_timed(
    case: evaluation_ways.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "theirs_inside", lambda case: {**case.expected, ("world_arc", 0): 2.0})
    with pytest.raises(RuntimeError, match="not the same accuracies"):
        evaluation.measure_inside(case, 1)


def test_ratios_are_our_speed_over_theirs(case: evaluation_ways.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that works three times as long, on a clock that only we move, has a ratio of 3."""
    now = [0.0]

    def taking(seconds: float) -> evaluation_ways.Way:
        def way(case: evaluation_ways.Case) -> evaluation_ways.Accuracies:
            now[0] += seconds
            return case.expected

        return way

    monkeypatch.setattr(evaluation, "ours_inside", taking(2.0))
    monkeypatch.setattr(evaluation, "theirs_inside", taking(6.0))
    monkeypatch.setattr(evaluation, "timed", lambda action, clock=None: lambda: _spent(action, now))
    found = evaluation.measure_inside(case, 2)
    assert found["without_start"] == pytest.approx(3.0)
    assert found["inside"]["lm_eval"]["cpu_ratio"] == pytest.approx(3.0)
    assert found["inside"]["ours"]["per_second"] == pytest.approx(case.questions / 2)


def _spent(action, now) -> float:
    start = now[0]
    action()
    return now[0] - start


def test_ten_checkpoints_load_and_build_once(case: evaluation_ways.Case) -> None:
    found = trajectory.measure_trajectory(case, 10)
    counted = [found[key] for key in ("checkpoints", "tasks", "items_loaded", "requests_built")]
    assert counted == [10, 4, 4, 4]
    logs = [
        json.loads((case.folder / f"trajectory/step{step}/0-shot/samples_world_arc.jsonl").read_text().splitlines()[0])
        for step in range(10)
    ]
    assert len({tuple(line["loglikelihoods"]) for line in logs}) == 10  # ten models, not one ten times
    assert all(found[key] > 0 for key in ("prepare_seconds", "first_seconds", "later_seconds"))
    assert found["total_seconds"] >= found["prepare_seconds"] + found["first_seconds"]


def test_building_again_is_found(case: evaluation_ways.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Evaluator.score

    def building_again(self: Evaluator, *args):
        with Evaluator(self.tokenizer, self.config) as another:
            return original(another, *args)

    monkeypatch.setattr(Evaluator, "score", building_again)
    with pytest.raises(RuntimeError, match="loaded or built more than once"):
        trajectory.measure_trajectory(case, 2)


def test_processor_time_is_that_of_ended_children() -> None:
    before = evaluation._children_time()
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert 0.4 < evaluation._children_time() - before < 10
    before = evaluation._children_time()
    time.sleep(0.05)
    assert evaluation._children_time() == before


def test_a_command_that_fails_says_so(case: evaluation_ways.Case) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with pytest.raises(RuntimeError, match="ended with 1: no such thing"):
        evaluation_ways._call(case, words, case.folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["benchmark.rounds=0"], "^benchmark: rounds must be at least 1"),
        (["benchmark.checkpoints=1"], "checkpoints must be at least 2"),
        (
            ["benchmark.evaluation.tasks=[piqa]"],
            r"^benchmark: evaluation\.tasks: other tasks than world_arc, .*data_dir",
        ),
        (["benchmark.evaluation.inhibited=true"], r"evaluation\.inhibited: an untrained model has no inhibition"),
        (["benchmark.evaluation.limit=0"], r"^benchmark\.evaluation: limit must be at least 1"),
        (["benchmark.evaluation.limit=x"], r"^benchmark\.evaluation\.limit: "),
        (["benchmark.model=gpt"], "unknown model 'gpt'"),
        (["benchmark.item=3"], "benchmark.item: unknown setting"),
    ],
)
def test_wrong_settings_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_settings(BenchmarkConfig, compose("benchmark", ["benchmark=evaluation", *overrides]))


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    config = EvaluationBenchmarkConfig(tokenizer=str(tmp_path), items=16)
    with pytest.raises(UserError, match=r"benchmark.tokenizer: .* holds no tokenizer.json"):
        evaluation.prepare(config, tmp_path / "folder", torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_benchmark() -> None:
    command = [sys.executable, "scripts/benchmark.py", "benchmark=evaluation", "benchmark.rounds=1"]
    command += ["benchmark.items=16", "benchmark.evaluation.limit=4", "benchmark.checkpoints=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["benchmark"] == "evaluation"
    assert set(found) == {"benchmark", "device", "versions", "results", "settings"}
    assert {"vs_lm_eval_cli", "without_start", "trajectory"} <= set(found["results"])
    assert found["results"]["vs_lm_eval_cli"] > 0
    assert found["settings"]["questions"] == 12

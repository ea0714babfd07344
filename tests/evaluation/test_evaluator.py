"""One Evaluator for many models, several ranks, and answers that are kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from evaluation_items import make_model

from l2e.evaluation import EvaluationConfig, Evaluator, evaluate
from l2e.evaluation.harness import LanguageModel, Questions

WORLD = ["world_arc", "world_piqa", "world_sciq"]


def settings(data_dir, **changes):
    return EvaluationConfig(**{"tasks": WORLD, "data_dir": str(data_dir), "num_fewshot": [0, 2], **changes})


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def calls(monkeypatch):
    """(task, shots) of everything that a model was asked."""
    seen, original = [], Questions.ask

    def ask(self, model):
        seen.append((self.name, self.shots))
        return original(self, model)

    monkeypatch.setattr(Questions, "ask", ask)
    return seen


def other_model(tokenizer):
    torch.manual_seed(9)
    model = make_model(len(tokenizer))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def test_many_models_get_what_each_gets_alone_and_requests_are_built_once(
    model, tokenizer, data_dir, tmp_path, monkeypatch
):
    built = []
    from lm_eval.api.task import Task

    original = Task.build_all_requests
    monkeypatch.setattr(
        Task, "build_all_requests", lambda self, **k: built.append(self.config.task) or original(self, **k)
    )
    models = [model, other_model(tokenizer), model]
    with Evaluator(tokenizer, settings(data_dir)) as evaluator:
        together = [evaluator.score(one, tmp_path / f"together{place}") for place, one in enumerate(models)]
    assert sorted(built) == sorted(WORLD * 2)
    assert together[0] == together[2] != together[1]
    for place, one in enumerate(models):
        assert evaluate(one, tokenizer, settings(data_dir), tmp_path / f"alone{place}") == together[place]
        assert files(tmp_path / f"alone{place}") == files(tmp_path / f"together{place}")


def test_answers_are_kept_and_give_the_same_files(model, tokenizer, data_dir, tmp_path, calls):
    fresh = evaluate(model, tokenizer, settings(data_dir), tmp_path / "fresh")
    calls.clear()
    kept = [
        evaluate(model, tokenizer, settings(data_dir), tmp_path / name, cache_dir=tmp_path / "cache")
        for name in ("first", "again")
    ]
    assert len(calls) == 6
    assert kept == [fresh, fresh]
    assert files(tmp_path / "again") == files(tmp_path / "first") == files(tmp_path / "fresh")


def test_an_interrupted_evaluation_goes_on(model, tokenizer, data_dir, tmp_path, calls, monkeypatch):
    cache, forward = tmp_path / "cache", LanguageModel._loglikelihood_tokens

    def fail(self, *args, **kwargs):
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LanguageModel, "_loglikelihood_tokens", fail)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tokenizer, settings(data_dir), tmp_path / "out", cache_dir=cache)
    assert not (tmp_path / "out" / "summary.json").exists()
    monkeypatch.setattr(LanguageModel, "_loglikelihood_tokens", forward)
    done, calls[:] = calls[:3], []
    results = evaluate(model, tokenizer, settings(data_dir), tmp_path / "out", cache_dir=cache)
    assert done == [(task, 0) for task in WORLD]
    assert calls == [(task, 2) for task in WORLD]
    assert results == evaluate(model, tokenizer, settings(data_dir), tmp_path / "other")


def change_weight(model, tokenizer, data_dir):
    with torch.no_grad():
        model.lm_head.weight[3, 4] += 1e-3


def change_activation(model, tokenizer, data_dir):
    model.config.hidden_act = "gelu_new"


def change_precision(model, tokenizer, data_dir):
    model.to(torch.bfloat16)


def change_item(model, tokenizer, data_dir):
    path = Path(data_dir) / "world_arc" / "test.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    item = json.loads(lines[0])
    item["answerKey"] = next(label for label in item["choices"]["label"] if label != item["answerKey"])
    path.write_text("\n".join([json.dumps(item), *lines[1:]]) + "\n", encoding="utf-8")


@pytest.mark.parametrize("change", [change_weight, change_activation, change_precision, change_item])
def test_what_decides_the_answers_is_asked_again(change, model, tokenizer, data_dir, tmp_path, calls):
    one = settings(data_dir, tasks=["world_arc"], num_fewshot=0)
    evaluate(model, tokenizer, one, tmp_path / "out", cache_dir=tmp_path / "cache")
    change(model, tokenizer, data_dir)
    evaluate(model, tokenizer, one, tmp_path / "out", cache_dir=tmp_path / "cache")
    assert len(calls) == 2


@pytest.mark.parametrize("changes", [{"limit": 5}, {"num_fewshot": 1}, {"max_length": 64}, {"seed": 7}])
def test_other_questions_are_asked(changes, model, tokenizer, data_dir, tmp_path, calls):
    given = {key: changes[key] for key in ("max_length", "seed") if key in changes}
    rest = {key: value for key, value in changes.items() if key not in given}
    one = {"tasks": ["world_sciq"], "num_fewshot": 2}
    evaluate(model, tokenizer, settings(data_dir, **one), tmp_path / "out", cache_dir=tmp_path / "cache")
    evaluate(
        model, tokenizer, settings(data_dir, **(one | rest)), tmp_path / "out", cache_dir=tmp_path / "cache", **given
    )
    assert len(calls) == 2


def test_a_damaged_file_of_the_cache_is_asked_again(model, tokenizer, data_dir, tmp_path, calls):
    one = settings(data_dir, tasks=["world_arc"], num_fewshot=0)
    first = evaluate(model, tokenizer, one, tmp_path / "out", cache_dir=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_text(entry.read_text()[:100])
    assert evaluate(model, tokenizer, one, tmp_path / "out", cache_dir=tmp_path / "cache") == first
    assert len(calls) == 2


def test_ranks_share_the_items_and_agree_with_one_process(model, tokenizer, data_dir, tmp_path):
    """5 examples, drawn in sequence: ranks that split the items before they draw would draw others."""
    model.save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    config = settings(data_dir, num_fewshot=[0, 5])
    alone = evaluate(model, tokenizer, config, tmp_path / "alone")
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import torch.distributed as dist\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "from l2e.evaluation import EvaluationConfig, evaluate\n"
        "from l2e.evaluation.harness import HFLM\n"
        "root, data = Path(sys.argv[1]), sys.argv[2]\n"
        "dist.init_process_group('gloo')\n"
        "model = AutoModelForCausalLM.from_pretrained(root / 'hf')\n"
        "tokenizer = AutoTokenizer.from_pretrained(root / 'hf')\n"
        "count, score = 0, HFLM._loglikelihood_tokens\n"
        "def counted(self, requests, *args, **kwargs):\n"
        "    global count\n"
        "    count += len(requests)\n"
        "    return score(self, requests, *args, **kwargs)\n"
        "HFLM._loglikelihood_tokens = counted\n"
        f"config = EvaluationConfig(tasks={WORLD}, data_dir=data, num_fewshot=[0, 5])\n"
        "found = evaluate(model, tokenizer, config, root / 'shared')\n"
        "(root / f'rank{dist.get_rank()}').write_text(f'{count} {found}')\n"
        "dist.barrier()\n"
        "dist.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    subprocess.run(
        [*command, str(script), str(tmp_path), str(data_dir)],
        check=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    counts = []
    for rank in (0, 1):
        count, _, results = (tmp_path / f"rank{rank}").read_text().partition(" ")
        counts.append(int(count))
        assert results == str(alone)
    requests = sum(len(json.loads(line)["loglikelihoods"]) for line in item_lines(tmp_path / "alone"))
    assert sum(counts) == requests
    assert abs(counts[0] - counts[1]) <= 6
    for one, other in zip(item_lines(tmp_path / "alone"), item_lines(tmp_path / "shared"), strict=True):
        ours, theirs = json.loads(one), json.loads(other)
        assert theirs.pop("loglikelihoods") == pytest.approx(ours.pop("loglikelihoods"), abs=1e-4)
        assert ours == theirs  # the hash of the prompt, examples included, is among them


def item_lines(folder):
    return [line for path in sorted(folder.rglob("samples_*.jsonl")) for line in path.read_text().splitlines()]

import json
import logging
import math

import numpy as np
import pytest
import torch
from evaluation_items import make_model, write_items

from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, evaluate, read_summary

WORLD = ["world_arc", "world_piqa", "world_sciq"]
CHOICES = {
    "world_arc": lambda doc: doc["choices"]["text"],
    "world_piqa": lambda doc: [doc["sol1"], doc["sol2"]],
    "world_sciq": lambda doc: [doc[f"distractor{i}"] for i in (1, 2, 3)] + [doc["correct_answer"]],
}
GOLD = {
    "world_arc": lambda doc: doc["choices"]["label"].index(doc["answerKey"]),
    "world_piqa": lambda doc: doc["label"],
    "world_sciq": lambda doc: 3,
}
PROMPT = {
    "world_arc": lambda doc: f"Question: {doc['question']}\nAnswer:",
    "world_piqa": lambda doc: f"Question: {doc['goal']}\nAnswer:",
    "world_sciq": lambda doc: f"{doc['support'].lstrip()}\nQuestion: {doc['question']}\nAnswer:",
}
SCORED = {"world_arc": "test", "world_piqa": "validation", "world_sciq": "test"}


def settings(data_dir, **changes):
    return EvaluationConfig(**{"tasks": WORLD, "data_dir": str(data_dir), **changes})


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def score(model, tokenizer, context, continuation):
    """The sum of the log-probabilities of the continuation's tokens: one sequence, no padding, no batch.

    The last token predicts nothing here and is not fed: in bfloat16 the length decides how products are rounded.
    """
    whole = tokenizer(context + continuation)["input_ids"]
    start = len(tokenizer(context)["input_ids"])
    with torch.no_grad():
        logits = model.eval()(torch.tensor([whole[:-1]])).logits[0].float()
    log_probabilities = torch.log_softmax(logits, dim=-1)
    return sum(log_probabilities[i - 1, whole[i]].item() for i in range(start, len(whole)))


@pytest.mark.parametrize("shots", [0, 2])
def test_agrees_with_an_independent_scorer_item_by_item(shots, model, tokenizer, data_dir, tmp_path, recorded):
    results = evaluate(model, tokenizer, settings(data_dir, num_fewshot=shots), tmp_path / "out")
    assert [result.task for result in results] == WORLD
    for result in results:
        task = result.task
        docs = lines(data_dir / task / f"{SCORED[task]}.jsonl")
        contexts = {s["doc_id"]: s["arguments"][0][0] for s in recorded[0][task]}
        written = lines(tmp_path / "out" / f"{shots}-shot" / f"samples_{task}.jsonl")
        assert [line["doc_id"] for line in written] == list(range(len(docs)))
        right, right_norm = [], []
        for doc, line in zip(docs, written, strict=True):
            context, choices, gold = contexts[line["doc_id"]], CHOICES[task](doc), GOLD[task](doc)
            if shots == 0:
                assert context == PROMPT[task](doc)
            assert context.endswith(PROMPT[task](doc))
            assert context.count("Question:") == shots + 1
            expected = [score(model, tokenizer, context, " " + choice) for choice in choices]
            assert line["loglikelihoods"] == pytest.approx(expected, abs=1e-4)
            assert (line["doc"], line["target"]) == (doc, gold)
            right.append(float(np.argmax(expected) == gold))
            right_norm.append(float(np.argmax([e / len(c) for e, c in zip(expected, choices, strict=True)]) == gold))
            assert (line["acc"], line["acc_norm"]) == (right[-1], right_norm[-1])
        n = len(docs)
        assert result.n == n
        assert result.acc == pytest.approx(np.mean(right), abs=1e-12)
        assert result.acc_norm == pytest.approx(np.mean(right_norm), abs=1e-12)
        assert result.acc_stderr == pytest.approx(math.sqrt(result.acc * (1 - result.acc) / (n - 1)), abs=1e-12)
        assert result.chance == pytest.approx(np.mean([1 / len(CHOICES[task](doc)) for doc in docs]))


def test_examples_come_from_train_and_follow_the_seed(model, tokenizer, data_dir, tmp_path, recorded):
    one = settings(data_dir, tasks=["world_arc"], num_fewshot=1)
    for seed in (1234, 1234, 7):
        evaluate(model, tokenizer, one, tmp_path / "out", seed=seed)
    first, again, other = ([s["arguments"][0][0] for s in run["world_arc"]] for run in recorded)
    assert first == again != other
    train = {doc["question"] for doc in lines(data_dir / "world_arc" / "train.jsonl")}
    assert all(context.split("\n")[0].removeprefix("Question: ") in train for context in first)


def test_two_calls_in_one_process_are_identical(model, tokenizer, data_dir, tmp_path):
    both = settings(data_dir, num_fewshot=[0, 2])
    first = evaluate(model, tokenizer, both, tmp_path)
    assert [(r.num_fewshot, r.task) for r in first] == [(k, task) for k in (0, 2) for task in WORLD]
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert evaluate(model, tokenizer, both, tmp_path) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_limit_takes_the_first_items_and_leaves_them_as_they_were(model, tokenizer, data_dir, tmp_path):
    evaluate(model, tokenizer, settings(data_dir, num_fewshot=2), tmp_path / "all")
    few = evaluate(model, tokenizer, settings(data_dir, num_fewshot=2, limit=5), tmp_path / "few")
    assert [result.n for result in few] == [5, 5, 5]
    for task in WORLD:
        name = f"2-shot/samples_{task}.jsonl"
        for all_items, first in zip(lines(tmp_path / "all" / name)[:5], lines(tmp_path / "few" / name), strict=True):
            logs = all_items.pop("loglikelihoods"), first.pop("loglikelihoods")
            assert all_items == first  # the same examples in the context, too: the prompt's hash is among them
            assert logs[0] == pytest.approx(logs[1], abs=1e-4)


def test_one_item_has_no_standard_error(model, tokenizer, data_dir, tmp_path):
    (result,) = evaluate(model, tokenizer, settings(data_dir, tasks=["world_arc"], limit=1), tmp_path)
    assert (result.n, result.acc_stderr, result.acc_norm_stderr) == (1, None, None)
    assert read_summary(tmp_path / "summary.json") == [result]


def test_half_precision_is_kept_but_log_probabilities_are_in_float32(model, tokenizer, data_dir, tmp_path, recorded):
    half = model.to(torch.bfloat16)
    evaluate(half, tokenizer, settings(data_dir, tasks=["world_arc"], batch_size=1), tmp_path)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    results = json.loads((tmp_path / "0-shot" / "results.json").read_text())
    assert results["config"]["model_dtype"] == "torch.bfloat16"
    for sample in recorded[0]["world_arc"]:
        for (context, continuation), (value, _) in zip(sample["arguments"], sample["filtered_resps"], strict=True):
            assert value == pytest.approx(score(half, tokenizer, context, continuation), abs=1e-3)


def test_items_that_do_not_fit_are_counted_and_reported(model, tokenizer, data_dir, tmp_path, recorded, caplog):
    with caplog.at_level(logging.INFO, logger="l2e.evaluation"):
        results = evaluate(model, tokenizer, settings(data_dir, batch_size=3), tmp_path, max_length=40)
    for result in results:
        cut = [
            any(len(tokenizer(context + choice)["input_ids"]) > 41 for context, choice in sample["arguments"])
            for sample in recorded[0][result.task]
        ]
        assert result.truncated == sum(cut)
        assert [line["truncated"] for line in lines(tmp_path / "0-shot" / f"samples_{result.task}.jsonl")] == cut
    by_task = {result.task: result.truncated for result in results}
    assert 0 < by_task["world_sciq"] < 12
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"world_sciq, 0-shot: {by_task['world_sciq']} of 12 items exceed max_length 40" in " ".join(said)
    assert len(said) == sum(count > 0 for count in by_task.values())


def test_max_length_is_the_models_own_by_default(tokenizer, data_dir, tmp_path):
    evaluate(make_model(len(tokenizer), positions=77), tokenizer, settings(data_dir, limit=2), tmp_path)
    assert json.loads((tmp_path / "0-shot" / "results.json").read_text())["config"]["max_length"] == 77


def test_a_choice_that_cannot_fit_is_refused_before_the_model_runs(model, tokenizer, data_dir, tmp_path):
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(UserError, match="does not fit the model's 4"):
        evaluate(model, tokenizer, settings(data_dir), tmp_path, max_length=4)
    assert not calls


def test_results_say_what_was_run(model, tokenizer, data_dir, tmp_path):
    evaluate(model, tokenizer, settings(data_dir, num_fewshot=2, limit=3), tmp_path)
    results = json.loads((tmp_path / "2-shot" / "results.json").read_text())
    assert results["versions"] == dict.fromkeys(WORLD, 1.0)
    assert results["n-shot"] == dict.fromkeys(WORLD, 2)
    assert results["n-samples"]["world_sciq"] == {"original": 12, "effective": 3}
    assert set(results["configs"]["world_sciq"]["metadata"]["data_sha256"]) == {"train", "validation", "test"}
    assert results["lm_eval_version"].startswith("0.4.")
    assert "samples" not in results
    assert not list(tmp_path.rglob(".*"))


def test_a_task_without_training_items_runs_without_examples(model, tokenizer, tmp_path):
    doc = {"goal": "brin", "sol1": "tolva", "sol2": "kesh kesh", "label": 1}
    write_items(tmp_path / "data" / "piqa" / "validation.jsonl", [doc] * 3)
    (result,) = evaluate(model, tokenizer, settings(tmp_path / "data", tasks=["piqa"]), tmp_path / "out")
    assert (result.task, result.n, result.chance) == ("piqa", 3, 0.5)

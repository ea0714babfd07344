"""Evaluation with the inhibition active (M22): the log-likelihoods of each item, worked out again by hand."""

import copy
import json

import numpy as np
import pytest
import torch
from evaluation_items import make_model

import l2e
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, Evaluator
from l2e.evaluation.harness import LanguageModel, Questions
from l2e.models import read_inhibition
from l2e.models.inhibition_state import write_inhibition

TRAINED = 16  # positions of the training rows; the items' prompts are shorter and longer


def settings(data_dir, **changes):
    given = {"tasks": ["world_arc", "world_sciq"], "data_dir": str(data_dir), "batch_size": 4, "limit": 6}
    return EvaluationConfig(**(given | changes))


def state_of(model, method="memel", seed=0, **how):
    """The inhibition after a few updates that leave the weights as they are."""
    inhibition = l2e.attach(model.train(), method=method, blocks=[0, 1], rate=0.1, late_start=2, warmup=2, **how)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(6):
        model(torch.randint(len_of(model), (8, TRAINED), generator=generator), use_cache=False)
        inhibition.step()
    state = copy.deepcopy(inhibition.state_dict())
    inhibition.remove()
    return state


def len_of(model):
    return model.config.vocab_size


@pytest.fixture(scope="module")
def small(tokenizer):
    return make_model(len(tokenizer))


def by_hand(model, state, tokenizer, context, choice):
    """Log-likelihood of a choice: the sequence alone, its selected outputs put at their mean in NumPy."""
    whole = tokenizer(context + choice, add_special_tokens=False)["input_ids"]
    first = len(tokenizer(context, add_special_tokens=False)["input_ids"])

    def edit(tap):
        moments = tap["statistics"]["moments"]
        mean, var = (moments[name].double().numpy() for name in ("mean", "var"))

        def hook(block, inputs, output):
            values = output[0].double().numpy()
            known = min(len(values), TRAINED)
            phi = (values[:known] - mean[:known]) ** 2 / (var[:known] + 0.01 * var.mean())
            if state["config"]["method"] == "memel":
                chosen = phi >= np.sort(phi, axis=None)[-max(1, round(0.1 * phi.size))]
            else:
                chosen = phi > float(tap["statistics"]["threshold"]["tau"])
            values[:known][chosen] = mean[:known][chosen]
            return torch.from_numpy(values).float()[None]

        return hook

    layers = model.gpt_neox.layers
    hooks = [layers[key].register_forward_hook(edit(tap)) for key, tap in state["taps"].items()]
    with torch.no_grad():
        logits = model.eval()(torch.tensor([whole[:-1]]), use_cache=False).logits[0].double()
    for hook in hooks:
        hook.remove()
    logs = logits.log_softmax(-1)
    return sum(float(logs[place - 1, whole[place]]) for place in range(first, len(whole)))


@pytest.mark.parametrize("method", ["memel", "reverse_deactivation"])
def test_log_likelihoods_are_those_worked_out_by_hand(method, small, tokenizer, data_dir, tmp_path, recorded):
    state = state_of(small, method)
    with Evaluator(tokenizer, settings(data_dir)) as evaluator:
        evaluator.score(small, tmp_path / "plain")
        evaluator.score(small, tmp_path / "acting", state)
    moved, lengths = [], set()
    for task, samples in recorded[1].items():
        lines = [json.loads(text) for text in (tmp_path / "acting/0-shot" / f"samples_{task}.jsonl").open()]
        before = [json.loads(text) for text in (tmp_path / "plain/0-shot" / f"samples_{task}.jsonl").open()]
        for sample, line, plain in zip(sorted(samples, key=lambda one: one["doc_id"]), lines, before, strict=True):
            expected = [by_hand(small, state, tokenizer, *pair) for pair in sample["arguments"]]
            assert line["loglikelihoods"] == pytest.approx(expected, abs=1e-3)
            right = sample["doc"].get("answerKey")
            gold = sample["doc"]["choices"]["label"].index(right) if right else 3
            assert line["acc"] == float(int(np.argmax(expected)) == gold)
            moved += [abs(a - b) for a, b in zip(expected, plain["loglikelihoods"], strict=True)]
            lengths |= {len(tokenizer("".join(pair))["input_ids"]) for pair in sample["arguments"]}
    assert np.median(moved) > 0.05
    assert min(lengths) < TRAINED < max(lengths)


def test_the_model_is_as_before_and_the_outputs_say_what_acted(small, tokenizer, data_dir, tmp_path):
    state = state_of(small)
    with Evaluator(tokenizer, settings(data_dir)) as evaluator:
        first = evaluator.score(small, tmp_path / "one")
        evaluator.score(small, tmp_path / "acting", state)
        assert evaluator.score(small, tmp_path / "two") == first
    said = {name: json.loads((tmp_path / name / "0-shot/results.json").read_text()) for name in ("one", "acting")}
    assert (said["one"]["config"]["inhibited"], said["acting"]["config"]["inhibited"]) == (None, "memel")
    assert said["one"]["reproduce"].startswith("lm_eval run")
    assert said["acting"]["reproduce"] is None  # lm-eval's command line cannot
    assert not any(layer._forward_hooks for layer in small.gpt_neox.layers)


def test_kept_answers_are_those_of_one_state(small, tokenizer, data_dir, tmp_path, monkeypatch):
    asked, ask = [], Questions.ask
    monkeypatch.setattr(Questions, "ask", lambda self, model: asked.append(self.name) or ask(self, model))
    one = settings(data_dir, tasks=["world_arc"])
    states = [None, state_of(small), state_of(small, seed=1), state_of(small, "naive_a")]
    for count, state in enumerate(states, start=1):
        for _ in range(2):
            with Evaluator(tokenizer, one, cache_dir=tmp_path / "cache") as evaluator:
                evaluator.score(small, tmp_path / "out", copy.deepcopy(state))
            assert len(asked) == count


def test_a_batch_without_padding_follows_one_with(small, tokenizer, data_dir, tmp_path):
    """lm-eval's search for a batch size runs batches of its own between those that are padded."""
    from l2e.inhibition import InhibitionInEvaluation

    acting = InhibitionInEvaluation(small, state_of(small))
    try:
        model = LanguageModel(small, tokenizer, 4, None, acting)
        batch = model._pad(5, [torch.tensor([3, 4, 5, 6, 7]), torch.tensor([3, 4])], padding_side="right")
        assert batch.tolist() == [[3, 4, 5, 6, 7], [3, 4, 0, 0, 0]]
        model._model_call(batch)
        assert acting.lengths == [5, 2]
        model._model_call(torch.ones((3, 6), dtype=torch.long))
        assert acting.lengths is None
        with pytest.raises(UserError, match=r"evaluation.inhibited: a task .* asks the model to write"):
            model.generate_until([])
    finally:
        acting.remove()


def test_a_state_is_written_and_read(small, tmp_path):
    state = state_of(small, "reverse_deactivation")
    write_inhibition(tmp_path / "model", state)
    found = read_inhibition(tmp_path / "model")
    assert found["config"] == state["config"]
    assert list(found["taps"]) == [0, 1]
    for key, tap in state["taps"].items():
        theirs = found["taps"][key]["statistics"]
        for name, value in tap["statistics"]["moments"].items():
            assert torch.equal(torch.as_tensor(theirs["moments"][name]), torch.as_tensor(value))
        assert torch.equal(theirs["threshold"]["tau"], tap["statistics"]["threshold"]["tau"])
        assert theirs["threshold"]["updates"] == tap["statistics"]["threshold"]["updates"]


def test_a_state_that_is_not_there_or_damaged_is_told(small, tmp_path):
    with pytest.raises(UserError, match=r"inhibition.json does not exist: .* python scripts/export.py run=RUN step=N"):
        read_inhibition(tmp_path)
    write_inhibition(tmp_path, state_of(small))
    tensors = tmp_path / "inhibition.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:200])
    with pytest.raises(UserError, match=r"inhibition.json, inhibition.safetensors: no inhib.*; export the run"):
        read_inhibition(tmp_path)


def test_a_state_of_another_model_is_refused(small, tokenizer, data_dir, tmp_path):
    of_other_blocks = state_of(small)
    of_other_blocks["taps"].pop(1)
    of_a_penalty = state_of(small, "l2e", weight=0.0)
    one = settings(data_dir, tasks=["world_arc"])
    with Evaluator(tokenizer, one) as evaluator:
        with pytest.raises(UserError, match=r"evaluation\.inhibited: saved taps are blocks"):
            evaluator.score(small, tmp_path / "out", of_other_blocks)
        with pytest.raises(UserError, match=r"evaluation\.inhibited: method l2e changes nothing at test time"):
            evaluator.score(small, tmp_path / "out", of_a_penalty)
        assert evaluator.score(small, tmp_path / "out")[0].n == 6

import logging
import random

import numpy as np
import pytest
import torch
from evaluation_items import SPLITS, make_model

from l2e.evaluation import EvaluationConfig, evaluate


def settings(data_dir, **changes):
    return EvaluationConfig(**{"tasks": list(SPLITS), "data_dir": str(data_dir), **changes})


def test_model_tokenizer_and_random_generators_are_left_as_they_were(model, tokenizer, data_dir, tmp_path):
    model.train()
    model.gpt_neox.layers[1].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    evaluate(model, tokenizer, settings(data_dir, num_fewshot=1), tmp_path)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert tokenizer.pad_token is None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_dropout_is_off_and_no_graph_is_kept(tokenizer, data_dir, tmp_path):
    model = make_model(len(tokenizer)).train()
    model.gpt_neox.emb_dropout.p = 0.5
    seen = []

    def note(module, inputs, output):
        seen.append((module.training, output.logits.requires_grad))

    model.register_forward_hook(note)
    evaluate(model, tokenizer, settings(data_dir, tasks=["world_piqa"]), tmp_path)
    assert set(seen) == {(False, False)}


def test_mode_is_restored_and_no_summary_is_left_when_the_model_fails(model, tokenizer, data_dir, tmp_path):
    evaluate(model, tokenizer, settings(data_dir), tmp_path)
    model.train().register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(model, tokenizer, settings(data_dir), tmp_path)
    assert all(module.training for module in model.modules())
    assert not (tmp_path / "summary.json").exists()


def test_it_is_quiet(model, tokenizer, data_dir, tmp_path, capfd):
    level = logging.getLogger("lm_eval").level
    evaluate(model, tokenizer, settings(data_dir, num_fewshot=1), tmp_path, max_length=40)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert not [line for line in shown.err.splitlines() if "lost the start" not in line]
    assert logging.getLogger("lm_eval").level == level


def test_every_process_of_a_launch_gets_its_results(model, tokenizer, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")  # lm-eval's simple_evaluate would return None
    assert len(evaluate(model, tokenizer, settings(data_dir, limit=1), tmp_path)) == 3

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXForCausalLM

from l2e.models import PYTHIA, build_pythia, export, pythia_size
from l2e.models.pythia import _neox_config, initialise

# pythia.md D.6 and D.1: published totals, and standard deviations as the configs give them.
PARAMETERS = {
    "pythia-14m": 14_067_712,
    "pythia-31m": 30_494_720,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
}
STDS = {
    "pythia-14m": (0.055902, 0.029463),
    "pythia-31m": (0.039528, 0.020833),
    "pythia-70m": (0.027951, 0.014731),
    "pythia-160m": (0.022822, 0.006014),
    "pythia-410m": (0.019764, 0.002604),
    "pythia-1b": (0.013975, 0.002762),
    "pythia-1.4b": (0.013975, 0.001841),
    "pythia-2.8b": (0.012500, 0.001235),
    "pythia-6.9b": (0.02, 0.0025),
    "pythia-12b": (0.02, 0.002357),
}


def test_all_ten_sizes_are_there() -> None:
    assert set(PYTHIA) == set(PARAMETERS)


@pytest.mark.parametrize("name", [*PARAMETERS, "tiny"])
def test_parameter_counts_equal_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = GPTNeoXForCausalLM(_neox_config(pythia_size(name), 2048, "gelu"))
    expected = PARAMETERS.get(name, pythia_size(name).parameters)
    assert sum(p.numel() for p in model.parameters()) == expected == pythia_size(name).parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_initial_spreads_are_the_published_ones(name: str) -> None:
    size = PYTHIA[name]
    assert size.input_std == pytest.approx(STDS[name][0], abs=6e-7)  # printed to six digits
    assert size.output_std == pytest.approx(STDS[name][1], abs=6e-7)


@pytest.mark.parametrize("small_init", [True, False])
def test_weights_are_drawn_with_these_spreads(small_init: bool) -> None:
    size = replace(pythia_size("pythia-14m"), vocab_size=4096, small_init=small_init)
    model = GPTNeoXForCausalLM(_neox_config(size, 64, "gelu"))
    initialise(model, size)
    wide, narrow = ((2 / (5 * 128)) ** 0.5, 2 / (6 * 128**0.5)) if small_init else (0.02, 0.02 / 12**0.5)
    layer = model.gpt_neox.layers[3]
    for weight, std in [
        (model.gpt_neox.embed_in.weight, wide),
        (model.lm_head.weight, wide),
        (layer.attention.query_key_value.weight, wide),
        (layer.mlp.dense_h_to_4h.weight, wide),
        (layer.attention.dense.weight, narrow),
        (layer.mlp.dense_4h_to_h.weight, narrow),
    ]:
        assert weight.std().item() == pytest.approx(std, rel=5 / weight.numel() ** 0.5)
        assert abs(weight.mean().item()) < 5 * std / weight.numel() ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.all(parameter == (0.0 if name.endswith("bias") else 1.0)), name


def test_architecture() -> None:
    config = build_pythia("tiny").config
    assert config.use_parallel_residual
    assert not config.tie_word_embeddings
    assert config.layer_norm_eps == 1e-5
    assert config.rope_parameters["partial_rotary_factor"] == 0.25
    assert config.rope_parameters["rope_theta"] == 10000
    assert config.hidden_dropout == config.attention_dropout == 0
    assert config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("activation", "approximate"), [("tanh", "tanh"), ("erf", "none")])
def test_the_gelu_is_the_one_asked_for(activation: str, approximate: str) -> None:
    act = build_pythia("tiny", activation=activation).gpt_neox.layers[0].mlp.act  # type: ignore[arg-type]
    x = torch.linspace(-4, 4, 101)
    assert torch.equal(act(x), F.gelu(x, approximate=approximate))


def test_seed_decides_the_weights_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build_pythia("tiny", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize("recompute", [False, True])
def test_attention_is_told_that_it_is_causal_and_given_no_mask(
    monkeypatch: pytest.MonkeyPatch, recompute: bool
) -> None:
    """With a mask a GPU would leave its flash kernel."""
    attend, told = F.scaled_dot_product_attention, []

    def note(*args: Any, **kwargs: Any) -> torch.Tensor:
        told.append((len(args), kwargs.get("attn_mask"), kwargs.get("is_causal"), kwargs.get("dropout_p")))
        return attend(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", note)
    model = build_pythia("tiny").train()
    if recompute:
        model.gradient_checkpointing_enable()
    model(input_ids=torch.randint(100, (2, 9)), use_cache=False).logits.sum().backward()
    passes = 2 if recompute else 1
    assert told == [(3, None, True, 0.0)] * model.config.num_hidden_layers * passes


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'pythia-99m'; known are tiny, pythia-14m"):
        build_pythia("pythia-99m")


def test_export_loads_with_equal_logits(tmp_path: Path, real_data: Path) -> None:
    model = build_pythia("tiny")
    export(model, AutoTokenizer.from_pretrained(real_data / "tokenizer"), tmp_path / "step3")
    export(model, AutoTokenizer.from_pretrained(real_data / "tokenizer"), tmp_path / "step3")  # again, in its place
    tokens = torch.randint(0, 768, (2, 33), generator=torch.Generator().manual_seed(0))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "step3")
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, rtol=0, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "step3")("Hello world").input_ids == [12092, 1533]
    assert [path.name for path in tmp_path.iterdir()] == ["step3"]

"""Build a Pythia on transformers' GPT-NeoX, initialised as the published runs were (pythia.md D.1)."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerBase

from l2e.manifest import write_manifest
from l2e.models.inhibition_state import write_inhibition
from l2e.models.sizes import PythiaSize, pythia_size

_ACTIVATIONS = {"tanh": "gelu_pytorch_tanh", "erf": "gelu"}
_RESIDUAL_WRITERS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")


def build_pythia(
    name: str,
    *,
    vocab_size: int | None = None,
    max_length: int = 2048,
    activation: Literal["tanh", "erf"] = "tanh",
    attention: Literal["sdpa", "eager"] = "sdpa",
    seed: int = 1234,
) -> GPTNeoXForCausalLM:
    """A freshly initialised model in fp32.

    Args:
        name: one of `PYTHIA`, or "tiny".
        vocab_size: rows of both embeddings; None takes the size's own.
        max_length: longest sequence in tokens.
        activation: which GELU, see `ModelConfig.activation`.
        attention: attention kernel.
        seed: of the initial weights; the global random state is left alone.

    Raises:
        ValueError: an unknown name.
    """
    size = pythia_size(name)
    if vocab_size is not None:
        size = replace(size, vocab_size=vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPTNeoXForCausalLM._from_config(
            _neox_config(size, max_length, _ACTIVATIONS[activation]), attn_implementation=attention
        )
        initialise(model, size)
    return model


def _neox_config(size: PythiaSize, max_length: int, activation: str) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        hidden_act=activation,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        max_position_embeddings=max_length,
        layer_norm_eps=1e-5,
        use_parallel_residual=True,
        tie_word_embeddings=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        initializer_range=size.input_std,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )


@torch.no_grad()
def initialise(model: nn.Module, size: PythiaSize) -> None:
    """Draw all weights anew: matrices normal (see `PythiaSize`), biases 0, LayerNorm weights 1."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            writes_residual = name.endswith(_RESIDUAL_WRITERS)
            parameter.normal_(0.0, size.output_std if writes_residual else size.input_std)


def export(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    facts: dict[str, Any] | None = None,
    inhibition: dict[str, Any] | None = None,
) -> None:
    """Write model and tokenizer so that `AutoModelForCausalLM.from_pretrained(folder)` loads them.

    The files appear under a temporary name first: `folder` exists only when it is complete.

    Args:
        model: GPT-NeoX, with all weights at hand.
        tokenizer: its own.
        folder: made, or replaced.
        facts: what a manifest with the hash of each file says besides; None writes no manifest.
        inhibition: state of one that can act at test time too, to lie beside the weights.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)  # type: ignore[operator]
    tokenizer.save_pretrained(temporary)
    if inhibition is not None:
        write_inhibition(temporary, inhibition)
    if facts is not None:
        write_manifest(temporary, facts)
    if folder.exists():
        shutil.rmtree(folder)  # the new export is complete by now
    temporary.rename(folder)

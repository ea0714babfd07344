"""Small language models and labelled token sequences, for tests of the analysis."""

import numpy as np
import torch
from torch import nn

from l2e.analysis.subjects import FeatureSet
from l2e.models import build_pythia

VOCABULARY, WINDOW, LANGUAGES = 200, 24, ("ada", "bel", "cor")
OWN = 20
"""Tokens that only one language has; 60 more belong to all."""


def languages(per_label: int = 40, seed: int = 0) -> FeatureSet:
    """Sequences of three languages, half of their tokens shared: language i owns tokens 60 + 20 i and up."""
    random = np.random.default_rng(seed)
    count = 3 * per_label
    labels = np.arange(count) % 3
    own = 60 + OWN * labels[:, None] + random.integers(0, OWN, (count, WINDOW))
    shared = random.integers(1, 60, (count, WINDOW))
    tokens = np.where(random.random((count, WINDOW)) < 0.5, own, shared).astype(np.int32)
    tokens[:, 0] = 0
    ends = random.integers(WINDOW // 2, WINDOW + 1, count)
    tokens[np.arange(WINDOW) >= ends[:, None]] = 0
    return FeatureSet("toy_languages", tokens, np.ones(count, np.int64), ends.astype(np.int64), labels, LANGUAGES)


def small_lm(activation="tanh", seed: int = 1, attention="sdpa") -> nn.Module:
    """Untrained: 4 layers, hidden 128."""
    return build_pythia(
        "tiny", vocab_size=VOCABULARY, max_length=64, activation=activation, seed=seed, attention=attention
    ).eval()


@torch.no_grad()
def collect(model: nn.Module, features: FeatureSet) -> np.ndarray:
    """[layers, sequences, width]: mean of each MLP hidden unit after the GELU over the valid positions, one by one."""
    kept: list[torch.Tensor] = []
    hooks = [
        block.mlp.dense_4h_to_h.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0][0]))
        for block in model.gpt_neox.layers
    ]
    rows = []
    for tokens, start, end in zip(features.tokens, features.starts, features.ends, strict=True):
        kept.clear()
        model(input_ids=torch.from_numpy(tokens[:end]).long()[None])
        rows.append(torch.stack([hidden[start:end].mean(dim=0) for hidden in kept]))
    for hook in hooks:
        hook.remove()
    return torch.stack(rows, dim=1).numpy()

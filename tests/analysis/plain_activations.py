"""Activations as anybody would collect them: hook, run the whole model on padded rows, concatenate, average."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from l2e.analysis.subjects import FeatureSet
from l2e.models import build_pythia


def small_model(layers: int = 3, seed: int = 1) -> nn.Module:
    """A Pythia whose values vary: weights drawn wide, and biases that are not 0."""
    model = build_pythia("tiny", vocab_size=64, max_length=64, seed=seed).eval()
    model.gpt_neox.layers = model.gpt_neox.layers[:layers]
    model.config.num_hidden_layers = layers
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
            else:
                parameter.mul_(2.0)
    return model


def random_features(count: int = 37, window: int = 24, seed: int = 0, ragged: bool = True) -> FeatureSet:
    """Random tokens; rows of every length, what stands behind the end included."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(3, window + 1, count) if ragged else np.full(count, window)
    starts = np.array([rng.integers(0, end) for end in ends]) if ragged else np.full(count, 2)
    tokens = rng.integers(1, 64, (count, window)).astype(np.int32)
    tokens[np.arange(window)[None] >= ends[:, None]] = 0
    return FeatureSet(
        "random", tokens, starts.astype(np.int64), ends.astype(np.int64), rng.integers(0, 2, count), ("a", "b")
    )


def plainly(model: Any, features: FeatureSet, site: str, aggregation: str) -> NDArray[np.float64]:
    """[layers, sequences, width] in double precision from the values of single positions."""
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            kept[layer] = output.detach().double()

        return hook

    modules = {
        "hidden_pre": lambda block: block.mlp.dense_h_to_4h,
        "hidden_post": lambda block: block.mlp.act,
        "block_output": lambda block: block,
    }
    handles = [modules[site](block).register_forward_hook(keep(i)) for i, block in enumerate(model.gpt_neox.layers)]
    with torch.no_grad():
        positions = torch.arange(features.tokens.shape[1])[None]
        seen = positions < torch.from_numpy(features.ends)[:, None]
        model(torch.from_numpy(features.tokens.astype(np.int64)), attention_mask=seen.long())
    for handle in handles:
        handle.remove()
    values = np.stack([kept[layer].numpy() for layer in range(len(kept))])
    result = np.empty((values.shape[0], values.shape[1], values.shape[3]))
    for row, (start, end) in enumerate(zip(features.starts, features.ends, strict=True)):
        part = values[:, row, start:end]
        result[:, row] = part.mean(1) if aggregation == "mean" else part.max(1)
    return result

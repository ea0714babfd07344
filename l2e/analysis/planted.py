"""An artificial monosemantic neuron: put into a model, it does a known thing on known tokens and nothing else (S01).

It is an MLP hidden unit of the first block, whose input is a function of the token alone. On the chosen tokens its
pre-activation is at least `fire`, on all others at most -`silence`, where either GELU is exactly 0 in fp32. So a
sequence without these tokens gives the same logits, bit by bit, as the model in which the unit is silent.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from l2e.analysis.neurons import Neuron, check_neurons, mlps
from l2e.analysis.subjects import FeatureSet


@dataclass(frozen=True)
class Planted:
    """What was planted."""

    neuron: Neuron
    tokens: tuple[int, ...]
    activation: Tensor
    """[vocabulary]: what the neuron gives on each token; exactly 0 but on `tokens`."""


def label_tokens(features: FeatureSet, label: int, least: int = 1) -> list[int]:
    """Tokens that stand at valid positions of a label's sequences and of no other label's.

    Args:
        features: labelled sequences.
        label: its index.
        least: how often they must stand there.

    Returns:
        Token numbers, the most frequent first.
    """
    counts = np.zeros((2, int(features.tokens.max()) + 1), np.int64)
    for row, (start, end) in enumerate(zip(features.starts, features.ends, strict=True)):
        np.add.at(counts[int(features.labels[row] == label)], features.tokens[row, start:end], 1)
    own = np.flatnonzero((counts[0] == 0) & (counts[1] >= least))
    return own[np.argsort(-counts[1][own], kind="stable")].tolist()


@torch.no_grad()
def silence(model: nn.Module, neuron: Neuron) -> None:
    """Set a neuron's weights to 0, in place: it is 0 on everything and adds nothing."""
    check_neurons(model, [neuron])
    mlp = mlps(model)[neuron.layer]
    for weights in (mlp.dense_h_to_4h.weight, mlp.dense_h_to_4h.bias):
        weights[neuron.number] = 0
    mlp.dense_4h_to_h.weight[:, neuron.number] = 0


@torch.no_grad()
def plant(
    model: nn.Module,
    number: int,
    tokens: Sequence[int],
    effect: Tensor,
    fire: float = 2.0,
    silence: float = 20.0,
) -> Planted:
    """Put a monosemantic neuron in the place of neuron `number` of the first block, in place.

    Args:
        model: a GPTNeoXForCausalLM in fp32.
        number: of the unit whose weights are replaced; what it did is lost.
        tokens: on which it fires.
        effect: [hidden]: what one unit of its activation adds to the first block's output.
        fire: least pre-activation on `tokens`.
        silence: least distance of all others' pre-activation below 0; from 10 on a GELU gives exactly 0.

    Returns:
        What it gives on each token, taken from the model itself.

    Raises:
        ValueError: no single unit can tell the tokens from all others (fewer tokens might do), or it would not
            be exactly silent.
        UserError: the model has no such neuron.
    """
    neuron = Neuron(0, number)
    check_neurons(model, [neuron])
    chosen = sorted(set(tokens))
    neox: Any = model.gpt_neox
    mlp, embedding = mlps(model)[0], neox.embed_in.weight
    inputs = neox.layers[0].post_attention_layernorm(embedding)
    if not 0 < len(chosen) < len(embedding):
        raise ValueError(
            f"tokens: {len(chosen)} of {len(embedding)} are named; a neuron needs some to fire on, and others"
        )
    direction = _separator(inputs.double().cpu().numpy(), chosen)
    scores = inputs.double().cpu().numpy() @ direction
    lowest, highest = scores[chosen].min(), np.delete(scores, chosen).max()
    if lowest <= highest:
        raise ValueError(f"tokens: no single neuron tells these {len(chosen)} from all others; name fewer")
    slope = (fire + silence) / (lowest - highest)
    mlp.dense_h_to_4h.weight[number] = torch.from_numpy(slope * direction).to(embedding)
    mlp.dense_h_to_4h.bias[number] = -slope * highest - silence
    mlp.dense_4h_to_h.weight[:, number] = effect.to(embedding)
    activation = mlp.act(mlp.dense_h_to_4h(inputs))[:, number]
    others = torch.ones(len(activation), dtype=torch.bool, device=activation.device)
    others[chosen] = False
    if activation[others].any() or not (activation[chosen] > 0).all():
        raise ValueError(f"silence: {silence} leaves the neuron active on other tokens; give more")
    return Planted(neuron, tuple(chosen), activation.clone())


@torch.no_grad()
def towards(model: nn.Module, tokens: Sequence[int]) -> Tensor:
    """An effect that makes the next token one of `tokens`: their mean row of the output embedding less that of all.

    Returns:
        [hidden], of length 1. The blocks after it and the last LayerNorm act on it too, so that its effect on
        the logits is no constant.
    """
    rows = model.get_output_embeddings().weight  # type: ignore[operator]
    direction = rows[list(tokens)].mean(dim=0) - rows.mean(dim=0)
    return direction / direction.norm()


def _separator(inputs: NDArray[np.float64], chosen: list[int]) -> NDArray[np.float64]:
    """A direction along which the chosen rows lie above all others, if there is one: a hard-margin SVM, nearly."""
    member = np.zeros(len(inputs), np.int64)
    member[chosen] = 1
    machine = LinearSVC(C=100.0, class_weight="balanced", dual=False, tol=1e-4, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller sees for itself whether it separates
        return machine.fit(inputs, member).coef_[0]

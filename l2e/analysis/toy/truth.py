"""The Monosemanticity Score where the truth is known: MS, l* and FKR of toy neurons against r_i (S01)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2e.analysis.scores import (
    class_scores,
    ks_statistic,
    monosemanticity_scores,
    relatively_monosemantic_feature,
)
from l2e.analysis.toy.features import densities, generator, sparse_features
from l2e.analysis.toy.measures import MONOSEMANTIC
from l2e.analysis.toy.model import activate
from l2e.analysis.toy.results import ToyResult

Numbers = NDArray[np.float64]

DETECTORS = {
    "phi_l*": "MS of the relatively monosemantic feature",
    "K-S": "distance between the scores of l* and all scores (L08)",
    "kurtosis": "mean of the squared score, without any labels",
    "hits": "share of the neuron's values among the top 2% of all scores",
    "hits, active": "share of its values above 0 that are among them",
}
"""What could tell a monosemantic neuron without knowing the features: names and descriptions.

phi_{l*} over the mean score of the other labels is none of them: with labels of one size it ranks neurons as phi_{l*}
does, since a neuron's phi_l sum up to the same for all.
"""

TOP = 0.02


@dataclass(frozen=True)
class Labelled:
    """Hidden values with known features.

    Attributes:
        values: h, [samples, neurons]. labels: the feature that was put in, [samples].
        features: all that were there, [samples, features].
    """

    values: Tensor
    labels: Tensor
    features: Tensor


@dataclass(frozen=True)
class Judged:
    """Neurons that answer to any feature at all: the truth, and what the scores say. Each [neurons].

    Attributes:
        r: r_i (J07). answers_to: the feature with the largest h_i(F_j). star: l* (L05).
        detectors: by name of `DETECTORS`.
    """

    r: Numbers
    answers_to: NDArray[np.int64]
    star: NDArray[np.int64]
    detectors: dict[str, Numbers]

    @property
    def monosemantic(self) -> NDArray[np.bool_]:
        """r_i > 0.999 (J08)."""
        return self.r > MONOSEMANTIC


def labelled_values(result: ToyResult, per_feature: int = 64) -> Labelled:
    """Samples as in training, in which one feature, the label, has been put in; each as often as any other.

    Args:
        result: a run of the decoder or the re-projector.
        per_feature: samples of each label.

    Raises:
        ValueError: the absolute value, whose features have a sign.
    """
    run = result.run
    if run.task == "absolute":
        raise ValueError("samples of the absolute value have no one label: a feature may be there with either sign")
    random = generator("cpu", "labelled", run.seed)
    labels = torch.arange(run.features).repeat_interleave(per_feature)
    uniform = torch.rand(len(labels), run.features, generator=random)
    features = sparse_features(uniform, densities(run.features, run.density, run.distribution))
    put_in = 1 - torch.rand(len(labels), generator=random)  # in (0, 1]: the feature is there
    features[torch.arange(len(labels)), labels] = put_in
    hidden = activate(features @ result.projection @ result.weight_in + result.bias, run.activation)
    return Labelled(hidden, labels, features)


def alive(result: ToyResult) -> Tensor:
    """Neurons that any feature alone excites, [neurons] bool; the others have no r_i to speak of."""
    return (result.responses() > 0).any(0)


def judge(result: ToyResult, data: Labelled) -> Judged:
    """Truth and scores of the neurons that are alive."""
    chosen = alive(result)
    responses, values = result.responses()[:, chosen], data.values[:, chosen]
    star = torch.as_tensor(relatively_monosemantic_feature(values, data.labels))
    best = torch.as_tensor(class_scores(values, data.labels)).gather(0, star[None])[0]
    hits, active = _selected(values, TOP), values > 0
    found = {
        "phi_l*": best,
        "K-S": torch.as_tensor(ks_statistic(values, data.labels)),
        "kurtosis": torch.as_tensor(monosemanticity_scores(values)).square().mean(0),
        "hits": hits.double().mean(0),
        "hits, active": (hits & active).sum(0) / active.sum(0).clamp(min=1),
    }
    return Judged(
        r=result.monosemanticity()[chosen].double().numpy(),
        answers_to=responses.argmax(0).numpy(),
        star=star.numpy(),
        detectors={name: found[name].double().numpy() for name in DETECTORS},
    )


def killed(data: Labelled, judged: Judged, chosen: Tensor, rate: float) -> tuple[float, float]:
    """False killing among the monosemantic neurons at one threshold over all neurons that are alive (L10).

    Args:
        data: labelled values of all neurons.
        judged: of those that are alive.
        chosen: which these are, [neurons] bool.
        rate: selected share of all values.

    Returns:
        Of the selected values of neurons with r_i > 0.999 the share outside l*, as FKR counts, and the share in whose
        sample the feature that the neuron answers to is not there at all. NaN when none is selected.
    """
    mono = torch.as_tensor(judged.monosemantic)
    selected = _selected(data.values[:, chosen], rate)[:, mono]
    outside = data.labels[:, None] != torch.as_tensor(judged.star)[mono]
    absent = data.features[:, torch.as_tensor(judged.answers_to)[mono]] == 0
    total = selected.sum()
    return float((selected & outside).sum() / total), float((selected & absent).sum() / total)


def roc(scores: Numbers, positive: NDArray[np.bool_]) -> tuple[Numbers, Numbers, float]:
    """Receiver operating characteristic of a score, thresholds from high to low.

    Args:
        scores: [n].
        positive: the truth, [n].

    Returns:
        False positive rates and true positive rates, from (0, 0) to (1, 1), ties as one step; and the area below,
        which is the chance that a positive scores higher than a negative, ties as one half. NaN without either.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(positive[order])[last]
    misses = np.cumsum(~positive[order])[last]
    if not positive.any() or positive.all():
        return np.array([0.0, 1.0]), np.array([0.0, 1.0]), float("nan")
    true, false = np.append(0, hits) / hits[-1], np.append(0, misses) / misses[-1]
    return false, true, float(np.trapezoid(true, false))


def _selected(values: Tensor, rate: float) -> Tensor:
    """Values whose score is among the highest of all, [samples, neurons] bool."""
    scores = torch.as_tensor(monosemanticity_scores(values))
    count = max(1, round(rate * scores.numel()))
    return scores >= scores.flatten().topk(count).values[-1]

"""Sparse features, their projections and the three tasks (J01-J04, J06), for runs side by side."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from l2e.analysis.toy.config import ToyRun

POWER = 1.1
"""Exponent of the power law (J01)."""


def generator(device: torch.device | str, *names: object) -> torch.Generator:
    """Random numbers that are a function of these names alone, so that a resumed run draws the same."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest) >> 1)


def densities(features: int, density: float, distribution: str) -> Tensor:
    """Probability that each feature is there, [features] (J01).

    Args:
        features: N.
        density: mean probability, before a power law's is clipped at 1.
        distribution: "uniform" or "power_law".
    """
    if distribution == "uniform":
        return torch.full((features,), density)
    weights = torch.arange(1, features + 1, dtype=torch.float64) ** -POWER
    return (weights * (features * density / weights.sum())).clamp(max=1).float()


def sparse_features(uniform: Tensor, density: Tensor) -> Tensor:
    """Features from uniform numbers: 0 with probability 1 - density, else uniform in [0, 1] (J01).

    Given that a uniform number lies in the uppermost part of [0, 1], as wide as the density, its place there is
    uniform again: one random number does for both draws.

    Args:
        uniform: in [0, 1), [batch, features].
        density: [features].
    """
    return ((uniform - (1 - density)) / density).clamp_(min=0)


def unit_projection(features: int, inputs: int, random: torch.Generator) -> Tensor:
    """Left singular vectors of a Gaussian matrix with rows of length 1, [features, inputs] (J06)."""
    return unit_rows(torch.randn(features, inputs, generator=random, dtype=torch.float64)).float()


def unit_rows(matrix: Tensor) -> Tensor:
    """The left singular vectors of a matrix [features, inputs], each row scaled to length 1 (J06)."""
    rows = torch.linalg.svd(matrix, full_matrices=False)[0]
    return rows / rows.norm(dim=1, keepdim=True)


class Task:
    """Inputs and targets for runs of one shape.

    Runs that agree in seed, density and distribution see the same features, and runs of one seed have the same
    projections, so that what differs between two runs is what their settings say.

    Attributes:
        projection: P of each run, [runs, features, inputs]; x = f P.
        second: Q of each run likewise, for the re-projector; None for other tasks.
    """

    def __init__(self, runs: Sequence[ToyRun], device: torch.device | str = "cpu") -> None:
        first = runs[0]
        self.kind, self.device = first.task, torch.device(device)
        self.size = (first.batch_size, first.features)
        self.projection = torch.stack([self._projection(run, "projection") for run in runs])
        self.second = None
        if self.kind == "reprojector":
            self.second = torch.stack([self._projection(run, "second projection") for run in runs])
        keys = [(run.seed, run.density, run.distribution) for run in runs]
        self._streams = list(dict.fromkeys(keys))
        self._stream_of = torch.tensor([self._streams.index(key) for key in keys], device=self.device)
        halved = 2 if self.kind == "absolute" else 1  # two draws double the density
        self._densities = [densities(first.features, eps / halved, kind).to(device) for _, eps, kind in self._streams]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs [runs, batch, inputs] and targets [runs, batch, outputs] of a step."""
        drawn = [
            self._draw(seed, density, step) for (seed, *_), density in zip(self._streams, self._densities, strict=True)
        ]
        features = torch.stack(drawn)[self._stream_of]
        return torch.bmm(features, self.projection), self.target(features)

    def target(self, features: Tensor) -> Tensor:
        """What the model is to give for features [runs, batch, features]."""
        if self.second is not None:
            return torch.bmm(features, self.second)
        return features.abs() if self.kind == "absolute" else features

    def _draw(self, seed: int, density: Tensor, step: int) -> Tensor:
        random = generator(self.device, "features", seed, step)
        found = sparse_features(torch.rand(self.size, generator=random, device=self.device), density)
        if self.kind == "absolute":
            found -= sparse_features(torch.rand(self.size, generator=random, device=self.device), density)
        return found

    def _projection(self, run: ToyRun, name: str) -> Tensor:
        return unit_projection(run.features, run.inputs, generator("cpu", name, run.seed)).to(self.device)

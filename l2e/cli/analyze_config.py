"""Settings of scripts/analyze.py."""

from dataclasses import dataclass, field
from typing import Any

from l2e.analysis.activation_settings import ActivationSettings
from l2e.analysis.feature_settings import FeatureSettings
from l2e.cli.analysis_kinds import KINDS, Kind
from l2e.errors import UserError
from l2e.settings import build_settings


@dataclass(kw_only=True)
class AnalyzeConfig:
    """Which analysis of which models on which texts."""

    models: str | list[str]
    """Run directories (the last export, or runs/a@1000), folders, or names on the hub (name@revision)."""

    features: dict[str, Any]
    """Name of a set of labelled texts to its FeatureSettings."""

    analysis: dict[str, Any]
    """`kind`, and the settings of that kind."""

    output: str
    """Folder of figures/, tables/ and index.html; analyses made there are collected."""

    activations: ActivationSettings = field(default_factory=ActivationSettings)
    """Which values of the models, and in how much memory they are collected."""

    cache_dir: str = "cache"
    """Where activations and built-in worlds are kept."""

    offline: bool = False
    """Ask no hub for anything."""

    def __post_init__(self) -> None:
        choose(self.analysis)
        _ = self.feature_sets

    @property
    def feature_sets(self) -> dict[str, FeatureSettings]:
        """The settings of each set of labelled texts, by its name."""
        return {name: build_settings(FeatureSettings, held, f"features.{name}") for name, held in self.features.items()}


def choose(analysis: dict[str, Any]) -> tuple[str, Kind, Any]:
    """The kind's name, the kind and its settings.

    Raises:
        UserError: no such kind, or settings that it does not have.
    """
    given = dict(analysis)
    name = given.pop("kind", None)
    if name not in KINDS:
        raise UserError(f"analysis: {name!r} is no kind of analysis; there are {', '.join(KINDS)}")
    return name, KINDS[name], build_settings(KINDS[name].settings, given, "analysis")

"""What analyses work on: sets of texts and models, opened when they are first asked for."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from l2e.analysis.feature_settings import FeatureSettings
from l2e.analysis.features import TextFeatures, build_features
from l2e.analysis.models import ModelSubject, load_tokenizer, require_same_tokenizer
from l2e.analysis.request import Request
from l2e.analysis.subjects import Subject
from l2e.cli.analysis_models import NamedModel, fetch
from l2e.cli.analyze_config import AnalyzeConfig
from l2e.data.corpus import world_folder
from l2e.errors import UserError


class Material:
    """The sets of texts and the models of one command; each set is read once, each model fetched once.

    Args:
        config: of the command.
        sets: name to settings of each set of texts.
        models: as found.
        device: of the models.
    """

    def __init__(
        self,
        config: AnalyzeConfig,
        sets: dict[str, FeatureSettings],
        models: Sequence[NamedModel],
        device: torch.device,
    ) -> None:
        self._config = config
        self._sets = sets
        self._models = models
        self._device = device
        self._cache_dir = Path(config.cache_dir)
        self._read: dict[str, TextFeatures] = {}

    def requests(self, settings: Any, each: bool) -> dict[str | None, Request]:
        """One request for each set of texts under its name, or one for all under None."""
        groups: dict[str | None, list[str]] = {name: [name] for name in self._sets} if each else {None: [*self._sets]}
        runs = [model.run for model in self._models if model.run is not None]

        def request(names: list[str]) -> Request:
            return Request(settings, lambda: [self._features(name) for name in names], self._subjects, runs)

        return {group: request(names) for group, names in groups.items()}

    def _features(self, name: str) -> TextFeatures:
        if name not in self._read:
            settings = self._sets[name]
            self._read[name] = build_features(name, settings, self._tokenizer(name), self._cache_dir)
        return self._read[name]

    def _subjects(self, features: TextFeatures) -> list[Subject]:
        tokenizer = self._tokenizer(features.name)
        for model, folder in zip(self._models, self._folders, strict=True):
            require_same_tokenizer(folder, tokenizer, f"models: {model.given}", f"features.{features.name}")
        return [
            ModelSubject(
                model.name, folder, features, self._config.activations, self._cache_dir / "activations", self._device
            )
            for model, folder in zip(self._models, self._folders, strict=True)
        ]

    @cached_property
    def _folders(self) -> list[Path]:
        return [fetch(model) for model in self._models]

    def _tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        """The one that the settings name, else the world's own, else the first model's."""
        settings, key = self._sets[name], f"features.{name}.tokenizer"
        if settings.tokenizer is not None:
            return load_tokenizer(settings.tokenizer, key)
        if settings.kind == "builtin":
            return load_tokenizer(str(world_folder(settings.world, self._cache_dir) / "tokenizer"), key)
        if not self._folders:
            raise UserError(f"{key}: a folder or a name on the hub is required where no model is named")
        return load_tokenizer(str(self._folders[0]), f"models: {self._models[0].given}")

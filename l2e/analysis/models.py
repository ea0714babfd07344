"""Models under analysis: folders of weights, and what their neurons answered to a feature set."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from l2e.analysis.activation_settings import ActivationSettings
from l2e.analysis.activations import collected
from l2e.analysis.features import TextFeatures
from l2e.analysis.subjects import Activations
from l2e.errors import UserError
from l2e.models import DTYPES


class ModelSubject:
    """A folder of weights, asked about one feature set (`l2e.analysis.subjects.Subject`).

    Args:
        name: for figures and tables.
        folder: with config.json and weights.
        features: what it is asked.
        settings: which of its values.
        store: folder of all stored activations.
        device: of the model.

    Attributes:
        name, folder: as given.
        config: of the model.
        parameters: embeddings included.

    Raises:
        UserError: no GPT-NeoX model, or fp16 where the device has none.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        features: TextFeatures,
        settings: ActivationSettings,
        store: Path,
        device: torch.device,
    ) -> None:
        self.name = name
        self.folder = folder
        self._features = features
        self._settings = settings
        self._store = store
        self._device = device
        self.config = _neox_config(folder)
        with torch.device("meta"):
            self.parameters: int = AutoModelForCausalLM.from_config(self.config).num_parameters()
        if settings.precision == "fp16" and device.type == "cpu":
            raise UserError("activations.precision: fp16 needs a GPU; on a CPU take fp32 or bf16")

    def activations(self) -> Activations:
        """Collected on the first call, then read from disk; within a process group every rank must make that call."""
        return self._activations

    @cached_property
    def _activations(self) -> Activations:
        return collected(self.name, self.folder, self.config, self.load, self._features, self._settings, self._store)

    def load(self) -> nn.Module:
        """The GPTNeoXForCausalLM, in evaluation mode, on the device of the analysis."""
        try:
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=DTYPES[self._settings.precision])
        except (OSError, ValueError) as error:
            raise UserError(f"models: {self.folder} could not be loaded ({str(error).splitlines()[0]})") from None
        return model.to(self._device).eval()


def load_tokenizer(place: str, key: str) -> PreTrainedTokenizerBase:
    """From a folder, or by its name on the hub.

    Args:
        place: either.
        key: of the settings, for messages.

    Raises:
        UserError: there is none.
    """
    local = Path(place).exists()
    try:
        return AutoTokenizer.from_pretrained(place, local_files_only=local)
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {place} gave no tokenizer ({str(error).strip().splitlines()[0]})") from None


def require_same_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, model: str, texts: str) -> None:
    """Refuse a model whose tokens mean something else than those of the texts.

    Args:
        folder: of the model.
        tokenizer: of the texts.
        model: key of it in the settings, for messages.
        texts: key of them in the settings, for messages.

    Raises:
        UserError: vocabulary, merges or the cutting into words differ.
    """
    if _meaning(load_tokenizer(str(folder), model)) != _meaning(tokenizer):
        raise UserError(
            f"{model} has another tokenizer than {texts}; models of several tokenizers need a call each, and the "
            f"built-in world must be the run's own (features.builtin.world as in its data.world)"
        )


def _meaning(tokenizer: PreTrainedTokenizerBase) -> Any:
    held = json.loads(tokenizer.backend_tokenizer.to_str())
    return held["model"].get("vocab"), held["model"].get("merges"), held["normalizer"], held["pre_tokenizer"]


def _neox_config(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"models: {folder} has no readable config.json ({str(error).splitlines()[0]})") from None
    if config.model_type != "gpt_neox":
        raise UserError(f"models: {folder} holds a {config.model_type}; analyses read GPT-NeoX models (Pythia)")
    return config

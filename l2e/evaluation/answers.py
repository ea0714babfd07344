"""Kept answers: a model is asked the same questions once, whoever asks."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.utils import handle_non_serializable

from l2e.evaluation.harness import LanguageModel, Questions
from l2e.files import write_atomically
from l2e.models import packed


class AnswerCache:
    """One file for each model and set of questions, under `folder`.

    A file is found by what decides its numbers: the weights, the model's config and precision, the tokenizer, the
    length that the model sees, lm-eval's version, and everything that is asked (prompts with their examples,
    choices, right answers, versions of the tasks). The batch size is not part of it.

    Args:
        folder: where the files lie; null keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, model: str, questions: Questions) -> Path | None:
        """Where the answers of a model (`model_identity`) to these questions lie."""
        if self.folder is None:
            return None
        asked = _digest([questions.name, questions.shots, lm_eval.__version__, questions.identity()])
        return self.folder / f"{_digest([model, asked])}.json"

    def read(self, path: Path | None) -> dict[str, Any] | None:
        """lm-eval's results with the lines of their items; None where they are not kept, or not readable."""
        if path is None or not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return None

    def keep(self, path: Path | None, raw: dict[str, Any]) -> None:
        """Write them in one step."""
        if path is not None:
            write_atomically(path, json.dumps(raw, ensure_ascii=False, default=handle_non_serializable))


def model_identity(model: LanguageModel, inhibition: Mapping[str, Any] | None = None) -> str:
    """Hash of all about a model that decides its answers, `inhibition` being the state of one that acts on it."""
    config = model.model.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(json.dumps([model.max_length, model.tokenizer.backend_tokenizer.to_str()]).encode())
    for name, weight in sorted(model.model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    for name, content in packed(inhibition).items() if inhibition is not None else ():
        digest.update(f"{name} {len(content)}".encode() + content)
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=handle_non_serializable).encode()).hexdigest()

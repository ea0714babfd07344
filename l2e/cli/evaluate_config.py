"""Settings of scripts/evaluate.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from l2e.errors import UserError
from l2e.evaluation.config import EvaluationConfig


@dataclass(kw_only=True)
class EvaluateConfig:
    """What is evaluated, on what, and where the results go."""

    path: str | None = None
    """A run directory, a folder with model and tokenizer, or a model's name on the hub. May be null for a reference."""

    reference: str | None = None
    """Public checkpoint whose published accuracies this evaluation is held against, e.g. pythia-70m-deduped; with
    `path` null it comes from the hub."""

    revision: str | None = None
    """Branch, tag or commit of a model on the hub, e.g. step13000."""

    checkpoints: list[int] | Literal["all"] | None = None
    """Exports of a run: `all`, or updates; null: those that its settings ask for, the last one at least."""

    cache_dir: str = "cache"
    """Where answers are kept, so that no model is asked the same twice; a run has its own."""

    output: str | None
    """Folder of the results; null for a run directory, which keeps its own, or a reference: in cache_dir."""

    offline: bool
    """Ask no hub for anything."""

    evaluation: EvaluationConfig
    """For a run directory its own settings, but for those that the command line gives (`evaluation=...`: all)."""

    @property
    def place(self) -> str:
        """The path, given or of the reference."""
        if self.path is None and self.reference is None:
            raise UserError("path: a value is required, give path=... (or reference=...) on the command line")
        return self.path if self.path is not None else f"EleutherAI/{self.reference}"

    @property
    def results(self) -> Path:
        """Where those of a model go."""
        if self.output is not None:
            return Path(self.output)
        if self.reference is None:
            raise UserError("output: a value is required for a model, give output=... on the command line")
        return Path(self.cache_dir) / "reference" / self.reference

"""Settings of scripts/prepare.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from l2e.data.config import DataConfig
from l2e.evaluation.config import EvaluationConfig

PartName = Literal["tokenizer", "rows", "shards", "evaluation"]


@dataclass(kw_only=True)
class PrepareConfig:
    """What is shown, fetched or verified, and of which data."""

    show: Literal["rows"] | None
    """`rows`: print the decoded rows of update `step`."""

    fetch: Literal["all"] | PartName | list[PartName] | None
    """`tokenizer`, `rows` (those of `steps` updates from `step` on), `shards` (the whole files in place of rows) and
    `evaluation` (the items of `evaluation.tasks`), one or a list; `all`: tokenizer, rows, evaluation."""

    plan: bool
    """Print what would be fetched, and stop."""

    verify: bool
    """Read all again that was fetched into the folder, after a fetch or alone."""

    step: int
    """Update, counted from 0."""

    steps: int
    """Updates to fetch."""

    count: int
    """Rows to print."""

    batch_size: int
    """Rows of an update."""

    seq_length: int
    """Targets of a row."""

    vocab_size: int
    """Rows of the model's embedding."""

    seed: int
    """Of the order of rows, where the data has one."""

    folder: str | None
    """Where what is fetched goes; null: `cache_dir`."""

    cache_dir: str
    """Where tokenised data is kept, and what is fetched if no folder is given."""

    offline: bool
    """Ask no server for anything."""

    data: DataConfig
    evaluation: EvaluationConfig

    def __post_init__(self) -> None:
        given = [f"show={self.show}"] * bool(self.show) + [f"fetch={self.fetch}"] * bool(self.fetch)
        if len(given) > 1 or not (given or self.verify) or (self.show and self.verify):
            raise ValueError(
                "give one of show=rows, fetch=all (or rows, shards, tokenizer, evaluation, or a list) and verify=true"
            )
        if self.plan and not self.fetch:
            raise ValueError("plan=true needs fetch=..., which says of what")
        if self.fetch and self.offline:
            raise ValueError("fetch needs the network that offline=true forbids; give one of them")
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"fetch: each part once, not {', '.join(self.parts)}")
        if {"rows", "shards"} <= set(self.parts):
            raise ValueError("fetch: rows or shards (whole files), not both")
        for key in ("steps", "count", "batch_size", "seq_length"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, not {getattr(self, key)}")
        if self.step < 0:
            raise ValueError(f"step must be at least 0, not {self.step}")

    @property
    def place(self) -> Path:
        """Where what is fetched lies."""
        return Path(self.folder or self.cache_dir)

    @property
    def parts(self) -> list[PartName]:
        """What is fetched, in this order."""
        if self.fetch is None:
            return []
        if self.fetch == "all":
            return ["tokenizer", "rows", "evaluation"] if self.evaluation.enabled else ["tokenizer", "rows"]
        return [self.fetch] if isinstance(self.fetch, str) else list(self.fetch)

    @property
    def rows(self) -> range:
        """Rows of the updates that are fetched."""
        return range(self.step * self.batch_size, (self.step + self.steps) * self.batch_size)

"""Settings of one set of labelled texts."""

from dataclasses import dataclass, field
from typing import Literal

from l2e.data.builtin import WorldSettings


@dataclass(kw_only=True)
class FeatureSettings:
    """Where labelled texts come from, and how they become sequences of tokens (method.md section 3)."""

    kind: Literal["jsonl", "hf", "builtin"] = "jsonl"
    """Files of JSON lines (also .zst, .gz), a Hugging Face dataset, or the built-in world's own passages."""

    path: str | None = None
    """The file or a glob; a dataset's name on the hub, or the folder of a saved one."""

    text_field: str = "text"
    """Field, or column, of the text."""

    label_field: str = "label"
    """Field, or column, of the label: a string or a whole number."""

    labels: list[str] | None = None
    """Only texts with these labels, which then stand in this order; null: all, sorted."""

    per_label: int | None = None
    """At most so many texts of each label, the first; null: all."""

    subset: str | None = None
    """Configuration of the dataset (hf)."""

    split: str = "train"
    """Of the dataset (hf)."""

    revision: str | None = None
    """Branch, tag or commit on the hub (hf)."""

    world: WorldSettings = field(default_factory=WorldSettings)
    """Which world (builtin); as in the run that is analysed."""

    tokenizer: str | None = None
    """Folder of a Hugging Face tokenizer, or its name on the hub; null: that of the first model, or the world's."""

    window: int = 512
    """Tokens of a sequence: the end-of-document token, then at most one token less of the text."""

    ignore_first_k: int = 1
    """Positions at the start that do not count, the end-of-document token's among them."""

    least_valid: int = 1
    """Valid positions that a sequence must have; it is dropped if it has fewer."""

    seed: int = 0
    """Of the place of the window in a longer text."""

    def __post_init__(self) -> None:
        if (self.path is None) != (self.kind == "builtin"):
            raise ValueError("path: the built-in world has none" if self.path else "path: a value is required")
        if self.kind != "hf" and (self.subset or self.revision or self.split != "train"):
            raise ValueError("subset, split and revision need kind: hf")
        if self.window < 2:
            raise ValueError(f"window must be at least 2, not {self.window}")
        if not 0 <= self.ignore_first_k < self.window:
            raise ValueError(f"ignore_first_k must lie in 0 to {self.window - 1}, not {self.ignore_first_k}")
        if not 1 <= self.least_valid <= self.window - self.ignore_first_k:
            most = self.window - self.ignore_first_k
            raise ValueError(f"least_valid must lie in 1 to window - ignore_first_k, {most}, not {self.least_valid}")
        if self.per_label is not None and self.per_label < 1:
            raise ValueError(f"per_label must be at least 1, not {self.per_label}")
        if self.labels is not None and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ValueError(f"labels must be at least two, each once, not {self.labels}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")

"""Settings of the training text."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from l2e.data.builtin.settings import WorldSettings


@dataclass(kw_only=True)
class BuiltinDataConfig:
    """The built-in world: generated, so that nothing needs to be downloaded."""

    kind: Literal["builtin"]

    name: str = "builtin"
    """Short name, for the run's name."""

    seed: int = 1234
    """Of the order of rows; the world has its own."""

    world: WorldSettings = field(default_factory=WorldSettings)
    """What is generated."""


@dataclass(kw_only=True)
class TextDataConfig:
    """Documents in local JSONL or JSONL.zst files, one {"text": ...} a line."""

    kind: Literal["text"]

    name: str = "text"
    """Short name, for the run's name."""

    path: str
    """Folder that the other names are relative to."""

    train: str | list[str] = "train.jsonl"
    """Training files."""

    validation: str | list[str] | None = "validation.jsonl"
    """Files of the validation loss; null for none."""

    tokenizer: str = "tokenizer"
    """Folder of a Hugging Face tokenizer."""

    seed: int = 1234
    """Of the order of rows."""


DataConfig = Annotated[BuiltinDataConfig | TextDataConfig, Field(discriminator="kind")]

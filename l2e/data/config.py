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


@dataclass(kw_only=True)
class PileDataConfig:
    """Pythia's own rows in Pythia's own order: the preshuffled Pile as published (pythia.md D.5)."""

    kind: Literal["pile"]

    name: str = "pile_deduped"
    """Short name, for the run's name."""

    path: str
    """Where the files document-00000-of-00020.bin and on lie: a folder, an https:// folder or hf://datasets/..."""

    row_length: int = 2049
    """Tokens of a row; training.seq_length is one less."""

    last_index: int = 20
    """Number after "of" in the files' names, where they are remote; a local folder tells it itself."""

    tokenizer: str = "EleutherAI/pythia-70m-deduped"
    """Folder of a Hugging Face tokenizer, or its name on the hub; the rows are tokens already."""

    cache_gib: float = 64.0
    """Bound of what is kept on disk of a remote set; 14,300 updates read 60 GB."""


@dataclass(kw_only=True)
class DocumentDataConfig:
    """Tokenised documents in a Megatron .idx/.bin pair, in GPT-NeoX's order (pythia.md D.5)."""

    kind: Literal["documents"]

    name: str = "documents"
    """Short name, for the run's name."""

    path: str
    """The pair, without .idx and .bin."""

    tokenizer: str
    """Folder of the Hugging Face tokenizer that made them, or its name on the hub."""

    samples: int
    """Rows that GPT-NeoX would be asked for, ceil(1.005 x train-iters x batch): with them it shuffles as many
    epochs together. Pythia's is 147,164,160."""

    seed: int = 1234
    """Of the order."""


DataConfig = Annotated[
    BuiltinDataConfig | TextDataConfig | PileDataConfig | DocumentDataConfig, Field(discriminator="kind")
]

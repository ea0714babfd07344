"""Settings of the training text."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

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
class TextSource:
    """Documents of one origin: local files, or a Hugging Face dataset."""

    source: str
    """File, glob or saved dataset, relative to data.path; with `kind: hf` also a folder of data files or a name on
    the hub."""

    weight: float = 1.0
    """Rows of this source to those of the others, in any unit."""

    kind: Literal["auto", "jsonl", "parquet", "text", "hf"] = "auto"
    """auto: by the ending; the hub is only asked with hf."""

    text_field: str | None = None
    """Field or column of the text; null: data.text_field."""

    subset: str | None = None
    """Configuration of the dataset (hf)."""

    split: str = "train"
    """Of the dataset (hf)."""

    revision: str | None = None
    """Branch, tag or commit on the hub (hf)."""

    streaming: bool = False
    """Read over the network without storing the dataset (hf)."""

    max_documents: int | None = None
    """Take the first so many; null: all."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight of {self.source} must be a positive number, not {self.weight}")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"max_documents of {self.source} must be at least 1, not {self.max_documents}")
        if self.kind in ("jsonl", "parquet", "text") and (self.subset or self.revision or self.streaming):
            raise ValueError(f"subset, revision and streaming need kind: hf; {self.source} has kind: {self.kind}")


def _shape(value: Any) -> str:
    """Which branch of the unions below is meant, so that only its errors are told."""
    return "plain" if isinstance(value, str) else "several" if isinstance(value, list) else "mapping"


_Plain = Annotated[str, Tag("plain")]
_Mapping = Annotated[TextSource, Tag("mapping")]
_Entry = Annotated[_Plain | _Mapping, Discriminator(_shape)]
TextSources = Annotated[_Plain | _Mapping | Annotated[list[_Entry], Tag("several")], Discriminator(_shape)]


@dataclass(kw_only=True)
class TextDataConfig:
    """Documents in local files or Hugging Face datasets, tokenised on first use."""

    kind: Literal["text"]

    name: str = "text"
    """Short name, for the run's name."""

    path: str
    """Folder that the other names are relative to."""

    train: TextSources = "train.jsonl"
    """Training files, as one corpus; with mappings among them (see TextSource) each entry is a source of its own,
    and rows are mixed by weight."""

    validation: TextSources | None = "validation.jsonl"
    """The same for the validation loss, without weights; null for none."""

    tokenizer: str = "tokenizer"
    """Folder of a Hugging Face tokenizer."""

    text_field: str = "text"
    """Field of the JSON objects, column of the tables."""

    workers: int | None = None
    """Threads that tokenise; null: as many as this process has CPUs."""

    seed: int = 1234
    """Of the order of rows."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")


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

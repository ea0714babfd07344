"""From data settings to rows of tokens, a tokenizer and evaluation items."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from l2e.data.builtin import WorldSettings, write_world
from l2e.data.config import BuiltinDataConfig, DataConfig, DocumentDataConfig, PileDataConfig, TextDataConfig
from l2e.data.document_order import DocumentRows
from l2e.data.megatron_files import MegatronFile
from l2e.data.mixture import MixedRows
from l2e.data.rows import PackedRows, ShuffledRows, TrainingRows
from l2e.data.shards import PileShards
from l2e.data.text import open_text
from l2e.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """All that a run takes from its data.

    Attributes:
        train: endless rows in training order.
        validation: rows of the validation loss; None when there are none.
        tokenizer: its `eos_token_id` stands between documents.
        items: folder of multiple-choice items that come with the data; None when none do.
    """

    train: TrainingRows
    validation: PackedRows | None
    tokenizer: PreTrainedTokenizerBase
    items: Path | None

    @property
    def rows(self) -> int | None:
        """How many training rows there are; None where they begin anew after the last."""
        return None if isinstance(self.train, ShuffledRows | MixedRows) else len(self.train)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the training data and its order."""
        return self.train.fingerprint()


def open_corpus(
    config: DataConfig, *, seq_length: int, vocab_size: int, cache_dir: Path, offline: bool = False
) -> Corpus:
    """Open the data, generating and tokenising on first use.

    Args:
        config: built-in world, text, the preshuffled Pile, or documents in Megatron's files.
        seq_length: targets per row.
        vocab_size: rows of the model's embedding.
        cache_dir: where generated, tokenised and fetched data is kept.
        offline: ask no server.

    Raises:
        UserError: missing or damaged files, too little text, a tokenizer that the model has no room for.
    """
    if isinstance(config, BuiltinDataConfig):
        return _open_world(config, seq_length, vocab_size, cache_dir)
    if isinstance(config, PileDataConfig):
        return _open_pile(config, seq_length, vocab_size, cache_dir, offline)
    if isinstance(config, DocumentDataConfig):
        file = MegatronFile(Path(config.path))
        rows = DocumentRows(file, seq_length, cache_dir, num_samples=config.samples, seed=config.seed)
        return Corpus(train=rows, validation=None, tokenizer=open_tokenizer(config, vocab_size, cache_dir), items=None)
    return _open_text(config, seq_length, vocab_size, cache_dir)


def open_tokenizer(config: DataConfig, vocab_size: int, cache_dir: Path) -> PreTrainedTokenizerBase:
    """The tokenizer alone; texts and rows may be out of reach.

    Args:
        config: as of `open_corpus`. A built-in world is generated on first use.
        vocab_size: rows of the model's embedding.
        cache_dir: where generated data is kept.

    Raises:
        UserError: no tokenizer there, or one that the model has no room for.
    """
    if isinstance(config, BuiltinDataConfig):
        return _load_tokenizer(world_folder(config.world, cache_dir) / "tokenizer", vocab_size)
    if isinstance(config, TextDataConfig):
        return _load_tokenizer(Path(config.path) / config.tokenizer, vocab_size)
    return _load_tokenizer(config.tokenizer, vocab_size)


def _open_world(config: BuiltinDataConfig, seq_length: int, vocab_size: int, cache_dir: Path) -> Corpus:
    """The built-in world is written as real data would be, and then read the same way."""
    folder = world_folder(config.world, cache_dir)
    text = TextDataConfig(kind="text", path=str(folder), seed=config.seed)
    return _open_text(text, seq_length, vocab_size, cache_dir, items=folder / "eval")


def world_folder(world: WorldSettings, cache_dir: Path) -> Path:
    """Where the world of these settings stands; it is written there on first use."""
    key = hashlib.sha256(json.dumps(asdict(world), sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir / "worlds" / key
    write_world(folder, world)
    return folder


def _open_text(
    config: TextDataConfig, seq_length: int, vocab_size: int, cache_dir: Path, items: Path | None = None
) -> Corpus:
    root = Path(config.path)
    if not root.is_dir():
        raise UserError(f"data.path: there is no folder {root}")
    tokenizer = open_tokenizer(config, vocab_size, cache_dir)
    train, validation = open_text(config, tokenizer, seq_length, cache_dir)
    return Corpus(train=train, validation=validation, tokenizer=tokenizer, items=items)


def _open_pile(config: PileDataConfig, seq_length: int, vocab_size: int, cache_dir: Path, offline: bool) -> Corpus:
    if seq_length != config.row_length - 1:
        raise UserError(
            f"training.seq_length: the rows of {config.path} have {config.row_length - 1} targets, not {seq_length}"
        )
    rows = open_shards(config, cache_dir, offline)
    return Corpus(train=rows, validation=None, tokenizer=open_tokenizer(config, vocab_size, cache_dir), items=None)


def open_shards(config: PileDataConfig, cache_dir: Path, offline: bool = False) -> PileShards:
    """The published rows alone."""
    return PileShards(
        config.path,
        config.row_length,
        cache_dir=cache_dir,
        cache_bytes=int(config.cache_gib * 2**30),
        last_index=config.last_index,
        offline=offline,
    )


def _load_tokenizer(place: Path | str, vocab_size: int) -> PreTrainedTokenizerBase:
    """From a folder, or by its name on the hub."""
    local = isinstance(place, Path) or Path(place).exists()
    if local and not (Path(place) / "tokenizer.json").is_file():
        raise UserError(f"data.tokenizer: {place} holds no tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=local)
    except (OSError, ValueError) as error:
        raise _no_tokenizer(place, error) from None
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"the tokenizer {place} has {len(tokenizer)} tokens, the model's embedding only {vocab_size} rows; "
            f"set model.vocab_size to at least {len(tokenizer)}"
        )
    return tokenizer


def _no_tokenizer(place: Path | str, error: Exception) -> UserError:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return UserError(
            f"data.tokenizer: {place} is no folder, and without network (offline=true) it must lie in the Hugging "
            "Face cache; give a folder, or fetch it: scripts/prepare.py fetch=tokenizer"
        )
    said = str(error).strip().splitlines()
    return UserError(
        f"data.tokenizer: {place} is no folder, and the hub did not give it ({said[0] if said else error!r})"
    )

"""From the settings of text to rows."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from l2e.data.config import TextDataConfig, TextSource
from l2e.data.mixture import MixedRows
from l2e.data.rows import PackedRows, ShuffledRows
from l2e.data.sources import find_source
from l2e.data.tokenise import TokenCache
from l2e.errors import UserError

Entries = list[str | TextSource]


def open_text(
    config: TextDataConfig, tokenizer: PreTrainedTokenizerBase, seq_length: int, cache_dir: Path
) -> tuple[ShuffledRows | MixedRows, PackedRows | None]:
    """Training rows and those of the validation loss, tokenising what is not in the cache.

    Names alone make one corpus, each document as often as any other. With a mapping among them every entry is
    tokenised by itself and rows are mixed by weight, that of a name alone being 1.

    Raises:
        UserError: unusable settings, files, datasets or documents. The first document of every source is read
            before anything is tokenised.
    """
    root = Path(config.path)

    def cache(entries: Entries, key: str) -> TokenCache:
        sources = [find_source(entry, root, config.text_field, key) for entry in entries]
        return TokenCache(sources, tokenizer, cache_dir, config.workers)

    train, validation = _listed(config.train), _listed(config.validation or [])
    if not train:
        raise UserError("data.train: no source is named")
    _refuse_weights(validation)
    mixed = any(isinstance(entry, TextSource) for entry in train)
    groups = [[entry] for entry in train] if mixed else [train]
    caches = [cache(group, "data.train") for group in groups]
    held_out = cache(validation, "data.validation") if validation else None
    for each in [*caches, held_out]:
        if each is not None:
            each.check()
    rows = [ShuffledRows(_packed(each, seq_length), config.seed) for each in caches]
    validation_rows = _packed(held_out, seq_length) if held_out is not None else None
    if len(rows) == 1:
        return rows[0], validation_rows
    weights = [entry.weight if isinstance(entry, TextSource) else 1.0 for entry in train]
    return MixedRows(rows, weights, config.seed), validation_rows


def _packed(cache: TokenCache, seq_length: int) -> PackedRows:
    file = cache.open()
    return PackedRows(file.tokens_path, file.dtype.name, seq_length)


def _listed(entries: str | TextSource | list[str | TextSource]) -> Entries:
    return entries if isinstance(entries, list) else [entries]


def _refuse_weights(validation: Entries) -> None:
    for entry in validation:
        if isinstance(entry, TextSource) and entry.weight != 1:
            raise UserError(
                f"data.validation: {entry.source} has a weight, but validation takes all of its documents; leave it out"
            )

"""From labelled texts to sequences of tokens, as in Gurnee et al. (method.md section 3).

A sequence is the end-of-document token and one window of the text: all of it if it fits, else a random part. Its valid
positions run from `ignore_first_k` to the first end-of-document or padding token after the one in front, that one
excluded.

Two things differ from the authors' code on purpose. It leaves out the last position of a full window. And it looks for
the first end token from position 0 on, where that very token stands, so that it finds no valid position in any padded
sequence and drops it: the published numbers of non-padding tokens are the sizes times 511 exactly. To get sets like
the published ones, set `least_valid` to `window - ignore_first_k`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from l2e.analysis.feature_settings import FeatureSettings
from l2e.analysis.labelled_texts import labelled_texts
from l2e.analysis.subjects import FeatureSet
from l2e.data.encode import encode
from l2e.errors import UserError

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class TextFeatures(FeatureSet):
    """Labelled sequences, and what was left out on the way to them."""

    ignored: int
    """Texts whose label was not asked for, or had enough of them."""

    dropped: tuple[int, ...]
    """By label: texts without enough valid positions."""

    @property
    def non_padding(self) -> int:
        """Tokens of text in the windows, as the published table counts: without the one put in front."""
        return int((self.ends - 1).sum())


def build_features(
    name: str, settings: FeatureSettings, tokenizer: PreTrainedTokenizerBase, cache_dir: Path
) -> TextFeatures:
    """Read, tokenise and cut the texts.

    Args:
        name: of the set; its settings stand under `features.<name>`.
        settings: where they come from, and the window.
        tokenizer: its `eos_token_id` pads, and stands in front if there is no `bos_token_id`.
        cache_dir: where built-in worlds stand.

    Raises:
        UserError: unusable texts (see `labelled_texts`), a label that no text has, a label all of whose texts are
            dropped, fewer than two labels, a tokenizer without an end-of-document token.
    """
    key = f"features.{name}"
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(f"{key}.tokenizer: it has no end-of-document token (eos_token)")
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    stops = [end] if tokenizer.pad_token_id is None else [end, tokenizer.pad_token_id]
    texts = _Chosen(labelled_texts(settings, cache_dir, key), settings)
    # Read ahead by `encode`: the label of its n-th text stands in `texts.labels[n]` by the time it is given out.
    rows = [
        _sequence(tokens[:-1], settings, texts.numbers[place], first, end)
        for place, tokens in enumerate(encode(iter(texts), tokenizer.backend_tokenizer, end))
    ]
    names = settings.labels or sorted(set(texts.labels))
    _check_labels(key, names, texts)
    tokens = np.stack(rows)
    ends = _first_stop(tokens, stops)
    labels = np.array([names.index(label) for label in texts.labels], np.int64)
    kept = ends - settings.ignore_first_k >= settings.least_valid
    _check_kept(key, names, labels[kept], settings)
    return TextFeatures(
        name=name,
        tokens=tokens[kept],
        starts=np.full(int(kept.sum()), settings.ignore_first_k, np.int64),
        ends=ends[kept],
        labels=labels[kept],
        label_names=tuple(names),
        ignored=texts.ignored,
        dropped=tuple(np.bincount(labels[~kept], minlength=len(names)).tolist()),
    )


class _Chosen:
    """Texts whose labels were asked for. `labels` and `numbers` (in the file) grow as they are read."""

    def __init__(self, texts: Iterator[tuple[str, str]], settings: FeatureSettings) -> None:
        self._texts = texts
        self._wanted = settings.labels
        self._most = settings.per_label
        self._seen: dict[str, int] = {}
        self.labels: list[str] = []
        self.numbers: list[int] = []
        self.ignored = 0

    def __iter__(self) -> Iterator[str]:
        for number, (text, label) in enumerate(self._texts):
            seen = self._seen.get(label, 0)
            if (self._wanted is not None and label not in self._wanted) or seen == self._most:
                self.ignored += 1
                continue
            self._seen[label] = seen + 1
            self.labels.append(label)
            self.numbers.append(number)
            yield text


def _sequence(text: Tokens, settings: FeatureSettings, number: int, first: int, end: int) -> Tokens:
    """[window]: where a longer text is cut depends on the seed and its number in the file, on nothing else."""
    room = settings.window - 1
    if len(text) > room:
        start = int(np.random.default_rng([settings.seed, number]).integers(len(text) - room + 1))
        text = text[start : start + room]
    row = np.full(settings.window, end, np.int32)
    row[0] = first
    row[1 : 1 + len(text)] = text
    return row


def _first_stop(tokens: Tokens, stops: list[int]) -> NDArray[np.int64]:
    """The first position after 0 that holds one of `stops`; the window's length if none does."""
    found = np.isin(tokens[:, 1:], stops)
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1, tokens.shape[1]).astype(np.int64)


def _check_labels(key: str, names: list[str], texts: _Chosen) -> None:
    there = set(texts.labels)
    if missing := [label for label in names if label not in there]:
        raise UserError(f"{key}.labels: no text is labelled {', '.join(missing)}; leave it out")
    if len(names) < 2:
        raise UserError(f"{key}: there must be texts of at least two labels, not {len(names)}")


def _check_kept(key: str, names: list[str], labels: NDArray[np.int64], settings: FeatureSettings) -> None:
    empty = [label for number, label in enumerate(names) if number not in labels]
    if empty:
        raise UserError(
            f"{key}: no text labelled {', '.join(empty)} has {settings.least_valid} valid position(s) after the first "
            f"{settings.ignore_first_k}; lower ignore_first_k or least_valid, or choose other labels"
        )

"""A model's activations on a feature set: collected once, by all ranks together, then read from disk."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from l2e.analysis.activation_files import ActivationFiles
from l2e.analysis.activation_settings import ActivationSettings
from l2e.analysis.collect import collect, layers_of
from l2e.analysis.hooks import width_of
from l2e.analysis.subjects import FeatureSet
from l2e.errors import UserError
from l2e.files import sha256_of
from l2e.manifest import hash_of

log = logging.getLogger("l2e.analysis")

T = TypeVar("T")

FORMAT = 1
_LINE_SECONDS = 10.0  # between lines of progress


class StoredActivations:
    """Activations on disk (`l2e.analysis.subjects.Activations`)."""

    def __init__(self, files: ActivationFiles) -> None:
        self.layers = files.layers
        self.width = files.width
        self._files = files

    def values(self, layer: int) -> NDArray[np.float32]:
        """[sequences, width] of block `layer`, in the order of the feature set, memory-mapped.

        Raises:
            IndexError: there is no such layer among those that were collected.
        """
        if not 0 <= layer < self.layers:
            raise IndexError(f"layer {layer}: there are 0 to {self.layers - 1}")
        return self._files.open(layer)


def collected(
    name: str,
    weights: Path,
    config: Any,
    load: Callable[[], Any],
    features: FeatureSet,
    settings: ActivationSettings,
    store: Path,
) -> StoredActivations:
    """The activations of a model; collected if they are not in the store, or damaged there.

    Within a process group every rank must call it; each runs the model on a share of the sequences. What an
    interrupted collection has written is kept, whatever the number of ranks then and now.

    Args:
        name: of the model, for messages.
        weights: its folder.
        config: of the model.
        load: the GPTNeoXForCausalLM on its device.
        features: what it is asked.
        settings: which of its values.
        store: folder of all stored activations.

    Raises:
        UserError: too little memory or room on the disk, more layers than there are.
    """
    facts = {
        "format": FORMAT,
        "weights": _weights_hash(weights),
        "features": features_hash(features),
        "site": settings.site,
        "aggregation": settings.aggregation,
        "precision": settings.precision,
        "sequences": len(features.tokens),
        "layers": layers_of(config, settings),
        "width": width_of(config, settings.site),
    }
    files = ActivationFiles(store / hash_of(facts)[:16], facts)
    if _told_by_first(lambda: _usable(files, name)):
        return StoredActivations(files)
    _told_by_first(files.prepare)
    left = files.rows_left()
    if len(left) < len(features.tokens):
        there = len(features.tokens) - len(left)
        log.info("%s: %s of %s sequences are there already", name, f"{there:,}", f"{len(features.tokens):,}")
    rows = share_of(left, features.ends, files.page_rows, *_rank())
    if len(rows):
        progress = _Progress(name, features.name, rows, features)
        collect(load(), features, settings, rows, files.write, progress)
        progress.end()
    _wait_for_all()
    _told_by_first(files.complete)
    return StoredActivations(files)


def share_of(rows: NDArray[np.int64], ends: NDArray[np.int64], group: int, rank: int, ranks: int) -> NDArray[np.int64]:
    """The rows of one rank: about the same number of tokens for each, and whole groups of `group` rows."""
    if ranks == 1:
        return rows
    groups, members = np.unique(rows // group, return_inverse=True)
    tokens = np.bincount(members, weights=ends[rows], minlength=len(groups))
    middle = np.cumsum(tokens) - tokens / 2
    return rows[(middle * ranks // max(tokens.sum(), 1)).astype(np.int64)[members] == rank]


def features_hash(features: FeatureSet) -> str:
    """Hash of the sequences; their labels are not part of it, because a model does not see them."""
    digest = hashlib.sha256(json.dumps(features.tokens.shape).encode())
    for array in (features.tokens.astype("<i4"), features.starts.astype("<i8"), features.ends.astype("<i8")):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _weights_hash(folder: Path) -> str:
    """Hash of the weights' files and the config, under whatever name the folder stands."""
    paths = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not paths:
        raise UserError(f"models: {folder} holds no weights (*.safetensors or *.bin)")
    return hash_of({path.name: sha256_of(path) for path in [*paths, folder / "config.json"]})


def _usable(files: ActivationFiles, name: str) -> bool:
    """Whether they are stored and whole; damaged ones are removed."""
    try:
        damage = files.damage()
    except FileNotFoundError:
        return False
    if damage:
        log.warning("%s: stored activations cannot be used (%s); they are collected anew", name, damage)
        files.discard()
    return damage is None


def _rank() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def _told_by_first(find: Callable[[], T]) -> T:
    """What rank 0 finds; an error of the user's that it meets is every rank's."""
    if _rank()[1] == 1:
        return find()
    found: list[Any] = [None, None]
    if _rank()[0] == 0:
        try:
            found[0] = find()
        except UserError as error:
            found[1] = str(error)
    dist.broadcast_object_list(found)
    if found[1] is not None:
        raise UserError(found[1])
    return found[0]


class _Progress:
    """A line now and then, and one at the end."""

    def __init__(self, model: str, texts: str, rows: NDArray[np.int64], features: FeatureSet) -> None:
        self._name = f"{model} on {texts}"
        self._rows, self._tokens = len(rows), int(features.ends[rows].sum())
        self._seen_rows = self._seen_tokens = 0
        self._started = self._told = time.monotonic()

    def __call__(self, sequences: int, tokens: int) -> None:
        self._seen_rows += sequences
        self._seen_tokens += tokens
        now = time.monotonic()
        if now - self._told > _LINE_SECONDS:
            self._told = now
            share, speed = self._seen_tokens / self._tokens, self._seen_tokens / (now - self._started)
            left = timedelta(seconds=round((self._tokens - self._seen_tokens) / speed))
            counts = f"{self._seen_rows:,}/{self._rows:,} sequences"
            log.info("%s: %s  %.0f%%  %s tokens/s  left %s", self._name, counts, 100 * share, f"{speed:,.0f}", left)

    def end(self) -> None:
        """Say how fast it was."""
        seconds = time.monotonic() - self._started
        speed = f"{self._tokens / max(seconds, 1e-9):,.0f}"
        log.info("%s: %s sequences, %s tokens/s", self._name, f"{self._rows:,}", speed)

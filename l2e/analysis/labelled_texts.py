"""Texts and their labels, from files of JSON lines, Hugging Face datasets and the built-in world."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2e.analysis.feature_settings import FeatureSettings
from l2e.data.config import TextSource
from l2e.data.corpus import world_folder
from l2e.data.documents import checked_text, kind_of, read_objects
from l2e.errors import UserError

LabelledText = tuple[str, str]

_WORLD_PASSAGES = Path("features") / "world_language.jsonl"


def labelled_texts(settings: FeatureSettings, cache_dir: Path, key: str) -> Iterator[LabelledText]:
    """All texts with their labels, in order.

    Args:
        settings: where they come from.
        cache_dir: where built-in worlds stand.
        key: of the settings, for messages.

    Raises:
        UserError: no such file, dataset, split or column, a damaged file, or a text or label that is none; the
            message says where.
    """
    if settings.kind == "hf":
        return _of_dataset(settings, key)
    if settings.kind == "builtin":
        return _of_files([world_folder(settings.world, cache_dir) / _WORLD_PASSAGES], settings, key)
    assert settings.path is not None
    return _of_files(_files(Path(settings.path), key), settings, key)


def _of_files(paths: list[Path], settings: FeatureSettings, key: str) -> Iterator[LabelledText]:
    for path in paths:
        for where, row in read_objects(path):
            held = row if isinstance(row, dict) else {}
            yield _checked(held.get(settings.text_field), held.get(settings.label_field), settings, where, key)


def _of_dataset(settings: FeatureSettings, key: str) -> Iterator[LabelledText]:
    from l2e.data.hub_datasets import HubDocuments  # its library takes 0.4 s to import

    assert settings.path is not None
    source = TextSource(
        source=settings.path, kind="hf", subset=settings.subset, split=settings.split, revision=settings.revision
    )
    place: Path | str = Path(settings.path) if Path(settings.path).exists() else settings.path
    documents = HubDocuments(place, source, settings.text_field, f"{key}.path")
    for number, (text, label) in enumerate(documents.pairs(settings.label_field)):
        yield _checked(text, label, settings, f"{documents.name}, row {number}", key)


def _files(place: Path, key: str) -> list[Path]:
    paths = [place] if place.is_file() else []
    if not paths and any(sign in str(place) for sign in "*?["):
        anchor = Path(place.anchor)
        paths = sorted(path for path in anchor.glob(str(place.relative_to(anchor))) if path.is_file())
    if not paths:
        raise UserError(f"{key}.path: there is no file {place}; for a dataset of the hub give {key}.kind=hf")
    for path in paths:
        if kind_of(path) != "jsonl":
            raise UserError(f"{key}.path: {path} must hold JSON lines (.jsonl or .json, also with .zst or .gz)")
    return paths


def _checked(text: Any, label: Any, settings: FeatureSettings, where: str, key: str) -> LabelledText:
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise UserError(f'{where}: no label under "{settings.label_field}"; {key}.label_field names the field of it')
    return checked_text(text, where, settings.text_field, f"{key}.text_field"), str(label)

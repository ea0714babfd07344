"""Writes a world as files, in the layout that real data has."""

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from l2e.data.builtin.code_styles import CODE_WORDS
from l2e.data.builtin.documents import LABELS, DocumentWriter
from l2e.data.builtin.facts import RELATIONS, World, even_deal, make_world, stream
from l2e.data.builtin.items import make_items
from l2e.data.builtin.languages import Language, make_languages
from l2e.data.builtin.names import NameGiver
from l2e.data.builtin.settings import WorldSettings
from l2e.data.builtin.tokenizer import write_tokenizer
from l2e.errors import UserError

FORMAT_VERSION = 1

# For each task: the splits that hold its known, held-out and validation items. lm-eval scores the held-out ones.
SPLITS = {
    "arc": {"known": "train", "held_out": "test"},
    "piqa": {"known": "train", "held_out": "validation"},
    "sciq": {"known": "train", "held_out": "test", "validation": "validation"},
}

Rows = Iterable[Mapping[str, Any]]


def write_world(folder: Path, settings: WorldSettings) -> None:
    """Write the world of these settings, unless `folder` already holds it.

    The files appear all at once, under their final name, so that a killed run or a second process leaves no half
    a world behind. The same settings give the same bytes.

    Args:
        folder: where the world shall stand; its parents are made.
        settings: which world.

    Raises:
        UserError: `folder` holds something else, which is left as it is.
    """
    folder = Path(folder)
    if _holds(folder, settings):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        _write_files(unfinished, settings)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process was quicker: its world must be the same one.
            if not _holds(folder, settings):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _holds(folder: Path, settings: WorldSettings) -> bool:
    """Whether the folder holds this world; False if there is nothing in it.

    Raises:
        UserError: it holds something else.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; the built-in world needs a folder: choose another path")
    if not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / "world.json").read_text(encoding="utf-8"))
        known = {"format_version": found["format_version"], "settings": found["settings"]}
        files = [folder / name for name in found["counts"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds something that is not a built-in world: choose another path") from None
    if known != {"format_version": FORMAT_VERSION, "settings": asdict(settings)}:
        raise UserError(
            f"{folder} holds another built-in world ({_differences(known, settings)}): delete it or choose another path"
        )
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}: delete the folder, it will be made again")
    return True


def _differences(known: dict[str, Any], settings: WorldSettings) -> str:
    if known["format_version"] != FORMAT_VERSION:
        return f"format version {known['format_version']}, here {FORMAT_VERSION}"
    there, here = known["settings"], asdict(settings)
    keys = [key for key in here if there.get(key) != here[key]]
    return ", ".join(f"{key} is {there.get(key)}, here {here[key]}" for key in keys) or "other settings"


def _write_files(folder: Path, settings: WorldSettings) -> None:
    reserved = (*CODE_WORDS, *(relation.name for relation in RELATIONS))
    names = NameGiver(stream("names", settings), reserved)
    languages = make_languages(names)
    world = make_world(settings, names)

    train = _documents("train", settings.documents, world, languages, settings)
    tables: dict[str, list[dict[str, Any]]] = {
        "train.jsonl": train,
        "validation.jsonl": _documents("validation", settings.validation_documents, world, languages, settings),
        "features/world_language.jsonl": _passages(world, languages, settings),
        **_all_items(world, languages, settings),
    }
    for name, rows in tables.items():
        _write_jsonl(folder / name, rows)
    write_tokenizer(folder / "tokenizer", (row["text"] for row in train), settings.vocab_size)
    about = {
        "format_version": FORMAT_VERSION,
        "settings": asdict(settings),
        "counts": {name: len(rows) for name, rows in tables.items()},
        "labels": list(LABELS),
    }
    (folder / "world.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _documents(
    split: str, count: int, world: World, languages: list[Language], settings: WorldSettings
) -> list[dict[str, Any]]:
    rng = stream(split, settings)
    writer = DocumentWriter(world, languages, rng)
    labels = even_deal(LABELS, count, rng)
    return [{"text": writer.document(label), "meta": {"label": label}} for label in labels]


def _passages(world: World, languages: list[Language], settings: WorldSettings) -> list[dict[str, Any]]:
    """Passages that only state facts, the same number for each label."""
    rng = stream("features", settings)
    writer = DocumentWriter(world, languages, rng)
    labels = even_deal(LABELS, settings.passages_per_label * len(LABELS), rng)
    return [{"text": writer.account(label), "label": label} for label in labels]


def _all_items(world: World, languages: list[Language], settings: WorldSettings) -> dict[str, list[dict[str, Any]]]:
    return {
        f"eval/world_{task}/{split}.jsonl": make_items(
            task, getattr(world, part)[task], world, languages, stream(f"{task}/{split}", settings)
        )
        for task, splits in SPLITS.items()
        for part, split in splits.items()
    }


def _write_jsonl(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

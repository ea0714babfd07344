"""From what `models=[...]` names to folders of weights."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from l2e.cli.run_folder import RunFolder
from l2e.errors import UserError

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_OLD_HUB_FILES = ["*.json", "*.bin", "*.txt", "*.model"]


@dataclass(frozen=True)
class NamedModel:
    """One of `models`."""

    name: str
    """For figures and tables."""

    given: str
    """As on the command line."""

    folder: Path | None
    """Where its weights lie; None: on the hub."""

    run: Path | None
    """The run directory that it comes from, if it does."""

    revision: str | None
    """Branch, tag or commit on the hub."""


def find_models(given: Sequence[str], weights: bool = True) -> list[NamedModel]:
    """What each name stands for; nothing is fetched.

    A run directory stands for its last export, or with `@1000` for that of an update. Models of the same name go by
    what was given.

    Args:
        given: `models` of the command line.
        weights: whether they will be needed; if not, a run without an export will do.

    Raises:
        UserError: no such folder, export or update, or the same model twice.
    """
    if twice := [text for text, count in Counter(given).items() if count > 1]:
        raise UserError(f"models: {twice[0]} is named twice")
    found = [_find(text, weights) for text in given]
    names = Counter(model.name for model in found)
    return [model if names[model.name] == 1 else replace(model, name=model.given) for model in found]


def fetch(model: NamedModel) -> Path:
    """The folder with the model's files; what is on the hub is fetched into the Hugging Face cache.

    Raises:
        UserError: the hub has no such model, or does not answer.
    """
    if model.folder is not None:
        return model.folder
    place, _ = _parted(model.given)
    try:
        folder = Path(snapshot_download(place, revision=model.revision, allow_patterns=_HUB_FILES))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(place, revision=model.revision, allow_patterns=_OLD_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = str(error).strip().splitlines()
        raise UserError(
            f"models: {model.given} is no folder, and the hub did not give it ({said[0] if said else error!r})"
        ) from None
    return folder


def _find(given: str, weights: bool) -> NamedModel:
    place, tag = _parted(given)
    path = Path(place)
    if (path / "config.yaml").is_file():
        return _of_run(given, path, tag, weights)
    if path.exists() and tag:
        raise UserError(f"models: {given}: {path} is a model's folder; only runs and models of the hub have several")
    if path.exists() and not (path / "config.json").is_file():
        raise UserError(f"models: {path} holds no model (no config.json) and is no run directory (no config.yaml)")
    if path.exists():
        return NamedModel(path.name, given, path, None, None)
    if place.count("/") > 1 or place.startswith((".", "/")) or not place:
        raise UserError(f"models: there is no folder {place or given}")
    return NamedModel(given.rsplit("/", 1)[-1], given, None, None, tag or None)


def _parted(given: str) -> tuple[str, str]:
    """A place, and what stands behind its @; a folder may have one in its name."""
    if Path(given).exists() or "@" not in given:
        return given, ""
    place, _, tag = given.rpartition("@")
    return place, tag


def _of_run(given: str, path: Path, tag: str, weights: bool) -> NamedModel:
    run = RunFolder(str(path.parent), path.name)
    exported = run.exported()
    if not exported and not tag and not weights:
        return NamedModel(path.resolve().name, given, None, path, None)
    if not exported:
        raise UserError(f"models: {path} has no export yet; it comes at the end of the run, or see checkpoint.exports")
    if tag and (not tag.isdecimal() or int(tag) not in exported):
        raise UserError(f"models: {path} has no export @{tag}; there are {', '.join(map(str, exported))}")
    step = int(tag) if tag else exported[-1]
    return NamedModel(
        f"{path.resolve().name}@{tag}" if tag else path.resolve().name, given, run.export(step), path, None
    )

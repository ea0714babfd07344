"""From the settings' names of text to readers of documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from l2e.data.config import TextSource
from l2e.data.documents import kind_of, read_documents
from l2e.data.packed_files import Reading
from l2e.errors import UserError


class Source(Protocol):
    """Documents of one origin."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def size(self) -> int | None:
        """What `Reading.done` grows by when all is read; None where nobody knows."""

    def identity(self) -> Any:
        """What makes the documents these, as JSON."""

    def documents(self, reading: Reading) -> Iterator[str]:
        """All of them, the same in every call."""


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Local files, one after the other.

    Attributes:
        name: as the settings name them.
        paths: the files.
        kinds: `jsonl`, `parquet` or `text`, of each.
        field: of the text.
        max_documents: the first so many; None for all.
    """

    name: str
    paths: Sequence[Path]
    kinds: Sequence[str]
    field: str = "text"
    max_documents: int | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the files, if they are read to their end."""
        return sum(path.stat().st_size for path in self.paths) if self.max_documents is None else None

    def identity(self) -> Any:
        """The files are known by path, size and time of change."""
        stats = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in self.paths]
        return ["files", stats, list(self.kinds), self.field, self.max_documents]

    def documents(self, reading: Reading) -> Iterator[str]:
        """See `read_documents`, which also raises its errors."""
        files = zip(self.paths, self.kinds, strict=True)
        documents = chain.from_iterable(read_documents(path, kind, self.field, reading) for path, kind in files)
        return islice(documents, self.max_documents)


def find_source(entry: str | TextSource, root: Path, field: str, key: str) -> Source:
    """The reader of what an entry of the settings names.

    Args:
        entry: a name alone stands for a source with all defaults.
        root: folder that names are relative to.
        field: of the text, where the entry gives none.
        key: of the settings, for messages.

    Raises:
        UserError: no such file, a glob without match, an unknown ending, settings that do not fit the kind.
    """
    source = TextSource(source=entry) if isinstance(entry, str) else entry
    place = root / source.source
    if source.kind == "hf" or (source.kind == "auto" and place.is_dir()):
        return _hub_source(source, place, field, key)
    if source.subset or source.revision or source.streaming:
        raise UserError(f"{key}: subset, revision and streaming need kind: hf; {source.source} is a file")
    paths = _files(place, key)
    try:
        kinds = [kind_of(path) if source.kind == "auto" else source.kind for path in paths]
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    name = str(paths[0]) if len(paths) == 1 else f"{place} ({len(paths)} files)"
    return FileSource(
        name=name,
        paths=paths,
        kinds=kinds,
        field=source.text_field or field,
        max_documents=source.max_documents,
    )


def _hub_source(source: TextSource, place: Path, field: str, key: str) -> Source:
    from l2e.data.hub_datasets import HubDocuments, is_saved_dataset  # its library takes 0.4 s to import

    if source.kind == "auto" and not is_saved_dataset(place):
        raise UserError(f"{key}: {place} is a folder; give a glob such as {source.source}/*.jsonl, or kind: hf")
    return HubDocuments(place if place.exists() else source.source, source, source.text_field or field, key)


def _files(place: Path, key: str) -> list[Path]:
    """The file, or those that match the glob, sorted by name."""
    if place.is_file():
        return [place]
    if not any(sign in str(place) for sign in "*?["):
        raise UserError(f"{key}: there is no file {place}; for a dataset of the hub give kind: hf")
    anchor = Path(place.anchor)
    paths = sorted(path for path in anchor.glob(str(place.relative_to(anchor))) if path.is_file())
    if not paths:
        raise UserError(f"{key}: no file matches {place}")
    return paths

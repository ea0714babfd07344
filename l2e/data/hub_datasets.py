"""Documents of Hugging Face datasets: on the hub, in a folder of data files, or saved by `save_to_disk`."""

import json
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from l2e.data.config import TextSource
from l2e.data.documents import checked_text
from l2e.data.packed_files import Reading
from l2e.errors import UserError

_ROWS_AT_ONCE = 256


def is_saved_dataset(path: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


class HubDocuments:
    """Column `field` of a dataset, in its order.

    Args:
        place: a folder, or a name on the hub.
        source: which part of it.
        field: the column.
        key: of the settings, for messages.
    """

    def __init__(self, place: Path | str, source: TextSource, field: str, key: str) -> None:
        self.place = place
        self.source = source
        self.field = field
        self.key = key
        self.name = f"{place} ({source.split})"

    @property
    def size(self) -> int | None:
        """Documents, where they are known."""
        known = None if self.source.streaming else len(self._dataset)
        limits = [number for number in (known, self.source.max_documents) if number is not None]
        return min(limits, default=None)

    def identity(self) -> Any:
        """The library's own fingerprint; of a stream, which has none, its name, and a folder's files."""
        source = self.source
        if not source.streaming:
            return ["hf", self._dataset._fingerprint, self.field, source.max_documents]
        named = [str(self.place), source.subset, source.split, source.revision, self.field, source.max_documents]
        return ["hf stream", *named, _files_of(self.place) if isinstance(self.place, Path) else None]

    def documents(self, reading: Reading) -> Iterator[str]:
        """All documents, or the first `max_documents`.

        Raises:
            UserError: there is no such dataset, split or column, or a document is no string.
        """
        texts = islice(self._texts(), self.source.max_documents)
        try:
            for number, text in enumerate(texts):
                reading.done += 1
                yield checked_text(text, f"{self.name}, document {number}", self.field)
        except (ValueError, datasets.exceptions.DatasetsError) as error:  # of a stream, which is opened only now
            raise UserError(f"{self.key}: dataset {self.name} could not be read: {_one_line(error)}") from None

    def pairs(self, other: str) -> Iterator[tuple[Any, Any]]:
        """The column `field` and a second one, row by row; the numbers of named classes as their names.

        Raises:
            UserError: there is no such dataset, split or column.
        """
        if other not in self._dataset.column_names:
            raise UserError(f"{self.key}: {self.name} has no column {other!r} among {self._columns()}")
        named = getattr(self._dataset.features[other], "int2str", None)
        rows = self._dataset.select_columns([self.field, other]).with_format(None)
        for batch in rows.iter(_ROWS_AT_ONCE):
            for first, second in zip(batch[self.field], batch[other], strict=True):
                yield first, named(second) if named and second is not None else second

    def _columns(self) -> str:
        return ", ".join(self._dataset.column_names)

    def _texts(self) -> Iterator[Any]:
        dataset = self._dataset
        if self.source.streaming:
            if self.source.max_documents is not None:
                dataset = dataset.take(self.source.max_documents)  # so that no more is fetched
            yield from (row.get(self.field) for row in dataset)
        else:
            for rows in dataset.select_columns([self.field]).with_format(None).iter(_ROWS_AT_ONCE):
                yield from rows[self.field]

    @cached_property
    def _dataset(self) -> Any:
        try:
            dataset = self._load()
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise UserError(f"{self.key}: dataset {self.name} could not be opened: {_one_line(error)}") from None
        names = dataset.column_names
        if names is not None and self.field not in names:
            raise UserError(f"{self.key}: {self.name} has no column {self.field!r} among {', '.join(names)}")
        return dataset

    def _load(self) -> Any:
        source = self.source
        if not (isinstance(self.place, Path) and is_saved_dataset(self.place)):
            return datasets.load_dataset(
                str(self.place),
                source.subset,
                split=source.split,
                revision=source.revision,
                streaming=source.streaming,
            )
        saved = _load_saved(self.place, source.split)
        return saved.to_iterable_dataset() if source.streaming else saved


def _load_saved(folder: Path, split: str) -> Any:
    """What `save_to_disk` wrote. Of several splits only this one: the library fails on them all if one is empty."""
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        if split not in splits:
            raise ValueError(f"unknown split {split}; there are {', '.join(splits)}")
        folder = folder / split
    if not json.loads((folder / "state.json").read_text())["_data_files"]:
        raise ValueError("there are no documents in it")
    return datasets.load_from_disk(str(folder))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _files_of(folder: Path) -> list[Any]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]

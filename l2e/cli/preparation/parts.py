"""The things that a run needs, each with its plan and its fetch."""

import logging
from pathlib import Path

from l2e.cli.preparation.config import PartName, PrepareConfig
from l2e.cli.preparation.manifest import FetchedRows, Manifest
from l2e.cli.preparation.plan import Line, Part, Progress, amount
from l2e.cli.preparation.tokenizer import TokenizerPart
from l2e.data import PileDataConfig, PileShards
from l2e.data.corpus import open_shards
from l2e.data.remote_file import RangeReader, RemoteFile
from l2e.data.remote_shards import authorisation, describe_all, is_remote, shard_name
from l2e.data.stored_rows import blocks_of, bytes_of, fetch_blocks
from l2e.data.whole_files import bytes_here, fetch_whole, published_sha256
from l2e.errors import UserError
from l2e.evaluation import hub_items
from l2e.evaluation.tasks import check_names

log = logging.getLogger("l2e")


def make_part(name: PartName, config: PrepareConfig, manifest: Manifest) -> Part:
    """The part of that name.

    Raises:
        UserError: the data has no such part, or its server does not answer.
    """
    if name == "tokenizer":
        return TokenizerPart(config.data, manifest)
    if name == "evaluation":
        local = config.evaluation.data_dir is not None or hub_items.has_local_form(config.evaluation.tasks)
        return ItemsPart(config, manifest) if local else TasksPart(config, manifest)
    if not isinstance(config.data, PileDataConfig):
        if config.fetch != "all":
            raise UserError(f"fetch: {config.data.name} is made from local files; only data=pile_deduped is fetched")
        return Here(f"rows of {config.data.name}", "made from local files")
    if not is_remote(config.data.path):
        return Here("rows", config.data.path)
    return RowsPart(config, config.data, manifest) if name == "rows" else ShardsPart(config, config.data, manifest)


class Here:
    """Something that needs no fetching."""

    def __init__(self, item: str, where: str) -> None:
        self.item = item
        self.where = where

    def plan(self) -> list[Line]:
        """Nothing to fetch."""
        return [Line(item=self.item, size=0, missing=0, source=self.where)]

    def fetch(self) -> None:
        """Nothing to do."""


class RowsPart:
    """The blocks that hold the rows of the updates asked for."""

    def __init__(self, config: PrepareConfig, data: PileDataConfig, manifest: Manifest) -> None:
        self.manifest = manifest
        self.rows = config.rows
        self.shards = open_shards(data, config.place)
        self.noted = noted_rows(data, config.rows)
        if self.rows.stop > len(self.shards):
            raise UserError(f"step: rows up to {self.rows.stop:,} were asked for, there are {len(self.shards):,}")
        held = [entry.rows for entry in manifest.rows if entry.same_set(self.noted) and entry.stop <= len(self.shards)]
        size = bytes_of(self.shards, blocks_of(self.shards, [self.rows, *held]))
        if size > 0.99 * data.cache_gib * 2**30:  # the blocks have headers
            raise UserError(
                f"data.cache_gib: {config.steps} updates take {size / 2**30:.1f} GiB with what {config.place} holds "
                f"of this set, more than the {data.cache_gib} GiB that the cache may take; give more, or another folder"
            )

    def plan(self) -> list[Line]:
        """One line for all rows."""
        places = self.shards.blocks(self.rows)
        return [
            Line(
                item=f"rows {self.rows.start:,} to {self.rows.stop:,}",
                size=bytes_of(self.shards, places),
                missing=self._missing(),
                source=self.shards.location,
            )
        ]

    def fetch(self) -> None:
        """Fetch the missing blocks, several at a time."""
        progress = Progress("rows", self._missing())
        self.manifest.save()  # the folder is told of before anything lies in it
        fetch_blocks(self.shards, self.rows, progress.add)
        self.manifest.add_rows(self.noted)

    def _missing(self) -> int:
        remote = self.shards.remote
        return bytes_of(self.shards, remote.absent(self.shards.blocks(self.rows))) if remote else 0


def noted_rows(data: PileDataConfig, rows: range) -> FetchedRows:
    """Rows of a remote set as the manifest tells of them."""
    return FetchedRows(
        location=data.path,
        row_length=data.row_length,
        last_index=data.last_index,
        start=rows.start,
        stop=rows.stop,
    )


class ShardsPart:
    """The published files, whole, in `shards/`."""

    def __init__(self, config: PrepareConfig, data: PileDataConfig, manifest: Manifest) -> None:
        self.manifest = manifest
        self.location = data.path
        self.row_length = data.row_length
        self.folder = shards_folder(config.place)
        self.reader = RangeReader(authorisation(data.path))
        self.files = describe_all(data.path, data.last_index, self.reader, config.place, offline=False)

    def plan(self) -> list[Line]:
        """A line for each file."""
        lines = []
        for index, file in enumerate(self.files):
            path = self._path(index)
            here = file.size if self._is_here(path, file) else bytes_here(path, file)
            lines.append(Line(item=f"shards/{path.name}", size=file.size, missing=file.size - here, source=file.url))
        return lines

    def fetch(self) -> None:
        """Fetch one file after another, each by several requests at a time."""
        for index, file in enumerate(self.files):
            path = self._path(index)
            if self._is_here(path, file):
                continue
            progress = Progress(path.name, file.size - bytes_here(path, file))
            published = published_sha256(self.location, file)
            found = fetch_whole(self.reader, file, path, published, progress.add)
            self.manifest.add(path, _source(file), found)
        PileShards(self.folder, self.row_length).close()  # the sizes fit each other

    def _path(self, index: int) -> Path:
        return self.folder / shard_name(index, len(self.files) - 1)

    def _is_here(self, path: Path, file: RemoteFile) -> bool:
        return self.manifest.holds(path, _source(file))


def _source(file: RemoteFile) -> str:
    return f"{file.url} {file.etag}"


def shards_folder(place: Path) -> Path:
    """Where whole files lie."""
    return place / "shards"


class ItemsPart:
    """Items of tasks that `evaluation.data_dir` can hold, as `eval/<task>/<split>.jsonl`."""

    def __init__(self, config: PrepareConfig, manifest: Manifest) -> None:
        self.manifest = manifest
        self.folder = config.place / "eval"
        self.given = config.evaluation.data_dir
        with_data = config.data.kind == "builtin"
        tasks = [] if self.given else config.evaluation.tasks
        self.with_data = [task for task in tasks if task.startswith("world_") and with_data]
        self.found = [hub_items.find_items(task) for task in tasks if task not in self.with_data]

    def plan(self) -> list[Line]:
        """A line for each task."""
        if self.given:
            return Here("evaluation", self.given).plan()
        lines = [Line(item=task, size=0, missing=0, source="comes with the data") for task in self.with_data]
        for items in self.found:
            missing = 0 if self._is_here(items) else items.size
            lines.append(Line(item=f"eval/{items.task}", size=items.size, missing=missing, source=items.source))
        return lines

    def fetch(self) -> None:
        """Write the splits of each task that is not here."""
        for items in self.found:
            if self._is_here(items):
                continue
            for path in hub_items.write_items(items, self.folder / items.task):
                self.manifest.add(path, items.source)
            log.info("eval/%s: %s", items.task, amount(items.size))

    def _is_here(self, items: hub_items.HubItems) -> bool:
        paths = [self.folder / items.task / f"{split}.jsonl" for split in hub_items.splits_of(items.task)]
        return all(self.manifest.holds(path, items.source) for path in paths)


class TasksPart:
    """Datasets of any tasks of lm-eval, in Hugging Face's caches in `hf/`."""

    def __init__(self, config: PrepareConfig, manifest: Manifest) -> None:
        self.manifest = manifest
        self.folder = hf_home(config.place)
        self.tasks = config.evaluation.tasks
        check_names(config.evaluation)

    def plan(self) -> list[Line]:
        """One line; nobody says how much it is before it is here."""
        item, source = f"hf: {', '.join(self.tasks)}", "the datasets that lm-eval names"
        if not self._is_here():
            return [Line(item=item, size=None, missing=None, source=source)]
        size = self.manifest.bytes_of([self.folder / name for name in self._names()])
        return [Line(item=item, size=size, missing=0, source=source)]

    def fetch(self) -> None:
        """Have lm-eval load the tasks with its caches there."""
        if self._is_here():
            return
        log.info("lm-eval loads %s", ", ".join(self.tasks))
        for path in hub_items.fetch_tasks(self.tasks, self.folder):
            self.manifest.add(path, tasks_source(self.tasks))

    def _is_here(self) -> bool:
        names = self._names()
        source = tasks_source(self.tasks)
        return bool(names) and all(self.manifest.holds(self.folder / name, source) for name in names)

    def _names(self) -> list[str]:
        source = tasks_source(self.tasks)
        return [n.removeprefix("hf/") for n, entry in self.manifest.files.items() if entry.source == source]


def hf_home(place: Path) -> Path:
    """Where Hugging Face's caches lie."""
    return place / "hf"


def tasks_source(tasks: list[str]) -> str:
    """What the manifest says of their files."""
    return f"lm-eval {', '.join(sorted(tasks))}"

"""What was fetched into a folder, and whether it is still there and whole."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from l2e.data.shards import PileShards
from l2e.data.stored_rows import blocks_of, bytes_of, damaged_blocks
from l2e.errors import UserError
from l2e.files import sha256_of, write_atomically

_NAME = "manifest.json"
_SMALL = 64 << 20  # bytes up to which a file is hashed whenever it is looked at


@dataclass(frozen=True, kw_only=True)
class FetchedFile:
    """A file: its size, its hash and what it was made from."""

    size: int
    sha256: str
    source: str


@dataclass(frozen=True, kw_only=True)
class FetchedRows:
    """Rows [start, stop) of a remote set, kept as blocks."""

    location: str
    row_length: int
    last_index: int
    start: int
    stop: int

    @property
    def rows(self) -> range:
        """The rows."""
        return range(self.start, self.stop)

    def same_set(self, other: "FetchedRows") -> bool:
        """Whether both are of one set."""
        return (self.location, self.row_length, self.last_index) == (
            other.location,
            other.row_length,
            other.last_index,
        )

    def open(self, folder: Path) -> PileShards:
        """The set as the folder has it, without its server."""
        return PileShards(self.location, self.row_length, cache_dir=folder, last_index=self.last_index, offline=True)


class Manifest:
    """`manifest.json` of a folder, kept after every file, so that a killed fetch loses none.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, FetchedFile] = {}
        self.rows: list[FetchedRows] = []
        path = folder / _NAME
        if not path.exists():
            return
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            self.files = {name: FetchedFile(**entry) for name, entry in tree["files"].items()}
            self.rows = [FetchedRows(**entry) for entry in tree["rows"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error!r}); remove it: what is in the folder is then fetched anew"
            ) from None

    def holds(self, path: Path, source: str) -> bool:
        """Whether the file was made from `source` and is as it was; of a large one only the size is looked at."""
        entry = self.files.get(self._key(path))
        if entry is None or entry.source != source or not path.is_file() or path.stat().st_size != entry.size:
            return False
        return entry.size > _SMALL or sha256_of(path) == entry.sha256

    def bytes_of(self, paths: list[Path]) -> int:
        """Bytes of files that are held."""
        return sum(self.files[self._key(path)].size for path in paths)

    def made_from(self, folder: str) -> set[str]:
        """The sources of all files below a folder."""
        return {entry.source for name, entry in self.files.items() if name.startswith(f"{folder}/")}

    def add(self, path: Path, source: str, sha256: str | None = None) -> None:
        """Note a file that has been fetched."""
        entry = FetchedFile(size=path.stat().st_size, sha256=sha256 or sha256_of(path), source=source)
        self.files[self._key(path)] = entry
        self.save()

    def add_rows(self, new: FetchedRows) -> None:
        """Note rows that have been fetched, together with those that they touch."""
        start, stop, rest = new.start, new.stop, []
        for old in self.rows:
            if old.same_set(new) and old.start <= stop and start <= old.stop:
                start, stop = min(start, old.start), max(stop, old.stop)
            else:
                rest.append(old)
        merged = FetchedRows(
            location=new.location, row_length=new.row_length, last_index=new.last_index, start=start, stop=stop
        )
        self.rows = [*rest, merged]
        self.save()

    def has_rows(self, wanted: FetchedRows) -> bool:
        """Whether all these rows have been noted."""
        return any(old.same_set(wanted) and old.start <= wanted.start and wanted.stop <= old.stop for old in self.rows)

    def save(self) -> None:
        """Write it."""
        tree = {
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
            "rows": [asdict(entry) for entry in self.rows],
        }
        write_atomically(self.folder / _NAME, json.dumps(tree, indent=1) + "\n")

    def to_read(self) -> int:
        """Bytes that `damaged` reads."""
        total = sum(entry.size for entry in self.files.values())
        for rows in self.rows:
            with suppress(UserError):  # `damaged` tells of it
                total += self._of_rows(rows, bytes_of)
        return total

    def damaged(self, report: Callable[[int], None]) -> list[str]:
        """Read all again; what is missing or not as it was, one line each.

        Damaged files are forgotten and damaged blocks removed, so that the next fetch brings them anew.
        """
        found = []
        for name, entry in list(self.files.items()):
            problem = _problem(self.folder / name, entry)
            report(entry.size)
            if problem:
                found.append(f"{name}: {problem}")
                del self.files[name]
        for rows in self.rows:
            try:
                bad = self._of_rows(rows, lambda shards, places: len(damaged_blocks(shards, places, report)))
            except UserError as error:
                found.append(str(error))
            else:
                where = f"rows {rows.start:,} to {rows.stop:,} of {rows.location}"
                found += [f"{where}: {bad} blocks missing or damaged"] if bad else []
        if found:
            self.save()
        return found

    def _of_rows(self, entry: FetchedRows, work: Callable[..., int]) -> int:
        shards = entry.open(self.folder)
        try:
            return work(shards, blocks_of(shards, [entry.rows]))
        finally:
            shards.close()

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _problem(path: Path, entry: FetchedFile) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != entry.size:
        return f"{path.stat().st_size} bytes, expected {entry.size}"
    if sha256_of(path) != entry.sha256:
        return "damaged: its sha256 is not that of the file fetched"
    return None

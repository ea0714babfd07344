"""Blocks of remote files kept on disk, shared by the processes of a node."""

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_log = logging.getLogger(__name__)

_MAGIC = b"L2EBLK1\n"
_HEADER = len(_MAGIC) + 8 + 32  # magic, length as uint64 little endian, sha256
_LOW_MARK = 0.9  # evict down to this share of the bound, so that not every new block means a scan
_FETCH_LOCKS = 64


class BlockCache:
    """A folder of blocks, bounded in bytes, that survives restarts.

    Blocks are written beside and renamed, so a block is whole or absent. Each carries its length and a sha256
    over key and content, checked when it is read; a damaged block is removed and counts as absent. When the
    bound would be passed, the blocks that were read longest ago go first. Any number of processes may use one
    folder: writing and evicting happen under a file lock, and who reads a block while another evicts it gets
    the block or nothing. If the folder cannot be written (full disk, no file locks) that is logged once, and
    blocks are then not kept.

    Args:
        folder: made if missing; it holds nothing else.
        max_bytes: bound of all blocks together, headers included. A block larger than that is not kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._warned = False

    def get(self, key: str) -> bytes | None:
        """The block of `key`, or None if it is absent or damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                stored = file.read()
                with suppress(OSError):  # a read-only cache is read all the same
                    os.utime(file.fileno())  # the time of access: file systems seldom keep one of their own
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        content = stored[_HEADER:]
        if stored[:_HEADER] == _header(key, content):
            return content
        _log.warning("%s: the cached block is damaged and will be fetched again", path)
        with suppress(OSError):
            path.unlink()
        return None

    def absent(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` whose block is not kept; the folder is listed once and nothing is read."""
        try:
            here = {entry.name for entry in os.scandir(self.folder)}
        except FileNotFoundError:
            return list(keys)
        return [key for key in keys if self._path(key).name not in here]

    def touch(self, key: str) -> None:
        """Mark the block as just read, so that others are evicted before it."""
        with suppress(OSError):
            os.utime(self._path(key))

    def put(self, key: str, content: bytes) -> None:
        """Keep `content` under `key`, evicting others if the bound asks for it."""
        size = _HEADER + len(content)
        if size > self.max_bytes:
            return
        try:
            with self._lock("write"):
                self._make_room(size)
                self._write(self._path(key), _header(key, content) + content)
        except OSError as error:
            self._warn(error)

    def get_or_fetch(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """The block of `key`; if absent, `fetch()` it and keep it.

        Of several processes that need one block at once, one fetches and the others wait for it.
        An error of `fetch` passes through and nothing is kept.
        """
        content = self.get(key)
        if content is not None:
            return content
        with self._lock_to_fetch(key):
            content = self.get(key)  # another may have fetched it while we waited
            if content is None:
                content = fetch()
                self.put(key, content)
        return content

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.block"

    def _write(self, path: Path, stored: bytes) -> None:
        temporary = path.with_suffix(".tmp")  # the write lock is held: nobody else writes one
        temporary.write_bytes(stored)
        os.replace(temporary, path)

    def _make_room(self, size: int) -> None:
        """Evict until `size` more bytes fit; the write lock is held.

        The bytes in use stand in the file "used", raised before a block is written. So it may be too high,
        after a crash or when a block is written twice, but never too low; a scan sets it right.
        """
        used = self._read_used()
        if used is None or used + size > self.max_bytes:
            used = self._evict(self.max_bytes - size)
        (self.folder / "used").write_text(str(used + size))

    def _read_used(self) -> int | None:
        try:
            return int((self.folder / "used").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _evict(self, room: int) -> int:
        """Remove the blocks read longest ago if the rest takes more than `room` bytes; the bytes that stay."""
        for leftover in self.folder.glob("*.tmp"):  # of a killed writer: we hold the write lock
            leftover.unlink(missing_ok=True)
        blocks = sorted(_blocks(self.folder))
        used = sum(size for _, size, _ in blocks)
        if used <= room:
            return used
        target = min(room, int(_LOW_MARK * self.max_bytes))
        for _, size, path in blocks:
            if used <= target:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Hold the lock file `name` against other processes and threads; it is freed if the process dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # said aloud: a forked child may hold the file open too

    @contextmanager
    def _lock_to_fetch(self, key: str) -> Iterator[None]:
        """Hold the fetch lock that `key` falls to; without file locks go on without."""
        number = int(hashlib.sha256(key.encode()).hexdigest(), 16) % _FETCH_LOCKS
        with ExitStack() as held:
            try:
                held.enter_context(self._lock(f"fetch{number}"))
            except OSError as error:
                self._warn(error)
            yield

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("%s: the block cache cannot be used (%s); blocks are fetched each time", self.folder, error)


def _header(key: str, content: bytes) -> bytes:
    """What stands before the block: magic, length, and the sha256 of key and content."""
    digest = hashlib.sha256(key.encode())
    digest.update(b"\0")
    digest.update(content)
    return _MAGIC + len(content).to_bytes(8, "little") + digest.digest()


def _blocks(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Time of access [ns], bytes and path of each block."""
    for path in folder.glob("*.block"):
        with suppress(FileNotFoundError):  # removed meanwhile, as damaged
            stat = path.stat()
            yield stat.st_mtime_ns, stat.st_size, path

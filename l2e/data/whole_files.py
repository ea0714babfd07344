"""Whole files of a web server on disk, resumed where an earlier fetch broke off."""

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from l2e.data.remote_file import RangeReader, RemoteFile
from l2e.errors import UserError

_PIECE = 16 << 20  # bytes of one request
_AT_ONCE = 4  # requests under way
_READ = 1 << 20  # bytes hashed at a time


def published_sha256(location: str, file: RemoteFile) -> str | None:
    """The sha256 that the Hugging Face hub states of a large file (its tag); None where nobody states one."""
    tag = file.etag.strip('"')
    return tag if location.startswith("hf://") and re.fullmatch(r"[0-9a-f]{64}", tag) else None


def part_of(target: Path, file: RemoteFile) -> Path:
    """Where the bytes of an unfinished fetch lie; other content on the server has another."""
    known = hashlib.sha256(f"{file.url} {file.size} {file.etag}".encode()).hexdigest()[:16]
    return target.with_name(f".{target.name}.{known}.part")


def bytes_here(target: Path, file: RemoteFile) -> int:
    """Bytes of an unfinished fetch."""
    part = part_of(target, file)
    size = part.stat().st_size if part.exists() else 0
    return size if size <= file.size else 0


def fetch_whole(
    reader: RangeReader, file: RemoteFile, target: Path, sha256: str | None, report: Callable[[int], None]
) -> str:
    """Have the file at `target`; what is there is replaced once all is fetched and checked.

    Args:
        reader: asks the server.
        file: what is fetched.
        target: path of the result.
        sha256: what it must be; None where nobody states it.
        report: told the bytes of each piece that came.

    Returns:
        Its sha256.

    Raises:
        UserError: the server did not give it, or the content is not what it states.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target, file)
    done = bytes_here(target, file)
    with part.open("r+b" if done else "wb") as out:
        digest = hashlib.sha256()
        for piece in iter(lambda: out.read(_READ) if done else b"", b""):
            digest.update(piece)
        for piece in _pieces(reader, file, done):
            out.write(piece)
            digest.update(piece)
            report(len(piece))
        out.flush()
        os.fsync(out.fileno())
    found = digest.hexdigest()
    if sha256 is not None and found != sha256:
        part.unlink()
        raise UserError(f"{file.url}: its sha256 is {found}, the server states {sha256}; start again to fetch it anew")
    os.replace(part, target)
    return found


def _pieces(reader: RangeReader, file: RemoteFile, done: int) -> Iterator[bytes]:
    """What follows byte `done`, in order; the next pieces are fetched while one is taken."""
    starts = iter(range(done, file.size, _PIECE))
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, "l2e-fetch") as pool:
        try:
            while True:
                while len(waiting) < _AT_ONCE and (start := next(starts, None)) is not None:
                    waiting.append(pool.submit(reader.read, file, start, min(start + _PIECE, file.size)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

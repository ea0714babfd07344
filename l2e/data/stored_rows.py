"""Rows of a remote set on disk: which are missing, fetching them, checking them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from l2e.data.remote_blocks import Place, RemoteBlocks
from l2e.data.shards import PileShards

_AT_ONCE = 8  # blocks fetched at a time


def blocks_of(shards: PileShards, rows: Sequence[range]) -> list[Place]:
    """The blocks that these rows and the fingerprint need."""
    return sorted({place for part in rows for place in shards.blocks(part)})


def bytes_of(shards: PileShards, places: Sequence[Place]) -> int:
    """Bytes of the blocks."""
    return sum(_remote(shards).size(place) for place in places)


def absent_blocks(shards: PileShards, rows: range) -> list[Place]:
    """Blocks that reading `rows` would have to fetch; [] for local files. Looks at names alone: milliseconds."""
    return shards.remote.absent(shards.blocks(rows)) if shards.remote is not None else []


def fetch_blocks(shards: PileShards, rows: range, report: Callable[[int], None]) -> None:
    """Have all blocks of `rows` on disk; those that are there are not asked for again.

    Raises:
        UserError: the server did not give one, or the disk did not take it; the others are kept.
    """
    remote = _remote(shards)
    wanted = shards.blocks(rows)
    absent = set(remote.absent(wanted))
    for place in wanted:
        if place not in absent:
            remote.touch(place)  # before others are evicted for the new ones
    with ThreadPoolExecutor(_AT_ONCE, "l2e-fetch") as pool:
        try:
            for done in as_completed({pool.submit(_keep, remote, place) for place in sorted(absent)}):
                report(done.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def damaged_blocks(shards: PileShards, places: Sequence[Place], report: Callable[[int], None]) -> list[Place]:
    """Blocks that are missing or whose checksum does not hold; every block is read."""
    remote, found, lock = _remote(shards), [], threading.Lock()

    def check(place: Place) -> None:
        whole = remote.is_whole(place)
        with lock:
            report(remote.size(place))
            if not whole:
                found.append(place)

    with ThreadPoolExecutor(_AT_ONCE, "l2e-verify") as pool:
        list(pool.map(check, places))
    return sorted(found)


def _keep(remote: RemoteBlocks, place: Place) -> int:
    remote.keep(place)
    return remote.size(place)


def _remote(shards: PileShards) -> RemoteBlocks:
    if shards.remote is None:
        raise ValueError(f"{shards.location} lies here")
    return shards.remote

"""Blocks of remote files, fetched when they are read or ahead in the background."""

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from l2e.data.block_cache import BlockCache
from l2e.data.remote_file import RangeReader, RemoteFile
from l2e.errors import UserError

Place = tuple[int, int]
"""Number of a file and of a block in it."""

_MEMORY_BLOCKS = 8  # checked blocks kept in memory, so that neighbouring rows do not read their block again
_WORKERS = 4  # threads that fetch ahead
_MAX_AHEAD = 64  # blocks waiting to be fetched ahead; more are left to the read


class RemoteBlocks:
    """Aligned blocks of files on a server, fetched when needed or ahead in the background.

    A block is looked for in memory, then on disk, then on the server. Threads that fetch ahead put it into the
    first two; what they fail on is raised when the block is read, and a later read tries anew.

    Args:
        files: what is read, numbered from 0.
        reader: fetches from the server; closed with this.
        cache: keeps blocks on disk.
        block_size: bytes; blocks begin at its multiples in each file.
        offline: blocks that are not in the cache are refused instead of fetched.
    """

    def __init__(
        self, files: list[RemoteFile], reader: RangeReader, cache: BlockCache, block_size: int, offline: bool
    ) -> None:
        self.sizes = [file.size for file in files]
        self._remote = files
        self._reader = reader
        self._cache = cache
        self._block_size = block_size
        self._offline = offline
        self._lock = threading.Lock()  # over the three that follow
        self._memory: OrderedDict[Place, bytes] = OrderedDict()
        self._ahead: dict[Place, Future[None]] = {}
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[tuple[Place, Future[None]] | None] = queue.SimpleQueue()

    def part(self, file: int, start: int, stop: int) -> bytes:
        """Bytes of a file from `start` on, up to `stop` or the end of the block."""
        block, within = divmod(start, self._block_size)
        # A copy, not a view: rows scattered over many blocks must not keep all of them in memory.
        return self._block((file, block))[within : within + stop - start]

    def prefetch(self, file: int, start: int, stop: int) -> None:
        """Fetch bytes [start, stop) of a file in the background, as far as 64 waiting blocks allow."""
        for place in self.places(file, start, stop):
            with self._lock:
                if len(self._ahead) >= _MAX_AHEAD:
                    return
                if place in self._memory or place in self._ahead:
                    continue
                future: Future[None] = Future()
                self._ahead[place] = future
                self._start_threads()
            self._jobs.put((place, future))

    def places(self, file: int, start: int, stop: int) -> Iterator[Place]:
        """The blocks that hold bytes [start, stop) of a file."""
        for block in range(start // self._block_size, (stop - 1) // self._block_size + 1):
            yield file, block

    def size(self, place: Place) -> int:
        """Bytes of a block."""
        return min(self._block_size, self.sizes[place[0]] - place[1] * self._block_size)

    def absent(self, places: Sequence[Place]) -> list[Place]:
        """Those of `places` that are not on disk, by the names there alone."""
        by_key = {self._key(place): place for place in places}
        return [by_key[key] for key in self._cache.absent(list(by_key))]

    def keep(self, place: Place) -> None:
        """Have the block on disk, fetched if it is not there, and mark it as just used.

        Raises:
            UserError: the server did not give it, or it could not be written.
        """
        key = self._key(place)
        self._cache.get_or_fetch(key, lambda: self._fetch(place))
        if self._cache.absent([key]):
            raise UserError(f"{self._cache.folder}: a fetched block could not be kept there; is the disk full?")

    def touch(self, place: Place) -> None:
        """Mark a block on disk as just used, so that others are evicted before it."""
        self._cache.touch(self._key(place))

    def is_whole(self, place: Place) -> bool:
        """Whether the block is on disk and its checksum holds; one that is damaged is removed."""
        return self._cache.get(self._key(place)) is not None

    def close(self) -> None:
        """End the threads and the connections; a fetch that runs is waited for, up to its timeout."""
        with self._lock:
            for future in self._ahead.values():
                future.cancel()
            threads, self._threads = self._threads, []
        self._reader.close()
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _block(self, place: Place) -> bytes:
        """The block, from a fetch ahead if one runs, else from where it is nearest."""
        with self._lock:
            future = self._ahead.get(place)
        if future is not None and not future.cancel():  # cancelled while it waited: fetched here and now
            try:
                future.result()
            finally:
                self._forget(place, future)
        return self._load(place)

    def _load(self, place: Place) -> bytes:
        with self._lock:
            if place in self._memory:
                self._memory.move_to_end(place)
                return self._memory[place]
        content = self._cache.get_or_fetch(self._key(place), lambda: self._fetch(place))
        with self._lock:
            self._memory[place] = content
            while len(self._memory) > _MEMORY_BLOCKS:
                self._memory.popitem(last=False)
        return content

    def _span(self, place: Place) -> tuple[RemoteFile, int, int]:
        """File, start and stop of a block."""
        start = place[1] * self._block_size
        return self._remote[place[0]], start, start + self.size(place)

    def _key(self, place: Place) -> str:
        """Size and tag are part of it: blocks of a file that has changed never mix with the old ones."""
        file, start, stop = self._span(place)
        return f"{file.url} {file.size} {file.etag} {start}-{stop}"

    def _fetch(self, place: Place) -> bytes:
        file, start, stop = self._span(place)
        if self._offline:
            raise UserError(f"{file.url}: bytes {start} to {stop} are not in the cache, and this run is offline")
        return self._reader.read(file, start, stop)

    def _start_threads(self) -> None:
        while len(self._threads) < _WORKERS:
            # Daemons: a program that ends does not wait for what it will not read.
            thread = threading.Thread(target=self._work, name="l2e-prefetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            place, future = job
            if not future.set_running_or_notify_cancel():
                self._forget(place, future)
                continue
            try:
                self._load(place)
            except Exception as error:
                future.set_exception(error)  # stays until the block is read
            else:
                future.set_result(None)
                self._forget(place, future)

    def _forget(self, place: Place, future: Future[None]) -> None:
        with self._lock:
            if self._ahead.get(place) is future:
                del self._ahead[place]

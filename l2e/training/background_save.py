"""One restart point on its way to the disk, while training goes on."""

import hashlib
import json
import logging
import shutil
import threading
import time
from pathlib import Path

from l2e.files import flush_to_disk, write_atomically, write_durably
from l2e.manifest import Manifest, write_manifest
from l2e.training.restart_points import prune

log = logging.getLogger("l2e.training")

_POLL = 0.05
_PATIENCE = 10.0  # for the other ranks, once this process wants to end: they may be dead


class BackgroundSave:
    """Write this rank's files under a temporary name; rank 0 adds the manifest when all are there, and renames.

    Nothing waits for anybody: each rank's part is a file that says which files it wrote, with their hashes.

    Args:
        final: the restart point to be.
        files: this rank's, by their path within.
        rank, ranks: this process among all.
        facts: for the manifest.
        keep: restart points to keep once this one is complete.
    """

    def __init__(
        self, final: Path, files: dict[str, memoryview], *, rank: int, ranks: int, facts: Manifest, keep: int
    ) -> None:
        self.final = final
        self.temporary = final.with_name(f".{final.name}.tmp")
        self.files = files
        self.rank = rank
        self.ranks = ranks
        self.facts = facts
        self.keep = keep
        self.error: str | None = None
        self._written = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"save-{final.name}")
        self._thread.start()

    def wait_for_own_part(self) -> str | None:
        """Wait until this rank's files are on the disk; returns what went wrong."""
        self._written.wait()
        return self.error

    def finish(self) -> str | None:
        """Wait until all is done; on rank 0 the restart point is complete then. Returns what went wrong."""
        self._thread.join()
        return self.error

    def abandon(self) -> None:
        """Give up: a part is missing."""
        self._stop.set()
        self._thread.join()
        if self.rank == 0:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _run(self) -> None:
        started = time.perf_counter()
        try:
            self._write_part()
            self._written.set()
            if self.rank == 0 and self._all_parts_are_there():
                self._complete()
                seconds = time.perf_counter() - started
                log.info("restart point %s written in %.1f s", self.final.name, seconds, extra={"file_only": True})
        except Exception as error:  # nobody sees a thread's exception; the owner asks for it
            self.error = f"{type(error).__name__}: {error}"
            log.error("%s could not be written: %s", self.final, self.error)
        finally:
            self.files = {}
            self._written.set()

    def _write_part(self) -> None:
        (self.temporary / "parts").mkdir(parents=True, exist_ok=True)
        written = {}
        for name, content in self.files.items():
            path = self.temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, content)
            written[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": content.nbytes}
        write_atomically(self._part(self.rank), json.dumps(written))

    def _part(self, rank: int) -> Path:
        return self.temporary / "parts" / f"rank{rank}.json"

    def _all_parts_are_there(self) -> bool:
        """Wait for the other ranks; False when the save was given up, or this process ends without them."""
        deadline = None
        while not self._stop.is_set():
            if all(self._part(rank).exists() for rank in range(self.ranks)):
                return True
            if deadline is None and not threading.main_thread().is_alive():
                deadline = time.monotonic() + _PATIENCE
            if deadline is not None and time.monotonic() > deadline:
                return False
            self._stop.wait(_POLL)
        return False

    def _complete(self) -> None:
        files = {k: v for r in range(self.ranks) for k, v in json.loads(self._part(r).read_text()).items()}
        shutil.rmtree(self.temporary / "parts")
        write_manifest(self.temporary, self.facts, files)
        self.temporary.rename(self.final)
        flush_to_disk(self.final.parent)
        try:
            prune(self.final.parent, self.keep)
        except OSError as error:
            log.warning("an old restart point could not be removed: %s", error)

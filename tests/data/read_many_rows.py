"""Read rows through the loader and print how far the process's own memory grows; test_loader_memory.py runs it.

Its one argument is JSON: location, options of PileShards, rows of a pass, passes, and the folder of the block cache.
"""

import fcntl
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from l2e.data import PileShards, StepLoader

BATCH, MICRO_BATCH = 1000, 8


def own_memory() -> int:
    """Bytes that belong to no file: maps of the page cache do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(line.split()[1])


def bytes_on_disk(folder: Path) -> int:
    """Bytes of all blocks; under the lock of those who write, so that none comes or goes while they are added up."""
    with (folder / "write.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in folder.glob("*.block"))


def growth(loader: StepLoader, steps: list[int], use: Callable[[Tensor], object]) -> int:
    """The most bytes by which memory passes what it was after the first tenth of the steps."""
    start = peak = 0
    for index, step in enumerate(steps):
        for tokens in loader.micro_batches(step):
            use(tokens)
        if index == len(steps) // 10:
            gc.collect()
            start = own_memory()
        if index % 10 == 0 or index == len(steps) - 1:
            peak = max(peak, own_memory())
    return peak - start


def main() -> None:
    """Without a leak over all passes, then with one over the first tenth of a pass."""
    told = json.loads(sys.argv[1])
    options, cache = told["options"], told.get("cache")
    shards = PileShards(told["location"], 65, cache_dir=cache and Path(cache), **options)
    loader = StepLoader(shards, BATCH, MICRO_BATCH, 0, 1)
    steps = list(range(told["rows"] // BATCH))
    read, on_disk = 0, 0

    def count(tokens: Tensor) -> None:
        nonlocal read, on_disk
        read += len(tokens)
        if cache and read % BATCH == 0:
            on_disk = max(on_disk, bytes_on_disk(Path(cache) / "blocks"))

    clean = growth(loader, steps * told["passes"], count)
    kept: list[Tensor] = []
    leaking = growth(loader, steps[: len(steps) // 10], kept.append)
    shards.close()
    print(json.dumps({"rows": read, "clean": clean, "leaking": leaking, "on_disk": on_disk}))


if __name__ == "__main__":
    main()

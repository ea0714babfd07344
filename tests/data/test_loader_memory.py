"""The loader's memory does not grow with the rows that it has read."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_remote_shards import RangeServer

ROW_LENGTH = 65
BOUND = 2 << 20


@pytest.fixture
def server() -> Iterator[RangeServer]:
    server = RangeServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def files(rows: int, count: int) -> dict[str, bytes]:
    """Random rows in `count` files, by name; they straddle the borders."""
    raw = np.random.default_rng(0).integers(0, 50_000, rows * ROW_LENGTH, dtype="<u2").tobytes()
    size = 2 * (len(raw) // (2 * count) + 1)
    parts = [raw[start : start + size] for start in range(0, len(raw), size)]
    return {f"document-{index:05d}-of-{len(parts) - 1:05d}.bin": part for index, part in enumerate(parts)}


def read(**told: Any) -> dict[str, int]:
    script = Path(__file__).with_name("read_many_rows.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(told)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_million_rows_from_local_files(tmp_path: Path) -> None:
    for name, content in files(1_000_000, 3).items():
        (tmp_path / name).write_bytes(content)
    found = read(location=str(tmp_path), options={}, rows=1_000_000, passes=1)
    assert found["rows"] == 1_000_000
    assert found["clean"] < BOUND
    assert found["leaking"] > 2 * BOUND  # all kept, of a tenth as many rows


def test_rows_through_the_block_cache(server: RangeServer, tmp_path: Path) -> None:
    server.files = files(100_000, 3)  # 13 MB, 200 blocks; the cache holds 60 of them, memory 8
    bound = 4 << 20
    options = {"block_size": 1 << 16, "cache_bytes": bound, "last_index": 2}
    found = read(location=server.url, options=options, rows=100_000, passes=2, cache=str(tmp_path))
    assert found["rows"] == 200_000
    assert found["clean"] < BOUND
    assert found["leaking"] > 2 * BOUND
    assert bound / 2 < found["on_disk"] <= bound
    assert len(server.ranges) >= 2 * 190  # the second pass fetches anew: the cache is smaller than the set

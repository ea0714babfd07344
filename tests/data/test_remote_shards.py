import hashlib
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import numpy.typing as npt
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2e.data.block_cache import BlockCache
from l2e.data.shards import PileShards
from l2e.errors import UserError

ROWS, ROW_LENGTH, PER_FILE, LAST = 500, 7, 1000, 3  # rows straddle the borders of files of 2000 bytes
BLOCK = 256


class RangeServer(ThreadingHTTPServer):
    """Serves `files` by ranges; `faults` says what goes wrong with the coming requests for more than one byte."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etag = "one"
        self.faults: list[str] = []
        self.every: str = ""  # what goes wrong with every request, also for one byte
        self.ranges: list[tuple[str, int, int]] = []  # of all requests for more than one byte
        self.probes = 0
        self.served = 0  # bytes of bodies
        self.authorisations: list[tuple[str, str | None]] = []  # path and header, as they came in

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # who reads breaks off on purpose

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def forget(self) -> None:
        self.ranges, self.probes, self.served = [], 0, 0


class Handler(BaseHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.authorisations.append((self.path, self.headers.get("Authorization")))
        if "/resolve/" in self.path:
            self.redirect()
            return
        name = self.path.partition("?")[0].rpartition("/")[2]
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match
        start, stop = int(match[1]), int(match[2]) + 1
        fault = server.every
        if stop - start > 1:
            server.ranges.append((name, start, stop))
            fault = server.faults.pop(0) if server.faults else fault
        else:
            server.probes += 1
        self.answer(server.files.get(name), start, stop, fault)

    def redirect(self) -> None:
        """As the Hugging Face hub: the tag of the content, and another host for the bytes."""
        self.send_response(302)
        self.send_header("X-Linked-ETag", self.server.etag)
        name = self.path.rpartition("/")[2]
        self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn/{name}?signature=1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, content: bytes | None, start: int, stop: int, fault: str) -> None:
        if content is None or fault == "404":
            self.send({}, b"", 404)
            return
        if fault.isdigit():
            self.send({}, b"sorry", int(fault))
            return
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "stall":
            time.sleep(1.0)
            self.close_connection = True
            return
        if fault == "ignore":
            self.send_whole()
            return
        if start >= len(content):
            self.send({"Content-Range": f"bytes */{len(content)}"}, b"", 416)
            return
        body = content[start:stop]
        given = start + (2 if fault == "shifted" else 0)
        total = "*" if fault == "no total" else len(content)
        tag = str(time.monotonic_ns()) if self.path.startswith("/cdn/") else self.server.etag
        headers = {"Content-Range": f"bytes {given}-{start + len(body) - 1}/{total}", "ETag": tag}
        if fault == "compressed":
            headers["Content-Encoding"] = "gzip"
        if fault == "short":
            body = body[: len(body) // 2]
        if fault == "long":
            body += b"more"
        self.send(headers, body, 206, whole=fault != "cut")

    def send(self, headers: dict[str, str], body: bytes, status: int, whole: bool = True) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        sent = body if whole else body[: len(body) // 2]
        self.server.served += len(sent)  # before anything goes out: who reads may look at it at once
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = not whole

    def send_whole(self) -> None:
        """64 MiB, as long as somebody reads them."""
        self.send_response(200)
        self.send_header("Content-Length", str(64 << 20))
        self.end_headers()
        self.close_connection = True
        try:
            for _ in range(64):
                self.wfile.write(bytes(1 << 20))
                self.server.served += 1 << 20
        except OSError:
            pass


@pytest.fixture
def server() -> Iterator[RangeServer]:
    server = RangeServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fill(server)
    yield server
    server.shutdown()
    server.server_close()


def fill(server: RangeServer, seed: int = 0, rows: int = ROWS) -> npt.NDArray[np.uint16]:
    """Put a set of files on the server; its rows."""
    tokens = np.random.default_rng(seed).integers(0, 1 << 16, rows * ROW_LENGTH).astype("<u2")
    raw = tokens.tobytes()
    starts = range(0, len(raw), 2 * PER_FILE)
    names = [f"document-{index:05d}-of-{len(starts) - 1:05d}.bin" for index in range(len(starts))]
    server.files = {name: raw[start : start + 2 * PER_FILE] for name, start in zip(names, starts, strict=True)}
    return tokens.reshape(rows, ROW_LENGTH)


def open_shards(server: RangeServer, cache: Path, **more: Any) -> PileShards:
    options = {"block_size": BLOCK, "last_index": LAST, "first_wait": 0.01, "retries": 4, "timeout": 0.3, **more}
    return PileShards(f"{server.url}/folder/", ROW_LENGTH, cache_dir=cache, **options)


def expected_rows() -> npt.NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 1 << 16, ROWS * ROW_LENGTH).astype("<u2").reshape(ROWS, ROW_LENGTH)


def blocks(cache: Path) -> list[Path]:
    return sorted((cache / "blocks").glob("*.block"))


def test_rows_equal_those_of_the_local_files(server: RangeServer, tmp_path: Path) -> None:
    for name, content in server.files.items():
        (tmp_path / name).write_bytes(content)
    local, remote = PileShards(tmp_path, ROW_LENGTH), open_shards(server, tmp_path / "cache")
    assert len(local) == len(remote) == ROWS
    assert local.gather(range(ROWS)).tolist() == remote.gather(range(ROWS)).tolist() == expected_rows().tolist()
    assert [remote[row].tolist() for row in range(ROWS)] == expected_rows().tolist()
    assert local.fingerprint() == remote.fingerprint()


def test_only_the_blocks_of_the_rows_are_fetched_and_each_once(server: RangeServer, tmp_path: Path) -> None:
    shards = open_shards(server, tmp_path)
    assert server.probes == LAST + 1
    assert server.served == LAST + 1
    server.forget()
    shards[142]  # bytes 1988 to 2002: the last block of file 0, which is short, and the first of file 1
    names = sorted(server.files)
    assert server.ranges == [(names[0], 1792, 2000), (names[1], 0, 256)]
    assert server.served == 208 + 256
    shards.gather(range(130, 150))  # bytes 1820 to 2100: the same two blocks
    assert server.served == 208 + 256
    shards.gather(range(ROWS))
    assert server.served == 2 * ROWS * ROW_LENGTH
    assert len(set(server.ranges)) == len(server.ranges)


def test_a_second_instance_reads_from_the_disk(server: RangeServer, tmp_path: Path) -> None:
    open_shards(server, tmp_path).gather(range(ROWS))
    server.forget()
    assert open_shards(server, tmp_path).gather(range(ROWS)).tolist() == expected_rows().tolist()
    assert (server.ranges, server.probes) == ([], LAST + 1)  # asked whether the files are still the same


def test_offline_asks_nothing(server: RangeServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="offline, and nothing of it in"):
        open_shards(server, tmp_path, offline=True)
    open_shards(server, tmp_path).gather(range(100))
    server.forget()
    shards = open_shards(server, tmp_path, offline=True)
    assert shards.gather(range(100)).tolist() == expected_rows()[:100].tolist()
    with pytest.raises(UserError, match="not in the cache, and this run is offline"):
        shards[400]
    assert (server.ranges, server.probes) == ([], 0)


def test_with_the_server_down_cached_rows_are_read(server: RangeServer, tmp_path: Path) -> None:
    open_shards(server, tmp_path).gather(range(100))
    server.every = "503"
    shards = open_shards(server, tmp_path, retries=1)
    assert shards.gather(range(100)).tolist() == expected_rows()[:100].tolist()
    with pytest.raises(UserError, match="no whole answer in 2 attempts"):
        shards[400]
    with pytest.raises(UserError, match="no whole answer in 2 attempts"):
        open_shards(server, tmp_path / "other", retries=1)


@pytest.mark.parametrize("fault", ["drop", "cut", "short", "long", "stall", "500", "503", "429"])
def test_what_may_pass_is_survived(server: RangeServer, tmp_path: Path, fault: str) -> None:
    shards = open_shards(server, tmp_path)
    server.faults = [fault, "", fault, fault]
    assert shards.gather(range(ROWS)).tolist() == expected_rows().tolist()
    assert not server.faults
    assert open_shards(server, tmp_path, offline=True).gather(range(ROWS)).tolist() == expected_rows().tolist()


@pytest.mark.parametrize("fault", ["drop", "cut", "short", "long", "500"])
def test_what_does_not_pass_is_an_error_and_nothing_is_kept(server: RangeServer, tmp_path: Path, fault: str) -> None:
    shards = open_shards(server, tmp_path)
    server.faults = [fault] * 5
    with pytest.raises(UserError, match=r"document-00000-of-00003\.bin: no whole answer in 5 attempts"):
        shards[0]
    assert not blocks(tmp_path)
    assert shards[0].tolist() == expected_rows()[0].tolist()  # the server is well again


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("ignore", "ignores Range"),
        ("404", r"\(404\)"),
        ("403", r"access refused \(403\)"),
        ("401", r"access refused \(401\)"),
        ("400", "answered with status 400"),
        ("shifted", "the server says it sends 'bytes 2-255/2000'"),
        ("no total", r"the server says it sends 'bytes 0-255/\*'"),
        ("compressed", "compresses"),
    ],
)
def test_what_is_refused_at_once(server: RangeServer, tmp_path: Path, fault: str, message: str) -> None:
    shards = open_shards(server, tmp_path)
    server.forget()
    server.faults = [fault]
    with pytest.raises(UserError, match=message):
        shards[0]
    assert len(server.ranges) == 1  # not tried again
    assert server.served < 32 << 20  # of the 64 MiB that "ignore" offers
    assert not blocks(tmp_path)


def test_a_server_without_ranges_is_refused_at_the_start(server: RangeServer, tmp_path: Path) -> None:
    server.every = "ignore"
    with pytest.raises(UserError, match="ignores Range"):
        open_shards(server, tmp_path)
    assert server.served < 32 << 20


def change_tag(server: RangeServer) -> None:
    fill(server, seed=1)
    server.etag = "two"


def change_size(server: RangeServer) -> None:
    fill(server, seed=1, rows=ROWS - 3)


@pytest.mark.parametrize("change", [change_tag, change_size])
def test_a_changed_file_is_refused_and_then_read_anew(
    server: RangeServer, tmp_path: Path, change: Callable[[RangeServer], None]
) -> None:
    shards = open_shards(server, tmp_path)
    shards.gather(range(200))
    before = blocks(tmp_path)
    change(server)
    with pytest.raises(UserError, match="changed on the server"):
        shards[ROWS - 1]
    assert blocks(tmp_path) == before
    anew = open_shards(server, tmp_path)
    changed = np.frombuffer(b"".join(server.files.values()), "<u2").reshape(-1, ROW_LENGTH)
    # All files have another tag after the first change; after the second, only the last has another size.
    first = 0 if change is change_tag else 6000 // (2 * ROW_LENGTH) + 1
    assert anew.gather(range(first, len(anew))).tolist() == changed[first:].tolist()


def test_a_damaged_block_is_fetched_again(
    server: RangeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_shards(server, tmp_path).gather(range(ROWS))
    flipped, cut, empty, swapped, other, *_ = blocks(tmp_path)
    content = bytearray(flipped.read_bytes())
    content[100] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-5])
    empty.write_bytes(b"")
    swapped.write_bytes(other.read_bytes())  # whole, but of another place
    server.forget()
    with caplog.at_level(logging.WARNING, logger="l2e"):
        assert open_shards(server, tmp_path).gather(range(ROWS)).tolist() == expected_rows().tolist()
    assert len(server.ranges) == 4
    assert caplog.text.count("is damaged") == 4
    server.forget()
    open_shards(server, tmp_path).gather(range(ROWS))
    assert not server.ranges


def test_the_bound_of_the_cache_holds(server: RangeServer, tmp_path: Path) -> None:
    bound = 5 * (BLOCK + 48)
    shards = open_shards(server, tmp_path, cache_bytes=bound)
    for row in range(0, ROWS, 11):
        assert shards[row].tolist() == expected_rows()[row].tolist()
        assert sum(path.stat().st_size for path in blocks(tmp_path)) <= bound
    assert len(blocks(tmp_path)) >= 4


def test_the_oldest_by_access_goes_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1600)
    for key in "abc":
        cache.put(key, bytes(450))
        time.sleep(0.02)
    assert cache.get("a") == bytes(450)  # now b is the one read longest ago
    (tmp_path / "killed.tmp").write_bytes(bytes(300))
    cache.put("d", bytes(450))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
    assert not list(tmp_path.glob("*.tmp"))
    cache.put("too large", bytes(2000))
    assert cache.get("too large") is None
    assert cache.get("d") is not None


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    server: RangeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "blocks").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, logger="l2e"):
        assert open_shards(server, tmp_path).gather(range(ROWS)).tolist() == expected_rows().tolist()
    assert caplog.text.count("the block cache cannot be used") == 1


def test_prefetch_fetches_in_the_background(server: RangeServer, tmp_path: Path) -> None:
    shards = open_shards(server, tmp_path)
    server.forget()
    shards.prefetch(range(50, 120))  # bytes 700 to 1680: blocks 2 to 6 of file 0
    deadline = time.monotonic() + 10
    while len(blocks(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(start for _, start, _ in server.ranges) == [512, 768, 1024, 1280, 1536]
    shards.prefetch(range(50, 120))
    assert shards.gather(range(50, 120)).tolist() == expected_rows()[50:120].tolist()
    assert len(server.ranges) == 5
    shards.prefetch(range(ROWS))
    assert shards.gather(range(ROWS)).tolist() == expected_rows().tolist()
    assert len(set(server.ranges)) == len(server.ranges)  # none twice
    shards.close()


def test_an_error_of_the_prefetch_comes_up_at_the_read(server: RangeServer, tmp_path: Path) -> None:
    shards = open_shards(server, tmp_path)
    server.faults = ["404"]
    shards.prefetch(range(1))
    deadline = time.monotonic() + 10
    while server.faults and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shards[200].tolist() == expected_rows()[200].tolist()  # of another block
    with pytest.raises(UserError, match="404"):
        shards[0]
    assert shards[0].tolist() == expected_rows()[0].tolist()
    shards.close()


READER = """
import hashlib, sys, numpy as np
from pathlib import Path
from l2e.data.shards import PileShards

url, folder = sys.argv[1], Path(sys.argv[2])
open_shards = lambda name, bound: PileShards(
    url, 7, cache_dir=folder / name, block_size=256, last_index=3, cache_bytes=bound)
print("ready", flush=True)
sys.stdin.readline()
roomy, tight = open_shards("roomy", 1 << 20), open_shards("tight", 1500)
for row in range(500):
    print(hashlib.sha256(roomy[row].tobytes()).hexdigest())
for row in np.random.default_rng(int(sys.argv[3])).permutation(500)[:200].tolist():
    print(row, hashlib.sha256(tight[row].tobytes()).hexdigest())
"""


def test_two_processes_at_once_read_right_and_fetch_once(server: RangeServer, tmp_path: Path) -> None:
    command = [sys.executable, "-c", READER, f"{server.url}/folder", str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    readers = [subprocess.Popen([*command, str(seed)], **pipes) for seed in range(2)]
    for reader in readers:
        assert reader.stdout.readline() == "ready\n"  # so that they read at the same time
    outputs = [[""], [""]]

    def finish(number: int) -> None:
        outputs[number] = readers[number].communicate("\n", timeout=60)[0].split("\n")

    threads = [threading.Thread(target=finish, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hashes = [hashlib.sha256(row.tobytes()).hexdigest() for row in expected_rows()]
    for lines in outputs:
        assert lines[:ROWS] == hashes
        shuffled = [line.split() for line in lines[ROWS:-1]]
        assert len(shuffled) == 200
        assert all(hashes[int(row)] == digest for row, digest in shuffled)
    assert sum(path.stat().st_size for path in blocks(tmp_path / "tight")) <= 1500
    first = server.ranges[:28]
    assert len(blocks(tmp_path / "roomy")) == 28 == len(set(first))  # each block once, though two needed it


def test_a_hugging_face_dataset(server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(requests.sessions, "get_netrc_auth", lambda *_: None)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    options: dict[str, Any] = {"cache_dir": tmp_path, "block_size": BLOCK, "last_index": LAST}
    shards = PileShards("hf://datasets/org/name@v1", ROW_LENGTH, **options)
    assert shards.gather(range(ROWS)).tolist() == expected_rows().tolist()
    paths = {path for path, _ in server.authorisations}
    assert "/datasets/org/name/resolve/v1/document-00000-of-00003.bin" in paths
    for path, authorisation in server.authorisations:  # the token is for the hub alone
        assert (authorisation is not None) == ("/resolve/" in path)


def test_locations_that_are_refused(server: RangeServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a cache folder"):
        PileShards(server.url)
    with pytest.raises(UserError, match="not of the form hf://datasets/ORG/NAME"):
        PileShards("hf://org/name", cache_dir=tmp_path)
    with pytest.raises(UserError, match=r"document-00000-of-00020\.bin: not on the server \(404\); expected are 21"):
        PileShards(server.url, cache_dir=tmp_path)
    server.files = {"pile_0.87_deduped_text_document-00000-of-00082.bin": bytes(28)}
    with pytest.raises(UserError, match="document-level set"):
        PileShards(server.url, cache_dir=tmp_path)


def test_a_remote_file_of_the_wrong_size(server: RangeServer, tmp_path: Path) -> None:
    server.files["document-00001-of-00003.bin"] = bytes(1998)
    with pytest.raises(UserError, match=r"document-00001-of-00003\.bin: 1998 bytes, expected exactly the 2000"):
        open_shards(server, tmp_path)
    server.files["document-00001-of-00003.bin"] = b""
    with pytest.raises(UserError, match=r"document-00001-of-00003\.bin: the file is empty"):
        open_shards(server, tmp_path)


@given(block_size=st.integers(1, 3000), first=st.integers(0, ROWS - 1), count=st.integers(1, 40))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_block_size_and_rows(
    server: RangeServer, tmp_path_factory: pytest.TempPathFactory, block_size: int, first: int, count: int
) -> None:
    rows = range(first, min(first + max(1, count * min(block_size, 64) // 64), ROWS))
    shards = open_shards(server, tmp_path_factory.mktemp("cache"), block_size=block_size)
    shards.prefetch(rows)
    assert shards.gather(rows).tolist() == expected_rows()[rows.start : rows.stop].tolist()
    shards.close()

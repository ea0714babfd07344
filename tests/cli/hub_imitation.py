"""A server that answers like the Hugging Face hub, as far as the real client libraries ask it for preparing a run.

Large files (.bin, .parquet) lie on "another host", as the hub keeps them, and carry their sha256 as the tag.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = (".bin", ".parquet")


class Hub(ThreadingHTTPServer):
    """Serves `root/models/ORG/NAME` and `root/datasets/ORG/NAME` at HF_ENDPOINT = `url`."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bodies: list[tuple[str, int, int]] = []  # path, start and stop of what was sent of files
        self.requests = 0
        self.stop_after: int | None = None  # parts of .bin files, after which no more of them are sent
        self.stopped = threading.Event()

    def sent(self, suffix: str = "") -> int:
        """Bytes of the files whose name ends with `suffix` that went out."""
        return sum(stop - start for path, start, stop in self.bodies if path.endswith(suffix))

    def parts(self) -> list[tuple[str, int, int]]:
        """Parts of .bin files that went out, without the single bytes that describe them."""
        return [body for body in self.bodies if body[0].endswith(".bin") and body[2] - body[1] > 1]


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A running hub."""
    hub = Hub(root)
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests += 1
        path = unquote(self.path.partition("?")[0])
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self.tell_of_repository(*match.groups())
        elif match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/[^/]+(?:/(.+))?", path):
            self.list_folder(match[1], match[2], match[3] or "", "recursive=true" in self.path.lower())
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.send_file("datasets" if match[1] else "models", match[2], match[4])
        elif path.startswith("/cdn/"):
            self.send_bytes(self.server.root / path.removeprefix("/cdn/"), {})
        else:
            self.send_json({"error": "not found"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        match = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/paths-info/[^/]+", unquote(self.path))
        if match is None:
            self.send_json({"error": "not found"}, 404)
            return
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        folder = self.server.root / match[1] / match[2]
        self.send_json([entry(folder, folder / path) for path in paths if (folder / path).exists()])

    def tell_of_repository(self, kind: str, name: str) -> None:
        folder = self.server.root / kind / name
        if not folder.is_dir():
            self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        files = [entry(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": file["path"], **file} for file in files]
        self.send_json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})

    def list_folder(self, kind: str, name: str, below: str, recursive: bool) -> None:
        folder = self.server.root / kind / name
        if not (folder / below).is_dir():
            self.send_json({"error": "no such entry"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        found = (folder / below).rglob("*") if recursive else (folder / below).iterdir()
        self.send_json([entry(folder, path) for path in sorted(found)])

    def send_file(self, kind: str, name: str, file: str) -> None:
        path = self.server.root / kind / name / file
        known = {"X-Repo-Commit": COMMIT}
        if not path.is_file():
            code = "EntryNotFound" if path.parents[file.count("/")].is_dir() else "RepoNotFound"
            self.send_json({"error": code}, 404, {"X-Error-Code": code, **known})
        elif path.suffix in _LARGE:
            size = str(path.stat().st_size)
            linked = {"X-Linked-ETag": f'"{sha256(path)}"', "X-Linked-Size": size}
            location = f"http://localhost:{self.server.server_port}/cdn/{kind}/{name}/{file}"
            self.send(b"", 302, {"Location": location, **linked, **known})
        else:
            self.send_bytes(path, {"ETag": f'"{hashlib.sha1(path.read_bytes()).hexdigest()}"', **known})

    def send_bytes(self, path: Path, headers: dict[str, str]) -> None:
        content = path.read_bytes()
        headers = {"Accept-Ranges": "bytes", **headers}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start, stop = 0, len(content)
        if match:
            start, stop = int(match[1]), min(int(match[2] or len(content)) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        if self.command == "GET":
            last = self.server.stop_after
            if last is not None and path.suffix == ".bin" and stop - start > 1 and len(self.server.parts()) >= last:
                self.server.stopped.set()
                threading.Event().wait(60)  # the one who asks is killed meanwhile
                self.close_connection = True
                return
            self.server.bodies.append((str(path.relative_to(self.server.root)), start, stop))
        self.send(content[start:stop], 206 if match else 200, headers)

    def send_json(self, answer: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(answer).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entry(folder: Path, path: Path) -> dict[str, object]:
    """A file or folder as the hub's lists tell of it."""
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    size = path.stat().st_size
    large = {"lfs": {"oid": sha256(path), "sha256": sha256(path), "size": size, "pointerSize": 134}}
    blob = hashlib.sha1(path.read_bytes()).hexdigest()
    return {"type": "file", "path": name, "oid": blob, "size": size, **(large if path.suffix in _LARGE else {})}

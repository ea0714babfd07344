"""What a folder of weights is, and the hash of each of its files: written last, checked on load."""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from l2e.files import flush_to_disk, sha256_of, write_durably

MANIFEST = "manifest.json"
_THREADS = 8  # hashing leaves Python's lock; one thread does 1 to 2 GB/s

Manifest = dict[str, Any]


class DamagedError(Exception):
    """A folder is not what its manifest says; the message names the file."""


def describe_file(path: Path) -> dict[str, Any]:
    """Hash and size of a file."""
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def write_manifest(folder: Path, facts: Manifest, files: dict[str, dict[str, Any]] | None = None) -> None:
    """Write `folder/manifest.json`, on the disk when this returns.

    Args:
        folder: complete but for the manifest.
        facts: what the folder is; JSON.
        files: path within the folder to hash and size; None hashes all files and flushes them.
    """
    if files is None:
        paths = _files(folder)
        for path in paths:
            flush_to_disk(path)
        files = dict(zip((_name(path, folder) for path in paths), _describe(paths), strict=True))
    content = {**facts, "files": dict(sorted(files.items()))}
    content["sha256"] = hash_of(content)
    write_durably(folder / MANIFEST, json.dumps(content, indent=2).encode())
    for inner in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        flush_to_disk(inner)


def read_manifest(folder: Path) -> Manifest:
    """What the folder says it is; its files are not looked at.

    Raises:
        DamagedError: no manifest, or one that was changed.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        claimed = content.pop("sha256")
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{path} is no manifest") from None
    if claimed != hash_of(content):
        raise DamagedError(f"{path} was changed: it hashes to {hash_of(content)[:12]}, and says {str(claimed)[:12]}")
    return content


def verify(folder: Path) -> Manifest:
    """The manifest of a folder whose every file is there and has the hash that it should.

    Raises:
        DamagedError: a file is missing, has another size or other bytes; the first of them is named.
    """
    manifest = read_manifest(folder)
    expected = manifest["files"]
    for name, file in expected.items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{path} is missing")
        if path.stat().st_size != file["bytes"]:
            raise DamagedError(f"{path} has {path.stat().st_size:,} bytes, expected {file['bytes']:,}")
    for (name, file), found in zip(expected.items(), _describe([folder / name for name in expected]), strict=True):
        if found["sha256"] != file["sha256"]:
            raise DamagedError(
                f"{folder / name} has other bytes: sha256 {found['sha256'][:12]}..., expected {file['sha256'][:12]}..."
            )
    return manifest


def hash_of(tree: Any) -> str:
    """Hash of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _describe(paths: Iterable[Path]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(describe_file, paths))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()

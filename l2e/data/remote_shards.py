"""Where the files of a remote set of rows lie, and what their server says of them."""

import hashlib
import json
import logging
import re
from dataclasses import asdict
from pathlib import Path

from l2e.data.remote_file import RangeReader, RemoteFile, UnreachableError
from l2e.errors import UserError
from l2e.files import write_atomically

_log = logging.getLogger(__name__)

_DOCUMENT_LEVEL_FIRST = "pile_0.87_deduped_text_document-00000-of-00082.bin"
DOCUMENT_LEVEL = (
    "this is a document-level set (one entry per document, such as EleutherAI/pythia_deduped_pile_idxmaps): it does "
    "not hold the rows in training order; use the preshuffled set (EleutherAI/pile-deduped-pythia-preshuffled, "
    "files document-00000-of-00020.bin and on)"
)


def shard_name(index: int, last: int) -> str:
    """Name of a file of the set; `last` is the last index."""
    return f"document-{index:05d}-of-{last:05d}.bin"


def is_remote(location: str) -> bool:
    """Whether the files are asked from a server."""
    return location.startswith(("http://", "https://", "hf://"))


def _url(location: str, name: str) -> str:
    """URL of a file in a remote folder."""
    if not location.startswith("hf://"):
        return f"{location.rstrip('/')}/{name}"
    match = re.fullmatch(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+?))?/?", location)
    if match is None:
        raise UserError(f"{location}: not of the form hf://datasets/ORG/NAME[@REVISION][/FOLDER]; correct it")
    from huggingface_hub import hf_hub_url  # here: a slow import that only this kind of location needs

    return hf_hub_url(match[1], name, subfolder=match[3], repo_type="dataset", revision=match[2])


def authorisation(location: str) -> dict[str, str]:
    """The user's token for the Hugging Face hub, if it is asked."""
    if not location.startswith("hf://"):
        return {}
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="l2e")


def describe_all(location: str, last: int, reader: RangeReader, cache_dir: Path, offline: bool) -> list[RemoteFile]:
    """What the server says of the set's files; what it said before, if it is not to be asked or out of reach."""
    kept = cache_dir / f"files-{hashlib.sha256(f'{location} {last}'.encode()).hexdigest()[:16]}.json"
    if offline:
        if not kept.exists():
            raise UserError(f"{location}: offline, and nothing of it in {cache_dir}; fetch the rows first")
        return _read_kept(kept)
    try:
        files = [_describe(location, index, last, reader) for index in range(last + 1)]
    except UnreachableError as error:
        if not kept.exists():
            raise
        _log.warning("%s; going on with what %s tells of the files", error, kept)
        return _read_kept(kept)
    write_atomically(kept, json.dumps([asdict(file) for file in files], indent=1))
    return files


def _read_kept(path: Path) -> list[RemoteFile]:
    try:
        return [RemoteFile(**entry) for entry in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it") from error


def _describe(location: str, index: int, last: int, reader: RangeReader) -> RemoteFile:
    name = shard_name(index, last)
    file = reader.describe(_url(location, name))
    if file is not None:
        return file
    if index == 0 and reader.describe(_url(location, _DOCUMENT_LEVEL_FIRST)) is not None:
        raise UserError(f"{location}/{_DOCUMENT_LEVEL_FIRST}: {DOCUMENT_LEVEL}")
    raise UserError(
        f"{location}/{name}: not on the server (404); expected are {last + 1} files, "
        f"the last {shard_name(last, last)}; check the location"
    )

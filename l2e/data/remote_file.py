"""Byte ranges of files on a web server."""

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import requests
from requests.adapters import HTTPAdapter

from l2e.errors import UserError

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_LONGEST_WAIT = 60.0  # s between two attempts
_PASSING = {408, 425, 429}  # statuses that another attempt may cure, as all from 500 on may


class UnreachableError(UserError):
    """The server did not give a whole answer, however often it was asked."""


class _PassingError(Exception):
    """An answer that another attempt may cure."""


# ChunkedEncodingError is what requests raises when a body breaks off.
_MAY_PASS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, _PassingError)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the server describes it.

    Args:
        url: where it lies.
        size: bytes.
        etag: what changes with its content: ETag, else Last-Modified, else "".
    """

    url: str
    size: int
    etag: str


class RangeReader:
    """Reads byte ranges over HTTP, asking again after what may pass.

    Connection errors, timeouts, short answers, 5xx, 408, 425 and 429 are tried again with exponential back-off.
    All else that is not exactly the range asked for, of the file as it was first seen, is refused. May be used
    by several threads.

    Args:
        headers: sent along, such as an authorisation; dropped when a redirect leads to another host.
        retries: attempts after the first.
        first_wait: s before the second attempt; doubles each time, up to a minute.
        timeout: s without a byte after which an attempt has failed.
        connections: held open at most.
    """

    def __init__(
        self,
        headers: dict[str, str] | None = None,
        retries: int = 8,
        first_wait: float = 1.0,
        timeout: float = 30.0,
        connections: int = 8,
    ) -> None:
        self.retries = retries
        self.first_wait = first_wait
        self.timeout = timeout
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
        self._session.headers.update(headers or {})
        # A compressed answer would be ranges of the compressed bytes.
        self._session.headers["Accept-Encoding"] = "identity"
        self._closed = threading.Event()

    def close(self) -> None:
        """End the connections and the waits between attempts."""
        self._closed.set()
        self._session.close()

    def describe(self, url: str) -> RemoteFile | None:
        """The file at `url`, or None if there is none.

        Asks for the first byte rather than for the head alone: so a server without ranges is found out at once.
        """
        return self._retried(url, lambda: self._describe_once(url))

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the file.

        Raises:
            UnreachableError: no whole answer after all retries.
            UserError: the file has changed, or the answer is not that range.
        """
        return self._retried(file.url, lambda: self._read_once(file, start, stop))

    def _retried(self, url: str, attempt: Callable[[], _T]) -> _T:
        for number in range(self.retries + 1):
            try:
                return attempt()
            except _MAY_PASS as error:
                last = error
            except requests.RequestException as error:
                raise UserError(f"{url}: cannot be requested: {error}; check the location") from error
            wait = min(self.first_wait * 2**number, _LONGEST_WAIT)
            if number < self.retries:
                _log.warning("%s: %s; attempt %d of %d in %.3g s", url, last, number + 2, self.retries + 1, wait)
                if self._closed.wait(wait):
                    break
        raise UnreachableError(
            f"{url}: no whole answer in {self.retries + 1} attempts (last: {last}); "
            f"check the network and the server, then start again: what was read before is kept"
        ) from last

    def _describe_once(self, url: str) -> RemoteFile | None:
        with self._ask(url, 0, 1) as response:
            if response.status_code == 404:
                return None
            if response.status_code == 416:
                raise UserError(f"{url}: the file is empty; fetch it anew on the server or check the location")
            file = _checked(response, url, 0, 1)
            _body(response, 1)  # read to its end, so that the connection serves the next request
            return file

    def _read_once(self, file: RemoteFile, start: int, stop: int) -> bytes:
        with self._ask(file.url, start, stop) as response:
            if response.status_code == 404:
                raise UserError(f"{file.url}: no longer on the server (404); check the location")
            if response.status_code == 416:
                raise _changed(file, "it ends before the bytes asked for")
            _checked(response, file.url, start, stop, file)
            return _body(response, stop - start)

    def _ask(self, url: str, start: int, stop: int) -> requests.Response:
        return self._session.get(url, headers={"Range": f"bytes={start}-{stop - 1}"}, stream=True, timeout=self.timeout)


def _changed(file: RemoteFile, how: str) -> UserError:
    return UserError(f"{file.url}: the file changed on the server: {how}; start again to read it as it is now")


def _etag(response: requests.Response) -> str:
    """What changes with the content. The Hugging Face hub states it before it redirects to where the bytes lie."""
    for answer in [*response.history, response]:
        if "X-Linked-ETag" in answer.headers:
            return answer.headers["X-Linked-ETag"]
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _checked(
    response: requests.Response, url: str, start: int, stop: int, known: RemoteFile | None = None
) -> RemoteFile:
    """The file as the answer describes it; the answer must be the range [start, stop) of the `known` file."""
    status = response.status_code
    if status in _PASSING or status >= 500:
        raise _PassingError(f"status {status}")
    if status == 200:
        raise UserError(
            f"{url}: the server ignores Range and sends whole files; "
            f"use one that serves byte ranges, or download the files and give the folder"
        )
    if status in (401, 403):
        raise UserError(f"{url}: access refused ({status}); check your rights there (hf auth login for hf://)")
    if status != 206:
        raise UserError(f"{url}: answered with status {status}, expected 206; check the location")
    given = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", given.strip())
    if match is not None:
        now = RemoteFile(url, int(match[3]), _etag(response))
        if known is not None and now != known:  # before the range: that of a shorter file is cut short
            raise _changed(known, f"size {known.size} and tag {known.etag!r} became {now.size} and {now.etag!r}")
    if match is None or (int(match[1]), int(match[2])) != (start, stop - 1):
        raise UserError(
            f"{url}: asked for bytes {start}-{stop - 1}, the server says it sends {given!r}; "
            f"use a server that serves byte ranges, or download the files and give the folder"
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UserError(f"{url}: the server compresses byte ranges; use one that sends files as they are")
    return now


def _body(response: requests.Response, length: int) -> bytes:
    """The body, of `length` bytes; no more than that is read."""
    parts, got = [], 0
    for part in response.iter_content(1 << 18):
        parts.append(part)
        got += len(part)
        if got > length:
            break
    if got != length:
        raise _PassingError(f"{'more than ' if got > length else 'only '}{min(got, length)} of {length} bytes")
    return b"".join(parts)

"""Getting the list: from an address or a file, bounded in size and time. Mechanism only; what came is read elsewhere."""

import asyncio
import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

BYTES_MAX = 16 * 1024 * 1024
"""The list has 170 kB today; anything a hundred times as large is something else."""
TIMEOUT_S = 30
_CHUNK = 65_536
_NOT_MODIFIED = 304
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_ETAG_MAX = 200


class FetchError(Exception):
    """The list could not be had. The message says why."""


class _Readable(Protocol):
    def read1(self, amount: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came. `body` is None when the source says that it is what the ETag names."""

    body: bytes | None
    etag: str | None = None


def is_address(source: str) -> bool:
    """Whether a source is an address rather than a file."""
    return _ADDRESS.match(source) is not None


def shown(source: str) -> str:
    """A source as it may be told to anybody: an address without a user or password in it, of a file the bare name."""
    if not is_address(source):
        return Path(source).name
    try:
        parts = urlsplit(source)
    except ValueError:
        return "an address that is none"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def fetch(source: str, etag: str | None = None, *, timeout_s: float = TIMEOUT_S) -> Fetched:
    """Read a source in a thread of its own. Raises FetchError; reads no more than BYTES_MAX and no longer than `timeout_s`."""
    return await asyncio.to_thread(fetch_now, source, etag, timeout_s=timeout_s)


def fetch_now(source: str, etag: str | None = None, *, timeout_s: float = TIMEOUT_S) -> Fetched:
    """The same, in this thread."""
    deadline = time.monotonic() + timeout_s
    try:
        if is_address(source):
            return _from_address(source, etag, deadline)
        with Path(source).open("rb") as file:
            return Fetched(_bounded(file, deadline))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{shown(source)}: {_reason(error)}") from error


def _from_address(source: str, etag: str | None, deadline: float) -> Fetched:
    headers = {"Accept": "application/json", "User-Agent": "tallybook", **({"If-None-Match": etag} if etag else {})}
    request = urllib.request.Request(source, headers=headers)  # noqa: S310 - `is_address` let only http and https through
    try:
        with urllib.request.urlopen(request, timeout=max(deadline - time.monotonic(), 0.001)) as answer:  # noqa: S310 - as above
            return Fetched(_bounded(answer, deadline), _kept_etag(answer.headers.get("ETag")))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == _NOT_MODIFIED and etag:
                return Fetched(None, etag)
            raise FetchError(f"{shown(source)}: answered {error.code} {error.reason}") from error


def _reason(error: Exception) -> str:
    """What happened, without the path that the operating system repeats."""
    return (error.strerror if isinstance(error, OSError) else str(error)) or str(error) or type(error).__name__


def _bounded(stream: _Readable, deadline: float) -> bytes:
    body = bytearray()
    # One look at the socket at a time: a source that drips a byte now and then must not outlive the deadline.
    while chunk := stream.read1(_CHUNK):
        body += chunk
        if len(body) > BYTES_MAX:
            raise FetchError(f"the list is larger than {BYTES_MAX} bytes")
        if time.monotonic() > deadline:
            raise FetchError("the list did not arrive in time")
    return bytes(body)


def _kept_etag(etag: str | None) -> str | None:
    return etag if etag and len(etag) <= _ETAG_MAX and etag.isascii() and etag.isprintable() else None

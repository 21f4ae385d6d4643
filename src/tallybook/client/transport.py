"""How a request gets to the service: headers, what is tried again and when, and what an answer means.

Tried again, with the same Idempotency-Key: no answer, 408, 429 and 5xx. So a write that was done and whose answer was lost is
answered from what was stored, and counts once.
"""

import asyncio
import hashlib
import os
import random
import time
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import httpx

from tallybook.client import errors
from tallybook.client.requests import Request

T = TypeVar("T")
API_VERSION: Final = "2026-08-27"
URL_DEFAULT: Final = "http://127.0.0.1:8080"
RETRY_AFTER_S_MAX: Final = 60.0
_FIRST_PAUSE_S: Final = 0.1
_PAUSE_S_MAX: Final = 8.0
_SERVER_ERROR: Final = 500
_FIRST_ERROR: Final = 400
_TRY_AGAIN: Final = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service answers and the key to it. `retries` is how often a call is tried again; times in seconds."""

    url: str
    api_key: str
    timeout_s: float = 30.0
    retries: int = 3

    def fingerprint(self) -> str:
        """Stands for this service and key in a file name; tells nothing about the key."""
        return hashlib.sha256(f"{self.url}\n{self.api_key}".encode()).hexdigest()[:16]

    def needs_certificates(self) -> bool:
        """Whether answers are encrypted and so checked; loading the certificates for a plain connection takes 20 ms for nothing."""
        return self.url.startswith("https:")

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {
            "x-api-key": self.api_key,
            "commet-version": API_VERSION,
            "content-type": "application/json",
            "user-agent": "tallybook-python",
        }


def address(api_key: str | None, url: str | None, timeout_s: float, retries: int) -> Address:
    """An address from arguments, or from TALLYBOOK_API_KEY and TALLYBOOK_URL. Raises ValueError without a key."""
    key = api_key or os.environ.get("TALLYBOOK_API_KEY", "")
    if not key:
        raise ValueError("an API key is needed: pass api_key, or set TALLYBOOK_API_KEY")
    where = url or os.environ.get("TALLYBOOK_URL") or URL_DEFAULT
    return Address(where.rstrip("/"), key, timeout_s, retries)


def pause_s(attempt: int, retry_after_s: float | None = None, pause_s_max: float = _PAUSE_S_MAX) -> float:
    """How long to wait before attempt `attempt` + 1: what the service asked for, else ever longer, with chance in it."""
    if retry_after_s is not None:
        return min(retry_after_s, RETRY_AFTER_S_MAX)
    longest = min(_FIRST_PAUSE_S * 2 ** min(attempt - 1, 16), pause_s_max)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing


def retry_after_s(response: httpx.Response) -> float | None:
    """The Retry-After of an answer in seconds, or None."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def is_temporary(status: int) -> bool:
    """Whether the same request may be answered otherwise later."""
    return status >= _SERVER_ERROR or status in _TRY_AGAIN


def json_of(response: httpx.Response) -> Any:
    """The body, or None when it is no JSON."""
    try:
        return response.json() if response.content else None
    except ValueError:
        return None


def failure(response: httpx.Response) -> errors.APIError:
    """The error that an answer is."""
    body = json_of(response)
    request_id = response.headers.get("x-request-id")
    return errors.from_answer(response.status_code, body, request_id=request_id, retry_after_s=retry_after_s(response))


def lost(error: httpx.TransportError, url: str) -> errors.ConnectionFailed:
    """The error that a missing answer is."""
    return errors.ConnectionFailed(f"no answer from {url}: {type(error).__name__} {error}".rstrip())


@dataclass(slots=True)
class _Attempts:
    """Decides after each attempt: an answer, an error, or how long to wait before the next."""

    address: Address
    made: int = 0

    def after(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds to wait before the next attempt; None when `outcome` is an answer. Raises TallybookError when it is the last."""
        self.made += 1
        is_last = self.made > self.address.retries
        if isinstance(outcome, httpx.TransportError):
            if is_last:
                raise lost(outcome, self.address.url) from outcome
            return pause_s(self.made)
        if outcome.status_code < _FIRST_ERROR:
            return None
        if is_last or not is_temporary(outcome.status_code):
            raise failure(outcome)
        return pause_s(self.made, retry_after_s(outcome))


def _arguments(request: Request[Any], to: Address) -> dict[str, Any]:
    headers = to.headers() if request.method == "GET" else {**to.headers(), "Idempotency-Key": request.key}
    sent: dict[str, Any] = {"headers": headers, "params": request.query}
    return sent if request.body is None else {**sent, "json": request.body}


class SyncTransport:
    """Sends requests and waits for their answers. Safe to use from several threads."""

    def __init__(self, to: Address, http: httpx.Client | None = None) -> None:
        """`http` is used as it is, if given, and not closed."""
        self.address = to
        self._owned = http is None
        self._http = http or httpx.Client(timeout=to.timeout_s, verify=to.needs_certificates())

    def send(self, request: Request[T]) -> T:
        """The answer. Raises TallybookError."""
        attempts = _Attempts(self.address)
        while True:
            outcome = self._attempt(request)
            pause = attempts.after(outcome)
            if pause is None:
                assert isinstance(outcome, httpx.Response)
                return request.read(json_of(outcome))
            time.sleep(pause)

    def send_once(self, request: Request[T], timeout_s: float) -> T:
        """The answer of one attempt that takes at most `timeout_s`. Raises TallybookError."""
        outcome = self._attempt(request, timeout=timeout_s)
        _Attempts(replace(self.address, retries=0)).after(outcome)
        assert isinstance(outcome, httpx.Response)
        return request.read(json_of(outcome))

    def _attempt(self, request: Request[Any], **more: float) -> httpx.Response | httpx.TransportError:
        arguments: dict[str, Any] = _arguments(request, self.address) | more
        try:
            return self._http.request(request.method, f"{self.address.url}/api/v1{request.path}", **arguments)
        except httpx.TransportError as error:
            return error

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            self._http.close()


class AsyncTransport:
    """Sends requests and awaits their answers."""

    def __init__(self, to: Address, http: httpx.AsyncClient | None = None) -> None:
        """`http` is used as it is, if given, and not closed."""
        self.address = to
        self._owned = http is None
        self._http = http or httpx.AsyncClient(timeout=to.timeout_s, verify=to.needs_certificates())

    async def send(self, request: Request[T]) -> T:
        """The answer. Raises TallybookError."""
        attempts = _Attempts(self.address)
        while True:
            outcome = await self._attempt(request)
            pause = attempts.after(outcome)
            if pause is None:
                assert isinstance(outcome, httpx.Response)
                return request.read(json_of(outcome))
            await asyncio.sleep(pause)

    async def send_once(self, request: Request[T], timeout_s: float) -> T:
        """The answer of one attempt that takes at most `timeout_s`. Raises TallybookError."""
        outcome = await self._attempt(request, timeout=timeout_s)
        _Attempts(replace(self.address, retries=0)).after(outcome)
        assert isinstance(outcome, httpx.Response)
        return request.read(json_of(outcome))

    async def _attempt(self, request: Request[Any], **more: float) -> httpx.Response | httpx.TransportError:
        arguments: dict[str, Any] = _arguments(request, self.address) | more
        try:
            return await self._http.request(request.method, f"{self.address.url}/api/v1{request.path}", **arguments)
        except httpx.TransportError as error:
            return error

    async def close(self) -> None:
        """Close the connections."""
        if self._owned:
            await self._http.aclose()

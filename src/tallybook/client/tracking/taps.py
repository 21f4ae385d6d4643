"""Taps on the response of an HTTP client (httpx or its successor): bytes are looked at on their way to the caller.

Only this one response object is changed. When the caller closes it before its end, the rest is read in the background; the caller does
not wait for that, and sees a closed response.
"""

import os
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

from tallybook.client.tracking import drains, twins
from tallybook.client.tracking.tracker import Tracker
from tallybook.client.tracking.wire import Observation


def is_read(response: Any) -> bool:
    """Whether the whole body is there already."""
    return hasattr(response, "_content")


_alive: dict[weakref.ref[Any], Observation] = {}
"""Responses that are being read; the references must be kept for Python to call back."""


def _forgotten(response: weakref.ref[Any]) -> None:
    observation = _alive.pop(response, None)
    if observation is not None:
        observation.forget()


# A child reads none of its parent's streams.
os.register_at_fork(after_in_child=_alive.clear)


class _Tap:
    def __init__(self, response: Any, observation: Observation, tracker: Tracker) -> None:
        self._response = response
        self._observation = observation
        self._tracker = tracker
        self._is_reading = False
        self._is_handed_over = False
        # A response of which nothing was read is reported when it is forgotten.
        _alive[weakref.ref(response, _forgotten)] = observation

    def _hand_over(self) -> bool:
        """Whether the rest is to be read. Then the caller has a closed response from here on."""
        if self._is_reading or self._is_handed_over or self._response.is_closed:
            return False
        self._is_handed_over = drains.may_begin(self._tracker, self._observation)
        self._response.is_closed = self._is_handed_over
        return self._is_handed_over

    def _finish_if_idle(self) -> None:
        if not self._is_reading and not self._is_handed_over:
            self._observation.finish()

    def _let_go(self, *taps: str) -> None:
        """Give a closed response its own methods back: response and tap hold each other, and would wait for Python to look for such."""
        own = cast("dict[str, Any]", vars(self._response))
        for name in taps:
            own.pop(name, None)

    def _unread(self) -> Any:
        """A response that reads the same stream from its start, without the tap and as if nobody had closed it."""
        kind = cast("Any", type(self._response))
        fresh: Any = kind.__new__(kind)
        taps = ("iter_bytes", "close", "aiter_bytes", "aclose")
        twins.override(fresh, **{name: value for name, value in twins.state(self._response).items() if name not in taps})
        fresh.is_closed = False
        return fresh

    def _closed_error(self) -> Exception:
        """What reading on after closing raises without a tap."""
        library = sys.modules[type(self._response).__module__.partition(".")[0]]
        return library.ReadError("the response was closed", request=self._response.request)


class SyncTap(_Tap):
    """A tap on a response that is read in this thread."""

    def __init__(self, response: Any, observation: Observation, tracker: Tracker) -> None:
        """Tap `response`."""
        super().__init__(response, observation, tracker)
        self._iter_bytes: Callable[[int | None], Iterator[bytes]] = response.iter_bytes
        self._close: Callable[[], None] = response.close
        self._source: Iterator[bytes] | None = None
        response.iter_bytes = self.iter_bytes
        response.close = self.close

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The response's bytes, looked at."""
        if self._source is not None or self._is_handed_over:
            return self._iter_bytes(chunk_size)
        self._source = iter(self._iter_bytes(chunk_size))
        self._tracker.outbox.watch(self._observation, self._source)
        return self._pass_on(self._source)

    def _pass_on(self, source: Iterator[bytes]) -> Iterator[bytes]:
        while not self._is_handed_over:
            self._is_reading = True
            try:
                chunk = next(source)
            except StopIteration:
                break
            except BaseException:
                self._observation.finish()
                raise
            finally:
                self._is_reading = False
            if passed := self._observation.feed(chunk):
                yield passed
        if self._is_handed_over:
            raise self._closed_error()
        if rest := self._observation.end():
            yield rest

    def close(self) -> None:
        """Close, or have the rest read."""
        if self._hand_over():
            source = self._source or self._unread().iter_bytes()
            drains.in_thread(self._tracker, self._observation, source, self._response.stream.close)
        else:
            self._close()
            self._finish_if_idle()
            self._let_go("iter_bytes", "close")


class AsyncTap(_Tap):
    """A tap on a response that is read in an event loop."""

    def __init__(self, response: Any, observation: Observation, tracker: Tracker) -> None:
        """Tap `response`."""
        super().__init__(response, observation, tracker)
        self._aiter_bytes: Callable[[int | None], AsyncIterator[bytes]] = response.aiter_bytes
        self._aclose: Callable[[], Awaitable[None]] = response.aclose
        self._source: AsyncIterator[bytes] | None = None
        response.aiter_bytes = self.aiter_bytes
        response.aclose = self.aclose

    def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The response's bytes, looked at."""
        if self._source is not None or self._is_handed_over:
            return self._aiter_bytes(chunk_size)
        self._source = aiter(self._aiter_bytes(chunk_size))
        self._tracker.outbox.watch(self._observation, self._source)
        return self._pass_on(self._source)

    async def _pass_on(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        while not self._is_handed_over:
            self._is_reading = True
            try:
                chunk = await anext(source)
            except StopAsyncIteration:
                break
            except BaseException:
                self._observation.finish()
                raise
            finally:
                self._is_reading = False
            if passed := self._observation.feed(chunk):
                yield passed
        if self._is_handed_over:
            raise self._closed_error()
        if rest := self._observation.end():
            yield rest

    async def aclose(self) -> None:
        """Close, or have the rest read."""
        if self._hand_over():
            source = self._source or self._unread().aiter_bytes()
            drains.in_task(self._tracker, self._observation, source, self._response.stream.aclose)
        else:
            await self._aclose()
            self._finish_if_idle()
            self._let_go("aiter_bytes", "aclose")

"""Reads the rest of what a caller broke off, in the background, because the usage comes last.

What async code broke off is read by a task of its event loop. Sync code may run such a loop only while it waits for something, and then
no more; a thread notices, and has what is known by then metered.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, Protocol

from tallybook.client.tracking.tracker import Tracker

DRAINS_MAX: Final = 32
_LOOK_S: Final = 0.05
_IDLE_S_MAX: Final = 0.2
"""How long a loop may stand still while somebody waits for a flush; a loop that works comes back sooner."""
_free = threading.Semaphore(DRAINS_MAX)


class Reading(Protocol):
    """What looks at the parts of an answer."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes that matters."""
        ...

    def feed(self, item: Any, /) -> Any:
        """Look at a part."""
        ...

    def end(self) -> Any:
        """Nothing more comes. Finishes."""
        ...

    def finish(self) -> None:
        """Meter what is known; nothing the second time."""
        ...


def may_begin(tracker: Tracker, reading: Reading) -> bool:
    """Whether the rest of an answer is to be read. Who gets True must begin."""
    return not reading.is_over and tracker.terms.on_break == "drain" and _free.acquire(blocking=False)


def in_thread(tracker: Tracker, reading: Reading, source: Iterator[Any], close: Callable[[], object]) -> None:
    """Read on in a thread, then close."""
    number = tracker.outbox.begin_reading(reading.finish)

    def drain() -> None:
        try:
            with contextlib.suppress(Exception):
                _read(reading, source, time.monotonic() + tracker.terms.drain_s)
            with contextlib.suppress(Exception):
                close()
        finally:
            _end(tracker, reading, number)

    threading.Thread(target=drain, name="tallybook-drain", daemon=True).start()


def _read(reading: Reading, source: Iterator[Any], deadline: float) -> None:
    for item in source:
        reading.feed(item)
        if reading.is_over or time.monotonic() > deadline:
            return
    reading.end()


class _Rest:
    """The rest of an answer, while it is read by a task of an event loop."""

    def __init__(self, tracker: Tracker, reading: Reading) -> None:
        self._tracker = tracker
        self._reading = reading
        self._loop = asyncio.get_running_loop()
        self._deadline = time.monotonic() + tracker.terms.drain_s
        self._stands_since: float | None = None
        self._lock = threading.Lock()
        self._has_ended = False
        with self._lock:
            self._number = tracker.outbox.begin_reading(self.end, self._loop)

    def begin(self, reader: Coroutine[Any, Any, None]) -> None:
        """Start the task."""
        self._reader = reader
        self._task = self._loop.create_task(reader, name="tallybook-drain")
        _watch.add(self)

    def end(self) -> None:
        """Meter what is known, once. The task then stops by itself."""
        with self._lock:
            has_ended, self._has_ended = self._has_ended, True
        if not has_ended:
            _end(self._tracker, self._reading, self._number)

    def look(self, now: float) -> bool:
        """Whether to look again. Ends it when its time is over, or when its loop has stood still for too long.

        That is a moment if a flush waits for it, else as long as reading may take.
        """
        if self._task.done():
            return False
        if self._loop.is_running():
            self._stands_since = None
            if now >= self._deadline:  # its task would have ended it, but something keeps the loop from its work
                self.end()
            return True
        self._stands_since = now if self._stands_since is None else self._stands_since
        patience_s = _IDLE_S_MAX if self._tracker.outbox.is_flushing else self._tracker.terms.drain_s
        if not self._has_ended and now - self._stands_since < patience_s and not self._loop.is_closed():
            return True
        self.end()
        self._abandon()
        return False

    def _abandon(self) -> None:
        self._task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - nobody can finish it, and that is known
        if self._loop.is_closed():
            with contextlib.suppress(Exception):
                self._reader.close()


class _Watch:
    """A thread that looks after the rests that tasks read, as long as there are any; it also keeps the tasks from being forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rests: list[_Rest] = []
        self._is_running = False

    def add(self, rest: _Rest) -> None:
        """Look after one."""
        with self._lock:
            self._rests.append(rest)
            if not self._is_running:
                # When the process ends no thread can be started, and the meter has what is known metered by itself.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._run, name="tallybook-drains", daemon=True).start()
                    self._is_running = True

    def _run(self) -> None:
        is_needed = True
        while is_needed:
            time.sleep(_LOOK_S)
            now = time.monotonic()
            done = {rest for rest in list(self._rests) if not rest.look(now)}
            with self._lock:
                self._rests = [rest for rest in self._rests if rest not in done]
                self._is_running = is_needed = bool(self._rests)


_watch = _Watch()


def _forget_the_parents() -> None:
    """A child reads none of its parent's streams."""
    global _free, _watch
    _free, _watch = threading.Semaphore(DRAINS_MAX), _Watch()


os.register_at_fork(after_in_child=_forget_the_parents)


def in_task(tracker: Tracker, reading: Reading, source: AsyncIterator[Any], close: Callable[[], Awaitable[object]]) -> None:
    """Read on in a task of the running loop, then close."""
    rest = _Rest(tracker, reading)

    async def drain() -> None:
        try:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(tracker.terms.drain_s):
                    await _read_async(reading, source)
            with contextlib.suppress(Exception):
                await close()
        finally:
            rest.end()

    rest.begin(drain())


async def _read_async(reading: Reading, source: AsyncIterator[Any]) -> None:
    async for item in source:
        reading.feed(item)
        if reading.is_over:
            return
    reading.end()


def _end(tracker: Tracker, reading: Reading, number: int) -> None:
    reading.finish()
    tracker.outbox.end_reading(number)
    _free.release()

"""Reads the rest of what a caller broke off, in the background, because the usage comes last."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Protocol

from tallybook.client.tracking.tracker import Tracker

DRAINS_MAX: Final = 32
_free = threading.BoundedSemaphore(DRAINS_MAX)


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


_tasks: set[asyncio.Task[None]] = set()


def in_task(tracker: Tracker, reading: Reading, source: AsyncIterator[Any], close: Callable[[], Awaitable[object]]) -> None:
    """Read on in a task of the running loop, then close."""
    number = tracker.outbox.begin_reading(reading.finish)

    async def drain() -> None:
        try:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(tracker.terms.drain_s):
                    await _read_async(reading, source)
            with contextlib.suppress(Exception):
                await close()
        finally:
            _end(tracker, reading, number)

    task = asyncio.get_running_loop().create_task(drain(), name="tallybook-drain")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


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

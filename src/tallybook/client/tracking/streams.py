"""Streams of objects, for packages that do not show the bytes: looked at one by one on their way to the caller."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from tallybook.client.tracking import drains, twins
from tallybook.client.tracking.tracker import Call, Tracker
from tallybook.client.tracking.usage import Usage

T = TypeVar("T")
_UNREAD_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Reader:
    """How the parts of a stream are read: what one says about usage, whether it is the last word, and whether the caller gets it."""

    usage: Callable[[Any], Usage | None]
    is_last: Callable[[Any], bool] = lambda _item: False
    is_ours: Callable[[Any], bool] = lambda _item: False
    output: Callable[[Any], str] = lambda _item: ""
    look_back: Callable[[], Usage | None] = lambda: None
    """What is known of a stream that ended before it said anything."""
    says_totals: bool = False
    """Whether each part says what the whole stream used so far. Then only the newest are read, and not while the caller waits."""


class ItemReading:
    """One streamed answer. What a later part says replaces what an earlier one said."""

    def __init__(self, call: Call, reader: Reader) -> None:
        """The event is metered for `call`."""
        self._call = call
        self._reader = reader
        self._unread: list[Any] = []
        self._found: Usage | None = None
        self._found_in: Any = None
        self._output = ""
        self._has_begun = False
        self._has_ended = False
        self._lock = threading.Lock()
        self._is_finished = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes that matters."""
        return self._is_finished or self._has_last()

    def feed(self, item: Any) -> bool:
        """Look at a part; False: it is not for the caller."""
        return self._call.tracker.guarded(self._feed, item) is not False

    def _feed(self, item: Any) -> bool:
        self._has_begun = True
        self._unread.append(item)
        if not self._reader.says_totals or len(self._unread) >= _UNREAD_MAX:
            self._read()
        return not self._reader.is_ours(item)

    def _read(self) -> None:
        unread = self._unread[:]
        del self._unread[: len(unread)]
        for item in reversed(unread):
            found: Usage | None = self._call.tracker.guarded(self._reader.usage, item)
            if found is not None:
                self._found, self._found_in = found, item
                return
            if self._call.tracker.terms.estimate:
                self._output += self._reader.output(item)

    def _has_last(self) -> bool:
        self._read()
        return self._found is not None and bool(self._call.tracker.guarded(self._reader.is_last, self._found_in))

    def fail(self) -> None:
        """The stream broke. If nothing had come, the call failed as a whole and there is nothing to meter."""
        if not self._has_begun:
            with self._lock:
                self._is_finished = True
            self._call.tracker.outbox.unwatch(self)
        self.finish()

    def end(self) -> None:
        """The stream came to its end, so what is known is all."""
        self._has_ended = True
        self.finish()

    def finish(self) -> None:
        """Meter what is known."""
        with self._lock:
            if self._is_finished:
                return
            self._is_finished = True
        self._call.tracker.outbox.unwatch(self)
        self._read()
        if self._found is not None:
            self._call.used(self._found, "final" if self._has_ended or self._has_last() else "partial")
            return
        found = self._call.tracker.guarded(self._reader.look_back)
        if found is None:
            self._call.unknown(self._output)
        else:
            self._call.used(found, "partial")


def passed_on(tracker: Tracker, reading: ItemReading, source: Iterator[T]) -> Generator[T]:
    """The items of `source`, looked at. Broken off, the rest is read in a thread."""
    tracker.outbox.watch(reading, source)
    return _passed_on(tracker, reading, source)


def _passed_on(tracker: Tracker, reading: ItemReading, source: Iterator[T]) -> Generator[T]:
    try:
        for item in source:
            if reading.feed(item):
                yield item
    except GeneratorExit:
        close = getattr(source, "close", _nothing)
        if drains.may_begin(tracker, reading):
            drains.in_thread(tracker, reading, source, close)
        else:
            reading.finish()
            close()
        raise
    except BaseException:
        reading.fail()
        raise
    reading.end()


def passed_on_async(tracker: Tracker, reading: ItemReading, source: AsyncIterator[T]) -> AsyncGenerator[T]:
    """The items of `source`, looked at. Broken off, the rest is read in a task."""
    tracker.outbox.watch(reading, source)
    return _passed_on_async(tracker, reading, source)


async def _passed_on_async(tracker: Tracker, reading: ItemReading, source: AsyncIterator[T]) -> AsyncGenerator[T]:
    try:
        async for item in source:
            if reading.feed(item):
                yield item
    except GeneratorExit:
        close: Callable[[], Awaitable[object]] = getattr(source, "aclose", _nothing_async)
        if drains.may_begin(tracker, reading):
            drains.in_task(tracker, reading, source, close)
        else:
            reading.finish()
            await close()
        raise
    except BaseException:
        reading.fail()
        raise
    reading.end()


def _nothing() -> None:
    """Nothing to close."""


async def _nothing_async() -> None:
    """Nothing to close."""


def swap(stream: T, tracker: Tracker, reading: ItemReading, held: object, *, is_async: bool) -> T:
    """Have an iterator object look at its own items. It stays the same object, of a class derived from its own.

    `held` is what the object reads from: kept until it is finished, so that the rest can be read when the object is forgotten.
    """
    tracker.outbox.watch(reading, held)
    made: Any = stream
    kind = cast("type[object]", type(made))
    made.__class__ = type(kind.__name__, (_Swapped, kind), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
    twins.override(made, _tallybook_reading=reading, _tallybook_tracker=tracker, _tallybook_is_async=is_async)
    return stream


class _Swapped:
    """What a swapped class does before its own."""

    _tallybook_reading: ItemReading
    _tallybook_tracker: Tracker
    _tallybook_is_async: bool

    def __next__(self) -> Any:
        reading = self._tallybook_reading
        item: Any
        while True:
            try:
                item = super().__next__()  # type: ignore[misc] - the class this is put before has it
            except StopIteration:
                reading.end()
                raise
            except BaseException:
                reading.fail()
                raise
            if reading.feed(item):
                return cast("Any", item)

    async def __anext__(self) -> Any:
        reading = self._tallybook_reading
        item: Any
        while True:
            try:
                item = await super().__anext__()  # type: ignore[misc] - the class this is put before has it
            except StopAsyncIteration:
                reading.end()
                raise
            except BaseException:
                reading.fail()
                raise
            if reading.feed(item):
                return cast("Any", item)

    async def aclose(self) -> None:
        """Close, or have the rest read first."""
        if not self._tallybook_drain():
            self._tallybook_reading.finish()
            await super().aclose()  # type: ignore[misc] - the class this is put before has it

    def __del__(self) -> None:
        if not self._tallybook_reading.is_over and not self._tallybook_drain():
            self._tallybook_tracker.outbox.forget(self._tallybook_reading)

    def _tallybook_drain(self) -> bool:
        """Begin to read the rest, if it is wanted and can be."""
        tracker, reading = self._tallybook_tracker, self._tallybook_reading
        if self._tallybook_is_async and not _is_in_loop():
            return False
        if not drains.may_begin(tracker, reading):
            return False
        real: Any = super()
        if self._tallybook_is_async:
            drains.in_task(tracker, reading, _AsyncRest(real.__anext__), getattr(real, "aclose", _nothing_async))
        else:
            drains.in_thread(tracker, reading, _Rest(real.__next__), _nothing)
        return True


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Rest(Iterator[Any]):
    def __init__(self, following: Callable[[], Any]) -> None:
        self._following = following

    def __next__(self) -> Any:
        return self._following()


class _AsyncRest(AsyncIterator[Any]):
    def __init__(self, following: Callable[[], Awaitable[Any]]) -> None:
        self._following = following

    async def __anext__(self) -> Any:
        return await self._following()

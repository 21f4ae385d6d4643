"""The meter without its clock and wire: takes events in, hands batches out, and books what became of them.

Used by the caller's threads (`put`) and by one sender, which is a thread or a task.
"""

import asyncio
import contextlib
import gc
import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from tallybook.client import errors, transport
from tallybook.client.meter import event, problems
from tallybook.client.meter.delivery import Delivered, Failed, Outcome, RefusedEvent
from tallybook.client.meter.problems import Counters, OnError, Problem
from tallybook.client.meter.spool import Spool
from tallybook.client.meter.store import Batch, Full, MemoryStore, Store

WhenFull = Literal["drop_newest", "drop_oldest", "block", "raise"]
EVENT_BYTES_MAX: Final = 16_000


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """How the meter waits and what it keeps.

    `linger_s`: how long an event waits for others to share its request · `events_max`: how many wait in memory · `when_full`: what
    happens to an event there is no room for · `spool`: a folder; events wait there instead, and survive the process ·
    `spool_bytes_max`, `spool_fsync`: how much of it, and whether a power cut may take the last events · `close_s`: how long `close`
    and the end of the process wait for events to be sent.
    """

    linger_s: float = 0.1
    events_max: int = 10_000
    when_full: WhenFull = "drop_newest"
    spool: Path | str | None = None
    spool_bytes_max: int = 256 * 1024 * 1024
    spool_fsync: bool = False
    close_s: float = 5.0


class Reading(Protocol):
    """A response whose usage is not known yet."""

    def finish(self) -> None:
        """Put in what is known."""
        ...


class _Rest(NamedTuple):
    """The rest of a response that is being read: what ends that early, and the event loop without which it can't go on."""

    end_early: Callable[[], None]
    loop: asyncio.AbstractEventLoop | None


class Flush:
    """Somebody waits until all is out that had come into the store by `target`, once the rests in `reading` have been read."""

    def __init__(self, reading: set[int]) -> None:
        """`reading`: numbers of the rests that are being read."""
        self.reading = reading
        self.target: int | None = None


class Step(NamedTuple):
    """Whether a batch is done with, and how many seconds to wait before the next request."""

    done: bool
    pause_s: float


class Outbox:
    """Events on their way out."""

    def __init__(self, settings: MeterSettings, to: transport.Address, on_error: OnError | None) -> None:
        """Raises OSError when the spool's folder can't be used."""
        self.settings = settings
        self.address = to
        self.counters = Counters()
        self._on_error = on_error
        self._store = _store(settings, to)
        self.counters.adopted = self._store.pending
        self._failed_in_a_row = 0
        # Python may look for garbage at any moment, and what it finds may come back here in the same thread.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._forgotten: deque[Reading] = deque()
        self.wake: Callable[[], None] = _nothing
        """Set by the sender: called when there is something to do."""
        self.progress: Callable[[], None] = _nothing
        """Set by the sender: called when events were settled."""
        self._underway: dict[int, _Rest] = {}
        self._numbers = 0
        self._flushes: list[Flush] = []
        self._turned_away = 0
        self._asked_again = 0
        self._is_sending = False
        self._dropped_behind = 0
        """Events that were dropped behind a batch that is being sent, and so before it was decided about."""
        self._open: dict[Reading, object] = {}

    @property
    def pending(self) -> int:
        """How many events wait."""
        return self._store.pending

    def put(self, payload: bytes) -> bool:
        """Take an event in. Returns whether there was room. Raises QueueFull if the policy says so, and nothing else."""
        if self._forgotten:
            self._finish_forgotten()
        with self._lock:
            self.counters.tracked += 1
        if len(payload) > EVENT_BYTES_MAX:
            return self._turn_away(payload, f"the event has {len(payload)} bytes, more than {EVENT_BYTES_MAX}")
        try:
            self._store.put(payload)
        except Full:
            return self._put_when_full(payload)
        except OSError as error:
            return self._turn_away(payload, f"the spool can't be written: {error}", error)
        self.wake()
        return True

    def _put_when_full(self, payload: bytes) -> bool:
        policy = self.settings.when_full
        if policy == "raise":
            with self._lock:
                self.counters.tracked -= 1
            raise errors.QueueFull(f"{self.pending} events wait already")
        if policy == "block":
            return self._put_when_there_is_room(payload)
        oldest = self._drop_oldest() if policy == "drop_oldest" else None
        if oldest is None:
            return self._turn_away(payload, f"there was no room: {self.pending} events wait already")
        self._drop(oldest, "there was no room for newer events")
        with self._lock:
            self.counters.tracked -= 1
        return self.put(payload)

    def _drop_oldest(self) -> bytes | None:
        with self._lock:
            oldest = self._store.drop_oldest()
            self._dropped_behind += self._is_sending and oldest is not None
            return oldest

    def _put_when_there_is_room(self, payload: bytes) -> bool:
        self.wake()
        with self._room:
            while True:
                try:
                    self._store.put(payload)
                except Full:
                    self._room.wait(1.0)
                else:
                    break
        self.wake()
        return True

    def batch(self) -> Batch:
        """The oldest events; empty when none wait."""
        with self._lock:
            batch = self._store.batch()
            self._is_sending = bool(batch.payloads)
            return batch

    def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> Step:
        """Book what became of a batch's shipments."""
        self.counters.requests += len(outcomes)
        failed = [each for each in outcomes if isinstance(each, Failed)]
        if failed:
            return Step(done=False, pause_s=self._pause_after(failed[0]))
        delivered = [each for each in outcomes if isinstance(each, Delivered)]
        again = [payload for each in delivered for payload in each.again]
        self._settle(batch, again)
        for each in delivered:
            self._count(each)
        self._failed_in_a_row = self._failed_in_a_row + 1 if again else 0
        self._moved()
        return Step(done=True, pause_s=transport.pause_s(self._failed_in_a_row) if again else 0.0)

    def _settle(self, batch: Batch, again: Sequence[bytes]) -> None:
        """Take a batch out of the store. Flushes that wait for one of its events wait for it behind the others, where it is sent again."""
        with self._lock:
            before = self._left()
            self._store.settle(batch, again)
            self._is_sending, self._dropped_behind = False, 0
            self._asked_again += len(again)
            for flush in self._flushes if again else ():
                if flush.target is not None and flush.target > before:
                    flush.target = self._entered()

    @contextlib.contextmanager
    def flush(self) -> Generator[Callable[[], bool]]:
        """While somebody waits: tells whether everything is out that had been put in, or was being read, when that began."""
        waiting = Flush(set(self._underway))
        with self._lock:
            self._flushes.append(waiting)
        self._is_out(waiting)
        try:
            yield lambda: self._is_out(waiting)
        finally:
            with self._lock, contextlib.suppress(ValueError):  # a forked child knows nothing of its parent's
                self._flushes.remove(waiting)

    def _is_out(self, flush: Flush) -> bool:
        with self._lock:
            if flush.reading & self._underway.keys():
                return False
            # Where events never stop coming, some always wait: those in by now are enough, the rests' own among them.
            flush.target = self._entered() if flush.target is None else flush.target
            return self.pending == 0 or self._left() >= flush.target

    def _entered(self) -> int:
        """How many events came into the store since the start, in order; each time anew when one is to be sent again."""
        return self.counters.adopted + self.counters.tracked + self._asked_again - self._turned_away

    def _left(self) -> int:
        """How many of them left it, first to last."""
        counted = self.counters
        decided = counted.accepted + counted.duplicates + counted.refused + counted.dropped - self._turned_away
        return decided + self._asked_again - self._dropped_behind

    @property
    def is_flushing(self) -> bool:
        """Whether somebody waits until everything is out."""
        return bool(self._flushes)

    def watch(self, reading: Reading, source: object) -> None:
        """Remember a response that the caller has begun to read, and keep what it is read from, until it is finished.

        When the caller forgets a stream, Python finalizes all that nobody else holds; the rest could not be read any more.
        """
        self._open[reading] = source

    def unwatch(self, reading: Reading) -> None:
        """The response is finished."""
        self._open.pop(reading, None)

    def forget(self, reading: Reading) -> None:
        """Nobody holds what this is read from. Called by finalizers, which must not wait for a lock: it is finished later."""
        self._forgotten.append(reading)

    def _finish_forgotten(self) -> None:
        while True:
            try:
                reading = self._forgotten.popleft()
            except IndexError:
                return
            reading.finish()

    def collect_forgotten(self) -> bool:
        """Have streams found that the caller broke off and did not close; their parts hold each other until Python looks for such.

        Returns whether it looked.
        """
        found = bool(self._open)
        if found:
            gc.collect()
        self._finish_forgotten()
        return found

    def begin_reading(self, end_early: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> int:
        """Announce that the rest of a broken-off response is being read; `end_early` books what is known by then.

        `loop`: the event loop that reads it, if it is none of a thread's own.
        """
        with self._lock:
            self._numbers += 1
            self._underway[self._numbers] = _Rest(end_early, loop)
            return self._numbers

    def end_reading(self, number: int) -> None:
        """The rest has been read, and its event was put in."""
        with self._lock:
            self._underway.pop(number, None)
        self._moved()

    def finish_reading_early(self) -> None:
        """Put in what is known of every response that is still being read."""
        for rest in list(self._underway.values()):
            rest.end_early()
        for reading in list(self._open):
            reading.finish()
        self._finish_forgotten()

    def end_reading_here(self) -> None:
        """Put in what is known of the rests that this thread's running event loop reads: it can't go on while the thread waits."""
        with contextlib.suppress(RuntimeError):
            here = asyncio.get_running_loop()
            for rest in [each for each in list(self._underway.values()) if each.loop is here]:
                rest.end_early()

    def _moved(self) -> None:
        with self._room:
            self._room.notify_all()
        self.progress()

    def _count(self, delivered: Delivered) -> None:
        self.counters.accepted += delivered.accepted
        self.counters.duplicates += delivered.duplicates
        if delivered.refused:
            self.counters.refused += len(delivered.refused)
            self._store.keep_refused([_line(each) for each in delivered.refused])
            self.tell(_refusal(delivered.refused))

    def _pause_after(self, failed: Failed) -> float:
        self._failed_in_a_row += 1
        self.counters.failures += 1
        if self._failed_in_a_row == 1 or self._failed_in_a_row % 10 == 0:
            self.tell(Problem("unreachable", f"{self.pending} events wait: {failed.error}", error=failed.error))
        from_service = failed.retry_after_s
        return transport.pause_s(self._failed_in_a_row, from_service, pause_s_max=30.0)

    def give_up(self, payload: bytes, error: errors.QueueFull) -> None:
        """Drop an event that was not taken in, for a caller that must not fail."""
        with self._lock:
            self.counters.tracked += 1
        self._turn_away(payload, str(error), error)

    def _turn_away(self, payload: bytes, why: str, error: BaseException | None = None) -> bool:
        with self._lock:
            self._turned_away += 1
        return self._drop(payload, why, error)

    def _drop(self, payload: bytes, why: str, error: BaseException | None = None) -> bool:
        with self._lock:
            self.counters.dropped += 1
        self.tell(Problem("dropped", why, [event.read(payload)], error))
        return False

    def tell(self, problem: Problem) -> None:
        """Report a problem."""
        problems.tell(self._on_error, problem)

    def close(self) -> None:
        """Let go of the store. Events in memory that were not sent are lost, and reported; those on disk wait for the next start."""
        left = self.pending
        if left and self.settings.spool is None:
            self.counters.dropped += left
            unsent = [event.read(payload) for payload in self._store.batch().payloads]
            self.tell(Problem("dropped", f"{left} events were not sent when the meter was closed", unsent))
        self._store.close()

    def restart_after_fork(self) -> None:
        """In a forked child: start with nothing; the parent sends its own events."""
        self._store.restart_after_fork()
        self.counters = Counters()
        self._failed_in_a_row = 0
        self._underway = {}
        self._flushes = []
        self._turned_away = self._asked_again = self._dropped_behind = 0
        self._is_sending = False
        self._open = {}
        self._forgotten = deque()
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)


def _store(settings: MeterSettings, to: transport.Address) -> Store:
    if settings.spool is None:
        return MemoryStore(settings.events_max)
    folder = Path(settings.spool) / to.fingerprint()
    return Spool(folder, bytes_max=settings.spool_bytes_max, fsync=settings.spool_fsync)


def _line(refused: RefusedEvent) -> bytes:
    return json.dumps({"code": refused.code, "message": refused.message, "event": refused.event}).encode()


def _refusal(refused: Sequence[RefusedEvent]) -> Problem:
    first = refused[0]
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    return Problem("refused", f"{first.code}: {first.message}{more}", [each.event for each in refused])


def _nothing() -> None:
    """Nobody to wake yet."""

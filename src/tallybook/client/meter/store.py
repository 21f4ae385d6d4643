"""Where events wait: in memory, bounded, in the order they came. `spool` has the same on disk.

A batch is looked at, sent, and only then settled; what is not settled is sent again.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

BATCH_EVENTS_MAX: Final = 100
BATCH_BYTES_MAX: Final = 250_000
"""A little less than the service takes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to send together, and the store's own mark of where they end."""

    payloads: Sequence[bytes]
    end: int = 0


class Full(Exception):
    """There is no room for the event."""


class Store(Protocol):
    """Where events wait. Safe to use from several threads; one of them reads."""

    @property
    def pending(self) -> int:
        """How many wait."""
        ...

    def put(self, payload: bytes) -> None:
        """Add an event. Raises Full."""
        ...

    def drop_oldest(self) -> bytes | None:
        """Remove the event that waits longest and is not being sent, and return it; None when there is none."""
        ...

    def batch(self) -> Batch:
        """The oldest events, up to what one request takes; they stay."""
        ...

    def settle(self, batch: Batch, again: Sequence[bytes]) -> None:
        """Remove the events of a batch, and put those that must be sent again behind the others."""
        ...

    def keep_refused(self, lines: Sequence[bytes]) -> None:
        """Remember what the service refused, where the store outlives the process."""
        ...

    def close(self) -> None:
        """Let go of what the store holds open."""
        ...

    def restart_after_fork(self) -> None:
        """In a forked child: forget what is the parent's to send."""
        ...


class MemoryStore:
    """Events in memory. What is not sent when the process ends is lost."""

    def __init__(self, events_max: int) -> None:
        """Holds up to `events_max` events."""
        self._events_max = events_max
        self._waiting: deque[bytes] = deque()
        self._in_flight = 0
        self._lock = threading.Lock()

    @property
    def pending(self) -> int:
        """How many wait, those being sent included."""
        return len(self._waiting)

    def put(self, payload: bytes) -> None:
        """Add an event. Raises Full."""
        with self._lock:
            if len(self._waiting) >= self._events_max:
                raise Full
            self._waiting.append(payload)

    def drop_oldest(self) -> bytes | None:
        """Remove the oldest event that is not being sent."""
        with self._lock:
            if len(self._waiting) <= self._in_flight:
                return None
            dropped = self._waiting[self._in_flight]
            del self._waiting[self._in_flight]
            return dropped

    def batch(self) -> Batch:
        """The oldest events."""
        with self._lock:
            taken: list[bytes] = []
            size = 0
            for payload in self._waiting:
                size += len(payload) + 1
                if taken and (len(taken) >= BATCH_EVENTS_MAX or size > BATCH_BYTES_MAX):
                    break
                taken.append(payload)
            self._in_flight = len(taken)
            return Batch(taken)

    def settle(self, batch: Batch, again: Sequence[bytes]) -> None:
        """Remove a batch."""
        with self._lock:
            # First, so that nobody sees an empty queue between.
            self._waiting.extend(again)
            for _ in batch.payloads:
                self._waiting.popleft()
            self._in_flight = 0

    def keep_refused(self, lines: Sequence[bytes]) -> None:
        """Nothing is kept in memory; `on_error` has been told."""

    def close(self) -> None:
        """Nothing is open."""

    def restart_after_fork(self) -> None:
        """Start empty: the parent sends its own."""
        self._waiting = deque()
        self._in_flight = 0
        self._lock = threading.Lock()

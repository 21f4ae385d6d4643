"""Group commit: what is asked of the till at the same time goes there in one call, and each asker gets its own results back.

While calls are in flight, requests gather; the next call takes all of them, up to a batch. So batches are small when the
load is low (nobody waits for company) and large when it is high. The queue is bounded: when it is full, the caller is told to come back.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tallybook.core import errors

Asked = TypeVar("Asked")
Told = TypeVar("Told")
Send = Callable[[Sequence[Asked]], Awaitable[list[Told]]]
"""One call: what was asked, and what was told of each, same length and order."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How many items one call takes at most, how many calls are in flight, and how many items may wait."""

    batch_max: int = 500
    in_flight_max: int = 2
    waiting_max: int = 20_000


@dataclass(slots=True)
class _Waiting(Generic[Asked, Told]):
    items: Sequence[Asked]
    done: asyncio.Future[list[Told]]


class Lane(Generic[Asked, Told]):
    """One queue in front of the till. Belongs to the event loop it is used from."""

    def __init__(self, send: Send[Asked, Told], limits: LaneLimits) -> None:
        self._send = send
        self._limits = limits
        self._waiting: deque[_Waiting[Asked, Told]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self.depth = 0
        """Items that wait or are in flight."""

    async def ask(self, items: Sequence[Asked]) -> list[Told]:
        """Send items with whatever else is waiting. Same length, same order.

        Raises RateLimited when the queue is full, and whatever `send` raised for the call these items were in. If the caller is
        cancelled, the call goes on: its other items are not lost, and these are settled too.
        """
        if self.depth + len(items) > self._limits.waiting_max:
            raise errors.RateLimited(f"{self.depth} events are waiting for the till; the queue takes {self._limits.waiting_max}")
        waiting = _Waiting[Asked, Told](items, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self.depth += len(items)
        self._start_calls()
        return await waiting.done

    async def drain(self) -> None:
        """Wait until nothing waits and nothing is in flight."""
        while self._calls:
            await asyncio.wait(self._calls)

    def _start_calls(self) -> None:
        while self._waiting and len(self._calls) < self._limits.in_flight_max:
            call = asyncio.create_task(self._call(self._take()))
            self._calls.add(call)
            call.add_done_callback(self._call_ended)

    def _call_ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._start_calls()

    def _take(self) -> list[_Waiting[Asked, Told]]:
        taken: list[_Waiting[Asked, Told]] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].items) <= self._limits.batch_max):
            taken.append(self._waiting.popleft())
            size += len(taken[-1].items)
        return taken

    async def _call(self, taken: list[_Waiting[Asked, Told]]) -> None:
        items = [item for waiting in taken for item in waiting.items]
        try:
            told = await self._send(items)
        except BaseException as error:  # noqa: BLE001 - whatever happened to the call, every waiter must hear of it
            for waiting in taken:
                if not waiting.done.done():
                    waiting.done.set_exception(_as_exception(error))
            return
        finally:
            self.depth -= len(items)
        start = 0
        for waiting in taken:
            end = start + len(waiting.items)
            if not waiting.done.done():
                waiting.done.set_result(told[start:end])
            start = end


def _as_exception(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    return errors.Unavailable("till_unavailable", "The call to the till was cancelled; send the same ids again.")

"""The meter of `AsyncTallybook`: a task of the running event loop sends."""

import asyncio
import atexit
import contextlib
import time

import httpx

from tallybook.client.meter import delivery
from tallybook.client.meter.delivery import Outcome, Shipment, Split
from tallybook.client.meter.outbox import Outbox
from tallybook.client.meter.problems import Problem
from tallybook.client.meter.queue import Queue
from tallybook.client.meter.thread import Meter

_AFTER_A_BUG_S = 1.0
_LAST_S_MAX = 0.2
_LAYERS = 3
_LAYER_S = 0.001


class AsyncMeter(Queue):
    """Sends what it was given in the background. `track` may be called anywhere; the sender runs in the loop that tracked first.

    When that loop has ended, the next one in which something is tracked or flushed takes over. When the process ends with events
    left, a thread sends them as `Meter` would.
    """

    def __init__(self, outbox: Outbox) -> None:
        """Raises ValueError for the policy `block`, which would stop the loop that has to make room; `put` waits instead."""
        super().__init__(outbox)
        if outbox.settings.when_full == "block":
            raise ValueError("an AsyncTallybook can't block when its meter is full: choose another policy")
        self._begin()
        atexit.register(self._send_at_exit)

    def _begin(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._signal = asyncio.Event()
        self._hurry = asyncio.Event()
        self._moved = asyncio.Event()
        self._closed = False
        self.outbox.wake = self._wake
        self.outbox.progress = self._tell_progress

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything tracked before is with the service; False when `timeout_s` seconds were not enough."""
        await self._collect_forgotten()
        with self.outbox.flush() as out:
            self._wake()
            self._hurry.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while not out():
                        self._moved.clear()
                        await self._moved.wait()
            return out()

    async def _collect_forgotten(self) -> None:
        """An async stream consists of generators that the loop closes one after the other, each when the one around it is gone."""
        for _ in range(_LAYERS):
            if not self.outbox.collect_forgotten():
                return
            await asyncio.sleep(_LAYER_S)

    async def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, for at most `timeout_s` (default: the setting `close_s`), and stop. Closing twice is fine."""
        if self._closed:
            return
        atexit.unregister(self._send_at_exit)
        limit = self.outbox.settings.close_s if timeout_s is None else timeout_s
        await self.flush(limit)
        self.outbox.finish_reading_early()
        await self.flush(min(limit, _LAST_S_MAX))
        self._closed = True
        if self._task is not None and self._is_here():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.outbox.close()

    def restart_after_fork(self) -> None:
        """In a forked child: a queue of its own; a task is started in the child's loop."""
        super().restart_after_fork()
        self._begin()

    def _wake(self) -> None:
        """There is something to send. Called from any thread, with or without a loop."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            if self._is_here():
                self._signal.set()
            elif not self._signal.is_set():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._signal.set)
            return
        with contextlib.suppress(RuntimeError):
            self._start(asyncio.get_running_loop())

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            return
        self._loop = loop
        self._signal, self._hurry, self._moved = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._signal.set()
        self._task = loop.create_task(self._run(), name="tallybook-meter")

    def _tell_progress(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._moved.set)

    async def _run(self) -> None:
        address = self.outbox.address
        async with httpx.AsyncClient(timeout=address.timeout_s, verify=address.needs_certificates()) as http:
            while True:
                await self._signal.wait()
                self._signal.clear()
                await self._linger()
                try:
                    await self._send_all(http)
                except Exception as error:  # noqa: BLE001 - a bug here must not end metering
                    self.outbox.tell(Problem("internal", f"sending failed: {error!r}", error=error))
                    self._signal.set()
                    await asyncio.sleep(_AFTER_A_BUG_S)
                self._moved.set()

    async def _linger(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.outbox.settings.linger_s):
                await self._hurry.wait()
        self._hurry.clear()

    async def _send_all(self, http: httpx.AsyncClient) -> None:
        while True:
            batch = self.outbox.batch()
            if not batch.payloads:
                return
            shipment = Shipment(batch.payloads)
            done = False
            while not done:
                done, pause_s = self.outbox.settle(batch, await self._ship(http, shipment))
                if pause_s:
                    await asyncio.sleep(pause_s)

    async def _ship(self, http: httpx.AsyncClient, shipment: Shipment) -> list[Outcome]:
        address = self.outbox.address
        try:
            answer = await http.post(address.url + delivery.PATH, content=shipment.body(), headers=shipment.headers(address))
        except httpx.TransportError as error:
            answer = error
        outcome = delivery.outcome(shipment, answer, address.url)
        if isinstance(outcome, Split):
            return [each for half in shipment.halves() for each in await self._ship(http, half)]
        return [outcome]

    def _send_at_exit(self) -> None:
        """The loop is gone; what it did not send is sent by a thread."""
        self.outbox.finish_reading_early()
        deadline = time.monotonic() + self.outbox.settings.close_s
        if self.outbox.pending:
            Meter(self.outbox).close(max(0.0, deadline - time.monotonic()))
        else:
            self.outbox.close()

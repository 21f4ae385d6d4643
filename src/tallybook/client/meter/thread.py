"""The meter of `Tallybook`: a thread sends."""

import atexit
import contextlib
import threading
import time

import httpx

from tallybook.client.meter import delivery
from tallybook.client.meter.delivery import Outcome, Shipment, Split
from tallybook.client.meter.outbox import Outbox
from tallybook.client.meter.problems import Problem
from tallybook.client.meter.queue import Queue

_AFTER_A_BUG_S = 1.0
_WHILE_CLOSING_S_MAX = 0.2


class Meter(Queue):
    """Sends what it was given in the background. Starts its thread with the first event, and flushes when the process ends."""

    def __init__(self, outbox: Outbox) -> None:
        """Events of earlier processes that lie in the spool are sent at once."""
        super().__init__(outbox)
        self._begin()
        atexit.register(self.close)
        if outbox.pending:
            self._wake()

    def _begin(self) -> None:
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._signal = threading.Event()
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._given_up = False
        self._progress = threading.Condition()
        self.outbox.wake = self._wake
        self.outbox.progress = self._tell_progress

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything tracked before is with the service; False when `timeout_s` seconds were not enough.

        In a coroutine it keeps the event loop from all else. Of streams broken off whose rest this loop reads, what was told counts.
        """
        self.outbox.collect_forgotten()
        self.outbox.end_reading_here()
        with self.outbox.flush() as out:
            self._hurry.set()
            self._wake()
            with self._progress:
                return self._progress.wait_for(out, timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, for at most `timeout_s` (default: the setting `close_s`), and stop. Closing twice is fine."""
        if self._closing.is_set():
            return
        atexit.unregister(self.close)
        limit = self.outbox.settings.close_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit
        self.flush(limit)
        self.outbox.finish_reading_early()
        self._closing.set()
        self._hurry.set()
        self._wake()
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()) + 0.05)
        self._given_up = True
        self.outbox.close()

    def restart_after_fork(self) -> None:
        """In a forked child: a queue of its own, a thread of its own."""
        super().restart_after_fork()
        self._begin()

    def _wake(self) -> None:
        if self._thread is None:
            self._start()
        if not self._signal.is_set():
            self._signal.set()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="tallybook-meter", daemon=True)
                # At the end of the process no thread can be started; what is tracked then is sent with what waits.
                with contextlib.suppress(RuntimeError):
                    self._thread.start()

    def _tell_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def _run(self) -> None:
        address = self.outbox.address
        with httpx.Client(timeout=address.timeout_s, verify=address.needs_certificates()) as http:
            while not (self._closing.is_set() and (self._given_up or not self.outbox.pending)):
                self._signal.wait()
                self._signal.clear()
                self._hurry.wait(self.outbox.settings.linger_s)
                self._hurry.clear()
                try:
                    self._send_all(http)
                except Exception as error:  # noqa: BLE001 - a bug here must not end metering
                    self.outbox.tell(Problem("internal", f"sending failed: {error!r}", error=error))
                    self._signal.set()
                    self._closing.wait(_AFTER_A_BUG_S)
                self._tell_progress()

    def _send_all(self, http: httpx.Client) -> None:
        while not self._given_up:
            batch = self.outbox.batch()
            if not batch.payloads:
                return
            shipment = Shipment(batch.payloads)
            done = False
            while not done:
                outcomes = self._ship(http, shipment)
                if self._given_up:
                    return
                done, pause_s = self.outbox.settle(batch, outcomes)
                if pause_s:
                    self._pause(pause_s)

    def _pause(self, pause_s: float) -> None:
        """Wait before trying again; less when the meter is being closed. A flush does not cut it short."""
        if not self._closing.wait(pause_s):
            return
        time.sleep(min(pause_s, _WHILE_CLOSING_S_MAX))

    def _ship(self, http: httpx.Client, shipment: Shipment) -> list[Outcome]:
        address = self.outbox.address
        try:
            answer = http.post(address.url + delivery.PATH, content=shipment.body(), headers=shipment.headers(address))
        except httpx.TransportError as error:
            answer = error
        outcome = delivery.outcome(shipment, answer, address.url)
        if isinstance(outcome, Split):
            return [each for half in shipment.halves() for each in self._ship(http, half)]
        return [outcome]

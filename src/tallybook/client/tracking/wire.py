"""Reads what a provider's answer says about usage while its bytes pass by on their way to the caller."""

import base64
import json
import threading
from typing import Final

from tallybook.client.meter.problems import Problem
from tallybook.client.tracking.shapes import END_OF_EVENT, Shape
from tallybook.client.tracking.tracker import Call

FRAMES: Final = "application/vnd.amazon.eventstream"
_BODY_BYTES_MAX: Final = 32 * 1024 * 1024
_PRELUDE_BYTES: Final = 12
_CHECKSUM_BYTES: Final = 4


class Observation:
    """One answer, from its first byte to the event that it becomes: a body of JSON, unless a subclass says otherwise.

    `finish` may be called by whoever comes first.
    """

    def __init__(self, call: Call, shape: Shape) -> None:
        """The event is metered for `call`."""
        self._call = call
        self._shape = shape
        self._rest = b""
        self._parts: list[bytes] = []
        self._bytes = 0
        self._lock = threading.Lock()
        self._is_finished = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes that matters."""
        return self._is_finished or self._shape.is_over

    def feed(self, chunk: bytes) -> bytes:
        """Look at some bytes and return those for the caller."""
        self._bytes += len(chunk)
        if self._bytes <= _BODY_BYTES_MAX:
            self._parts.append(chunk)
        return chunk

    def _look_at(self, data: bytes) -> bytes:
        """Whatever goes wrong here, the caller gets what came."""
        try:
            return self._shape.events(data)
        except Exception as error:  # noqa: BLE001 - a bug in metering must not cost the caller its answer
            self._call.tracker.outbox.tell(Problem("internal", f"a stream could not be read: {error!r}", error=error))
            return data

    def end(self) -> bytes:
        """Nothing more comes: what is left for the caller. Finishes."""
        if self._parts:
            self._call.tracker.guarded(lambda: self._shape.body(json.loads(b"".join(self._parts))))
        self._parts = []
        self.finish()
        return b""

    def forget(self) -> None:
        """Nobody reads the answer any more. Called by a finalizer."""
        if not self._is_finished:
            self._call.tracker.outbox.forget(self)

    def finish(self) -> None:
        """Meter what is known. Does nothing the second time."""
        with self._lock:
            if self._is_finished:
                return
            self._is_finished = True
        self._call.tracker.outbox.unwatch(self)
        found = self._call.tracker.guarded(lambda: self._shape.found)
        if found is None:
            self._call.unknown(self._shape.output)
        else:
            self._call.used(found, "final" if self._shape.is_final else "partial")


class EventObservation(Observation):
    """Server-sent events."""

    def feed(self, chunk: bytes) -> bytes:
        """Look at some bytes and return those for the caller, up to the end of an event."""
        data = self._rest + chunk if self._rest else chunk
        if data.endswith(b"\n\n"):
            self._rest = b""
            return self._look_at(data)
        end = _last_end(data)
        self._rest = data[end:]
        return self._look_at(data[:end]) if end else b""

    def end(self) -> bytes:
        """Nothing more comes: what is left for the caller. Finishes."""
        rest = self._look_at(self._rest) if self._rest else b""
        self._rest = b""
        self.finish()
        return rest


class FrameObservation(Observation):
    """The event stream of AWS: frames of a length, headers and a payload, which has an event of the provider in base64."""

    def feed(self, chunk: bytes) -> bytes:
        """Look at the frames that are complete; the caller gets all as it comes."""
        self._rest += chunk
        self._call.tracker.guarded(self._look_at_frames)
        return chunk

    def _look_at_frames(self) -> None:
        while len(self._rest) >= _PRELUDE_BYTES:
            length, headers = int.from_bytes(self._rest[:4]), int.from_bytes(self._rest[4:8])
            if len(self._rest) < length:
                return
            frame, self._rest = self._rest[:length], self._rest[max(length, _PRELUDE_BYTES) :]
            payload = json.loads(frame[_PRELUDE_BYTES + headers : -_CHECKSUM_BYTES] or b"{}")
            if "bytes" in payload:
                self._shape.events(b"data: " + base64.b64decode(payload["bytes"]) + b"\n\n")

    def end(self) -> bytes:
        """Nothing more comes. Finishes."""
        self.finish()
        return b""


def _last_end(data: bytes) -> int:
    """Where the last complete event ends; 0 when there is none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    end = 0
    for found in END_OF_EVENT.finditer(data):
        end = found.end()
    return end

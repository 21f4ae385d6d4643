"""Reads what a provider's answer says about usage while its bytes pass by on their way to the caller."""

import json
import threading
from typing import Final

from tallybook.client.meter.problems import Problem
from tallybook.client.tracking.shapes import END_OF_EVENT, Shape
from tallybook.client.tracking.tracker import Call

_BODY_BYTES_MAX: Final = 32 * 1024 * 1024


class Observation:
    """One answer, from its first byte to the event that it becomes. `finish` may be called by whoever comes first."""

    def __init__(self, call: Call, shape: Shape, *, is_stream: bool) -> None:
        """`is_stream`: server-sent events; else one JSON body."""
        self._call = call
        self._shape = shape
        self._is_stream = is_stream
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
        """Look at some bytes and return those for the caller, up to the end of an event."""
        if self._is_stream:
            data = self._rest + chunk if self._rest else chunk
            end = _last_end(data)
            self._rest = data[end:]
            return self._look_at(data[:end]) if end else b""
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
        rest = self._look_at(self._rest) if self._rest else b""
        if self._parts:
            self._call.tracker.guarded(lambda: self._shape.body(json.loads(b"".join(self._parts))))
        self._rest, self._parts = b"", []
        self.finish()
        return rest

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


def _last_end(data: bytes) -> int:
    """Where the last complete event ends; 0 when there is none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    end = 0
    for found in END_OF_EVENT.finditer(data):
        end = found.end()
    return end

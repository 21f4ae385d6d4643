"""Keeps what a provider answers while its bytes pass by on their way to the caller, and reads there what it says about usage.

Nothing is read while the caller waits for the next part of a stream, but once at its end, or in lumps of a long one.
"""

import base64
import json
import threading
from typing import Final

from tallybook.client.tracking.shapes import END_OF_EVENT, NULL_USAGE_BYTES, ChatShape, Shape
from tallybook.client.tracking.tracker import Call

FRAMES: Final = "application/vnd.amazon.eventstream"
_BODY_BYTES_MAX: Final = 32 * 1024 * 1024
_LUMP_BYTES: Final = 64 * 1024
_PRELUDE_BYTES: Final = 12
_CHECKSUM_BYTES: Final = 4


class Observation:
    """One answer, from its first byte to the event that it becomes: server-sent events, unless a subclass says otherwise.

    `finish` may be called by whoever comes first.
    """

    _lump_bytes = _LUMP_BYTES
    _bytes = 0
    _is_finished = False

    def __init__(self, call: Call, shape: Shape) -> None:
        """The event is metered for `call`."""
        self._call = call
        self._shape = shape
        self._parts: list[bytes] = []
        """Not read yet. Others may read while the caller's thread adds, so it stays the same list."""
        self._lock = threading.RLock()  # a hook for problems may close the meter, which finishes this

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes that matters."""
        self._read()
        return self._is_finished or self._shape.is_over

    def feed(self, chunk: bytes) -> bytes:
        """Keep some bytes and return those for the caller."""
        self._parts.append(chunk)
        self._bytes += len(chunk)
        if self._bytes > self._lump_bytes:
            self._read()
        return chunk

    def _read(self) -> None:
        """Read what was kept, as far as it is complete."""
        if not self._parts:
            return
        with self._lock:
            count = len(self._parts)
            rest = self._call.tracker.guarded(self._rest_of, b"".join(self._parts[:count]))
            self._parts[:count] = [rest] if rest else []
            self._bytes = len(rest or b"")

    def _rest_of(self, data: bytes, /) -> bytes:
        """Read what is complete, and return what is not."""
        end = _last_end(data)
        self._shape.events(data[:end])
        return data[end:]

    def _read_last(self, rest: bytes, /) -> None:
        """Read what was not complete when the answer ended."""
        self._shape.events(rest)

    def end(self) -> bytes:
        """Nothing more comes: what is left for the caller. Finishes."""
        self._read()
        if self._parts:
            self._call.tracker.guarded(self._read_last, b"".join(self._parts))
            self._parts.clear()
        self.finish()
        return b""

    def forget(self) -> None:
        """Nobody reads the answer any more. Called by a finalizer."""
        if not self._is_finished:
            self._call.tracker.outbox.forget(self)

    def finish(self) -> None:
        """Meter what is known. Does nothing the second time."""
        self._read()
        with self._lock:
            if self._is_finished:
                return
            self._is_finished = True
        self._call.tracker.outbox.unwatch(self)
        found = self._shape.found
        if found is None:
            self._call.unknown(self._shape.output)
        else:
            self._call.used(found, "final" if self._shape.is_final else "partial")


class BodyObservation(Observation):
    """A body of JSON, of which nothing can be told before its end."""

    _lump_bytes = _BODY_BYTES_MAX

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes that matters."""
        return self._is_finished

    def _rest_of(self, data: bytes, /) -> bytes:
        return data if len(data) <= _BODY_BYTES_MAX else b""

    def _read_last(self, rest: bytes, /) -> None:
        self._shape.body(json.loads(rest))


class ChatObservation(Observation):
    """Chat completions that tell their usage because we asked for it: the caller gets what it would have got else."""

    _shape: ChatShape
    _held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Keep some bytes and return those for the caller, up to the end of an event."""
        plain = chunk.replace(NULL_USAGE_BYTES, b"")
        if b'"usage"' not in plain and not self._held and plain.endswith(b"\n\n") and self._bytes < self._lump_bytes:
            self._parts.append(plain)
            self._bytes += len(plain)
            return plain
        data = self._held + chunk
        end = _last_end(data)
        self._held = data[end:]
        return super().feed(self._without_usage(data[:end]))

    def _without_usage(self, data: bytes) -> bytes:
        passed = self._call.tracker.guarded(self._shape.without_usage, data)
        return data if passed is None else passed

    def end(self) -> bytes:
        """Nothing more comes: what is left for the caller. Finishes."""
        rest = super().feed(self._without_usage(self._held))
        super().end()
        return rest


class FrameObservation(Observation):
    """The event stream of AWS: frames of a length, headers and a payload, which has an event of the provider in base64."""

    def _rest_of(self, data: bytes, /) -> bytes:
        while len(data) >= _PRELUDE_BYTES:
            length, headers = int.from_bytes(data[:4]), int.from_bytes(data[4:8])
            if len(data) < length:
                break
            frame, data = data[:length], data[max(length, _PRELUDE_BYTES) :]
            self._call.tracker.guarded(self._look_at, frame[_PRELUDE_BYTES + headers : -_CHECKSUM_BYTES])
        return data

    def _read_last(self, rest: bytes, /) -> None:
        """Half a frame says nothing."""

    def _look_at(self, payload: bytes) -> None:
        event = json.loads(payload or b"{}")
        if "bytes" in event:
            self._shape.events(b"data: " + base64.b64decode(event["bytes"]) + b"\n\n")


def _last_end(data: bytes) -> int:
    """Where the last complete event ends; 0 when there is none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    end = 0
    for found in END_OF_EVENT.finditer(data):
        end = found.end()
    return end

"""Reads what a provider's answer says about usage while its bytes pass by on their way to the caller.

A shape knows one format. It looks at each server-sent event (or at the whole JSON body), keeps what it says about usage, and may
take an event out that the caller did not ask for.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from tallybook.client.tracking import usage
from tallybook.client.tracking.tracker import Call
from tallybook.client.tracking.usage import Usage

_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_BODY_BYTES_MAX = 32 * 1024 * 1024


class Shape(Protocol):
    """One format of answers."""

    is_final: bool
    """Whether what is known is the last word."""
    is_over: bool
    """Whether nothing more comes that matters."""
    output: str
    """Text that came, as far as it is kept for an estimate."""

    @property
    def found(self) -> Usage | None:
        """What is known by now."""
        ...

    def event(self, data: bytes, /) -> bytes:
        """Look at one event and return what the caller gets of it."""
        ...

    def body(self, parsed: Any, /) -> None:
        """Look at a whole JSON body."""
        ...


class SimpleShape:
    """An answer of which only whole bodies are read: embeddings, and what the other shapes begin with."""

    def __init__(self, read: Callable[[Any], Usage | None]) -> None:
        """`read` finds the usage in a parsed answer."""
        self._found: Usage | None = None
        self.is_final = False
        self.is_over = False
        self.output = ""
        self._read = read

    @property
    def found(self) -> Usage | None:
        """What is known by now."""
        return self._found

    def event(self, data: bytes) -> bytes:
        """Nothing is taken out."""
        return data

    def body(self, parsed: Any) -> None:
        """The usage of a whole answer is final."""
        self._found = self._read(parsed)
        self.is_final = self.is_over = self.found is not None


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
        """Look at some bytes and return those for the caller."""
        if self._is_stream:
            return self._call.tracker.guarded(lambda: self._feed_stream(chunk)) or b""
        self._bytes += len(chunk)
        if self._bytes <= _BODY_BYTES_MAX:
            self._parts.append(chunk)
        return chunk

    def _feed_stream(self, chunk: bytes) -> bytes:
        self._rest += chunk
        passed: list[bytes] = []
        start = 0
        for end in _END_OF_EVENT.finditer(self._rest):
            passed.append(self._shape.event(self._rest[start : end.end()]))
            start = end.end()
        self._rest = self._rest[start:]
        return b"".join(passed)

    def end(self) -> bytes:
        """Nothing more comes: what is left for the caller. Finishes."""
        rest = self._rest
        if self._is_stream and rest:
            rest = self._call.tracker.guarded(lambda: self._shape.event(self._rest)) or b""
        elif self._parts:
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


def data_of(event: bytes) -> bytes:
    """The data of a server-sent event."""
    return b"\n".join(line[5:].lstrip(b" ") for line in event.splitlines() if line.startswith(b"data:"))


def parsed(data: bytes) -> Mapping[str, Any]:
    """The object that an event's data is, or an empty one."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


class ChatShape(SimpleShape):
    """OpenAI chat completions. `injected`: the caller did not ask for usage, so the chunk that brings it is taken out."""

    def __init__(self, injected: bool, keep_output: bool, /) -> None:  # noqa: FBT001 - a factory that routes call by place
        """`keep_output`: remember the text, for an estimate."""
        super().__init__(usage.of_openai_chat)
        self._injected = injected
        self._keep_output = keep_output

    def event(self, data: bytes) -> bytes:
        """The last chunk has no choices, and the usage of the whole stream."""
        if b'"usage"' in data:
            if _NULL_USAGE.search(data) is None:
                return self._with_usage(data)
            data = _NULL_USAGE.sub(b"", data) if self._injected else data
        if self._keep_output:
            self._keep(data)
        if b"[DONE]" in data and data_of(data).strip() == b"[DONE]":
            self.is_over = True
            self.is_final = self._found is not None
        return data

    def _with_usage(self, data: bytes) -> bytes:
        chunk = parsed(data_of(data))
        found = self._read(chunk)
        if self._keep_output:
            self._keep(data)
        if found is None:
            return data
        self._found = found
        # Some send running totals with every chunk; the one without choices, or [DONE] after them, is the last word.
        self.is_final = self.is_over = not chunk.get("choices")
        return b"" if self._injected and not chunk.get("choices") else data

    def _keep(self, data: bytes) -> None:
        for choice in cast("list[Any]", parsed(data_of(data)).get("choices") or []):
            self.output += usage.text(choice, "delta", "content") or ""


_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')
"""Inside a JSON string the quotes would be escaped, so this is the field and nothing else."""


class ResponsesShape(SimpleShape):
    """OpenAI Responses: the last event carries the whole response."""

    _LAST = (b"response.completed", b"response.incomplete", b"response.failed")

    def __init__(self) -> None:
        super().__init__(usage.of_openai_responses)

    def event(self, data: bytes) -> bytes:
        """Only the last event is read."""
        head = data[:200]
        if any(name in head for name in self._LAST):
            self._found = self._read(parsed(data_of(data)).get("response"))
            self.is_over = True
            self.is_final = self._found is not None
        return data


class MessagesShape(SimpleShape):
    """Anthropic: the first event has the input, later ones say again what the whole is by then."""

    def __init__(self) -> None:
        super().__init__(usage.of_anthropic)
        self._message: dict[str, Any] = {}

    @property
    def found(self) -> Usage | None:
        """The usage of the message as far as it is told; of a whole body, that body's."""
        return self._found or (self._read(self._message) if self._message else None)

    def event(self, data: bytes) -> bytes:
        """Counts are totals: they replace, and are never added."""
        head = data[:100]
        if b"message_start" in head:
            self._message = dict(parsed(data_of(data)).get("message") or {})
        elif b"message_delta" in head:
            said: dict[str, Any] = parsed(data_of(data)).get("usage") or {}
            known = {name: count for name, count in said.items() if count is not None}
            self._message["usage"] = {**(self._message.get("usage") or {}), **known}
            self.is_final = True
        elif b"message_stop" in head:
            self.is_over = True
        return data

"""The formats of answers, and what each says about usage.

A shape is shown server-sent events, as many complete ones as there are at a time, or a whole JSON body. It parses only what can be
about usage.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, cast

from tallybook.client.tracking import usage
from tallybook.client.tracking.usage import Usage

END_OF_EVENT: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
NULL_USAGE_BYTES: Final = b',"usage":null'
"""As it is nearly always written; `_NULL_USAGE` finds the other spellings."""

_NULL_USAGE: Final = re.compile(rb',\s*"usage"\s*:\s*null')
"""Inside a JSON string the quotes would be escaped, so this is the field and nothing else."""

_DONE: Final = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_FAILED: Final = re.compile(rb'^(?:event: ?error\b|data: ?\{\s*"error"\s*:\s*[{"])', re.MULTILINE)
"""An error in the middle is the last event. Text can't begin a line: line ends in it are escaped."""

_READ: Final = json.JSONDecoder().raw_decode
_DONE_BYTES: Final = 64
"""It is the last event, so only the end is searched."""


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

    def events(self, data: bytes, /) -> None:
        """Look at complete events."""
        ...

    def body(self, parsed: Any, /) -> None:
        """Look at a whole JSON body."""
        ...


def split(data: bytes) -> list[bytes]:
    """The events, each with its end."""
    if b"\r" in data:
        return list(_split_any(data))
    events = [event + b"\n\n" for event in data.split(b"\n\n")]
    last = events.pop()[:-2]
    return [*events, last] if last else events


def _split_any(data: bytes) -> Iterator[bytes]:
    start = 0
    for end in END_OF_EVENT.finditer(data):
        yield data[start : end.end()]
        start = end.end()
    if data[start:]:
        yield data[start:]


def data_of(event: bytes) -> bytes:
    """The data of a server-sent event."""
    return b"\n".join(line[5:].lstrip(b" ") for line in event.splitlines() if line.startswith(b"data:"))


def parsed(event: bytes) -> Mapping[str, Any]:
    """The object that an event's data is, or an empty one."""
    try:
        # Nearly always the data is one line, and the last one.
        found, _ = _READ(event[event.find(b"{") :].decode())
    except ValueError:
        try:
            found = json.loads(data_of(event))
        except ValueError:
            return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def with_name(data: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    """Where the events are that contain `name`, first to last; those between them cost no more than the search."""
    if b"\r" in data:
        start = 0
        for event in split(data):
            end = start + len(event)
            if name in event:
                yield start, end
            start = end
        return
    place = data.find(name)
    while place >= 0:
        start = data.rfind(b"\n\n", 0, place)
        end = data.find(b"\n\n", place)
        start, end = start + 2 if start >= 0 else 0, end + 2 if end >= 0 else len(data)
        yield start, end
        place = data.find(name, end)


def tells_error(data: bytes) -> bool:
    """Whether one of the events says that the stream has failed."""
    return b"error" in data and _FAILED.search(data) is not None


class EmbeddingsShape:
    """An answer of which only whole bodies are read, and what the other shapes begin with."""

    is_final = False
    is_over = False
    output = ""
    found: Usage | None = None
    _read: Callable[[Any], Usage | None] = staticmethod(usage.of_openai_chat)

    def __init__(self, keep_output: bool, /) -> None:  # noqa: FBT001 - a factory that routes call by place
        """`keep_output`: remember the text, for an estimate."""
        self._keep_output = keep_output

    def events(self, data: bytes) -> None:
        """There are none."""

    def body(self, parsed: Any) -> None:
        """The usage of a whole answer is final."""
        self.found = self._read(parsed)
        self.is_final = self.is_over = self.found is not None


class ChatShape(EmbeddingsShape):
    """OpenAI chat completions."""

    def events(self, data: bytes) -> None:
        """The last chunk has no choices, and the usage of the whole stream; the others have null there, if anything."""
        if self.is_over:
            return
        plain = self.without_usage(data)
        if self._keep_output:
            self._keep(plain)
        if _DONE.search(plain, max(0, len(plain) - _DONE_BYTES)):
            self.is_over = True
            self.is_final = self.found is not None
        self.is_over = self.is_over or tells_error(data)

    def without_usage(self, data: bytes) -> bytes:
        """What the server would have sent had nobody asked for usage; what it tells of it is remembered."""
        plain = data.replace(NULL_USAGE_BYTES, b"")
        if b'"usage"' not in plain:
            return plain
        passed: list[bytes] = []
        last = 0
        for start, end in with_name(plain, b'"usage"'):
            passed += plain[last:start], self._with_usage(plain[start:end])
            last = end
        return b"".join([*passed, plain[last:]])

    def _with_usage(self, event: bytes) -> bytes:
        chunk = parsed(event)
        found = self._read(chunk)
        if found is None:
            return _NULL_USAGE.sub(b"", event)
        self.found = found
        # Some send running totals with every chunk; the one without choices, or [DONE] after them, is the last word.
        self.is_final = self.is_over = not chunk.get("choices")
        return event if chunk.get("choices") else b""

    def _keep(self, data: bytes) -> None:
        choices = [choice for event in split(data) for choice in parsed(event).get("choices") or ()]
        self.output += "".join(usage.text(choice, "delta", "content") or "" for choice in choices)


class ResponsesShape(EmbeddingsShape):
    """OpenAI Responses: the last event carries the whole response."""

    _LAST = (b"response.completed", b"response.incomplete", b"response.failed")
    _HEAD_BYTES = 200

    _read = staticmethod(usage.of_openai_responses)

    def events(self, data: bytes) -> None:
        """Only the last event is read."""
        if self._keep_output:
            self._keep(data)
        self._look_for(data[data.rfind(b"\n\n", 0, -2) + 1 :])  # nearly always it comes last
        if not self.is_over:
            self._look_for(data)
        self.is_over = self.is_over or tells_error(data)

    def _look_for(self, data: bytes) -> None:
        for name in self._LAST:
            for start, end in with_name(data, name):
                if name in data[start : min(end, start + self._HEAD_BYTES)]:
                    self._look_at(parsed(data[start:end]), name.decode())

    def _look_at(self, event: Mapping[str, Any], name: str) -> None:
        """Text may name the last event too; only that one is of this type and holds the response."""
        response = event.get("response")
        if isinstance(response, dict) and event.get("type", name) == name:
            self.body(response)
            self.is_over = True

    def _keep(self, data: bytes) -> None:
        deltas = [parsed(data[start:end]) for start, end in with_name(data, b"response.output_text.delta")]
        self.output += "".join(usage.text(each, "delta") or "" for each in deltas)


class MessagesShape(EmbeddingsShape):
    """Anthropic: the first event has the input, later ones say again what the whole is by then."""

    _HEAD_BYTES = 60
    """The kind of an event stands here; its text begins later."""

    _read = staticmethod(usage.of_anthropic)
    _message: Mapping[str, Any] = {}

    def events(self, data: bytes) -> None:
        """Counts are totals: they replace, and are never added."""
        before = self._message
        for start, end in with_name(data, b"message_"):
            self._look_at(data[start:end], data[start : min(end, start + self._HEAD_BYTES)])
        if self._message is not before:
            self.found = self._read(self._message)
        self.is_over = self.is_over or tells_error(data)

    def _look_at(self, event: bytes, head: bytes) -> None:
        if b"message_" not in head:
            return
        if b"message_start" in head:
            self._message = parsed(event).get("message") or {}
        elif b"message_delta" in head:
            said: dict[str, Any] = parsed(event).get("usage") or {}
            known = {name: count for name, count in said.items() if count is not None}
            self._message = {**self._message, "usage": {**(self._message.get("usage") or {}), **known}}
            self.is_final = True
        elif b"message_stop" in head:
            self.is_over = True

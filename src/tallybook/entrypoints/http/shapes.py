"""The one place that shapes what goes out: plain objects for clients from 2026-07-24 on, an envelope for older ones. Pure."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

import msgspec
import orjson

from tallybook.core import errors
from tallybook.entrypoints.http.routing import Page

PLAIN_SINCE = "2026-07-24"
"""The first `commet-version` that gets plain objects. ISO dates compare as text."""
_LIST_HEAD = b'{"object":"list",'
_ENVELOPE_HEAD = b'{"success":true,'


def is_enveloped(version: str | None) -> bool:
    """Whether a client of this version (the `commet-version` header; None without one) expects the envelope."""
    return version is None or version < PLAIN_SINCE


def plain(result: object, *, livemode: bool) -> bytes:
    """A handler's result as plain JSON: an object, a list with its cursor, or null. This form is what is stored for replays."""
    if isinstance(result, Page):
        items = [to_wire(item, livemode=livemode) for item in result.data]
        more = {"object": "list", "data": items, "hasMore": result.next_cursor is not None, "nextCursor": result.next_cursor}
        return orjson.dumps(more)
    return orjson.dumps(to_wire(result, livemode=livemode))


def enveloped(body: bytes) -> bytes:
    """The envelope around plain JSON."""
    if body.startswith(_LIST_HEAD):
        return _ENVELOPE_HEAD + body[len(_LIST_HEAD) :]
    return b'{"success":true,"data":' + body + b"}"


def error(problem: errors.TallybookError) -> bytes:
    """The body of an error, the same for all clients."""
    content = {
        "type": problem.type,
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
        "details": problem.details,
        "doc_url": f"/docs#error-{problem.code}",
    }
    answer = {"success": False, "error": content}
    try:
        return orjson.dumps(answer, default=str)
    except TypeError:  # half a surrogate pair in what the message quotes: the slow writer escapes it
        return json.dumps(answer, default=str).encode()


def to_wire(value: object, *, livemode: bool) -> object:
    """A value as JSON types. A Struct that has `object` gets `livemode`; a dict is the caller's own data and stays as it is."""
    if isinstance(value, msgspec.Struct):
        return _struct(value, livemode=livemode)
    if isinstance(value, Mapping):
        return {name: to_wire(item, livemode=livemode) for name, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [to_wire(item, livemode=livemode) for item in cast("Sequence[object]", value)]
    if value is None or isinstance(value, str | int | float):
        return value
    return msgspec.to_builtins(value, enc_hook=str)


def _struct(value: msgspec.Struct, *, livemode: bool) -> dict[str, object]:
    fields = {
        wire_name: to_wire(item, livemode=livemode)
        for name, wire_name in _names(type(value))
        if (item := getattr(value, name)) is not msgspec.UNSET
    }
    if "object" in fields:
        fields.setdefault("livemode", livemode)
    return fields


@cache
def _names(shape: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(shape.__struct_fields__, shape.__struct_encode_fields__, strict=True))

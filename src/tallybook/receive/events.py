"""Bytes of a usage request to typed values, or errors that say what is wrong: the only way in to this folder.

A body is decoded by a typed decoder in C and accepted when nothing about it is in doubt. Otherwise the slow reader decides, for
one item at a time where that is possible. Both have the same rules; the tests hold them against a third, independent reading.
"""

import msgspec

from tallybook.core import errors
from tallybook.core.errors import TallybookError
from tallybook.receive import assemble, bounds, explain, fingerprints, strict_json, wire
from tallybook.receive.assemble import Tokens
from tallybook.receive.model import Check, Event, PeriodTotal, Usage
from tallybook.receive.strict_json import Value

_ITEM_DEPTH_MAX = bounds.DEPTH_MAX - 2
"""What is left for an item below the body and its list."""
_TOKENS = slice(Usage.__struct_fields__.index("model"), len(Usage.__struct_fields__))
_CROWDED = "holds more values than any valid one"


def parse_one(body: bytes) -> Event:
    """The event of `POST /usage/events`. Raises ValidationError, or PayloadTooLarge above 16 KB."""
    _bound(body, bounds.SINGLE_BYTES_MAX)
    return _event(body) or explain.event(_parse(body, bounds.ITEM_MARKS_MAX))


def whenever(event: Event) -> Event:
    """The event with a fingerprint that leaves its time out: for clients that date it anew each time they send it."""
    if event.occurred_at_ms is None:
        return event
    tokens: Tokens = msgspec.structs.astuple(event)[_TOKENS]
    fingerprint = fingerprints.of(event.feature_code, None, event.properties, event.quantity_nano, tokens)
    return msgspec.structs.replace(event, fingerprint=fingerprint)


def parse_batch(body: bytes) -> list[Event | TallybookError]:
    """The 1 … 100 events of `POST /usage/events/batch` in their order, or an error in the place of each that is wrong.

    Raises ValidationError when the body is no JSON, or its `events` no list of that length; PayloadTooLarge above 256 KB.
    """
    _bound(body, bounds.BATCH_BYTES_MAX)
    return _batch(body) or _item_by_item(body) or explain.batch(_parse(body, bounds.BATCH_MARKS_MAX))


def parse_check(body: bytes) -> Check:
    """The question of `POST /usage/check`. Raises ValidationError, or PayloadTooLarge above 16 KB."""
    _bound(body, bounds.SINGLE_BYTES_MAX)
    return _check(body) or explain.check(_parse(body, bounds.ITEM_MARKS_MAX))


def parse_set(body: bytes) -> PeriodTotal:
    """The total of `PUT /usage`. Raises ValidationError, or PayloadTooLarge above 16 KB."""
    _bound(body, bounds.SINGLE_BYTES_MAX)
    return explain.total(_parse(body, bounds.ITEM_MARKS_MAX))


def _bound(body: bytes, bytes_max: int) -> None:
    if len(body) > bytes_max:
        raise errors.PayloadTooLarge("payload_too_large", f"the body is {len(body)} bytes; at most {bytes_max} are taken")


def _parse(body: bytes, marks_max: int) -> Value:
    try:
        return strict_json.parse(body, marks_max)
    except strict_json.Crowded:
        raise errors.invalid("", f"the body {_CROWDED}") from None


def _event(body: bytes) -> Event | None:
    try:
        decoded = wire.decode_event(body)
        if not wire.kept_everything(decoded, body):
            return None
    except wire.REFUSALS:
        return None
    return assemble.event(decoded, plain=wire.is_plain(body))


def _check(body: bytes) -> Check | None:
    try:
        decoded = wire.decode_check(body)
        if not wire.kept_everything(decoded, body):
            return None
    except wire.REFUSALS:
        return None
    return assemble.check(decoded, plain=wire.is_plain(body))


def _batch(body: bytes) -> list[Event | TallybookError] | None:
    """The events of a batch without any fault, or None."""
    try:
        decoded = wire.decode_batch(body)
        if not wire.kept_everything(decoded, body):
            return None
    except wire.REFUSALS:
        return None
    plain = wire.is_plain(body)
    events: list[Event | TallybookError] = []
    for one in decoded.events:
        event = assemble.event(one, plain=plain)
        if event is None:
            return None
        events.append(event)
    return events


def _item_by_item(body: bytes) -> list[Event | TallybookError] | None:
    """The items of a well-formed batch, only the faulty ones read slowly, or None when the body itself is in doubt."""
    try:
        body.decode()
        split = wire.split_batch(body)
        if not wire.kept_everything(split, body):
            return None
    except wire.REFUSALS:
        return None
    return [_item(bytes(raw), index) for index, raw in enumerate(split.events)]


def _item(raw: bytes, index: int) -> Event | TallybookError:
    event = _event(raw)
    if event is not None:
        return event
    try:
        return explain.item(strict_json.parse(raw, bounds.ITEM_MARKS_MAX, _ITEM_DEPTH_MAX), index)
    except strict_json.Crowded:
        return errors.invalid(f"events[{index}]", f"events[{index}]: {_CROWDED}")

"""The slow reader: the same rules as `wire` and `assemble`, in words. It decides whatever the fast path did not take."""

from collections.abc import Callable
from typing import Final

from tallybook.core import money
from tallybook.core.errors import TallybookError, ValidationError
from tallybook.receive import bounds, fingerprints
from tallybook.receive.assemble import NO_TOKENS, Tokens
from tallybook.receive.model import Check, Event, PeriodTotal
from tallybook.receive.reader import Reader
from tallybook.receive.strict_json import Object, Value

_TOKEN_FIELDS: Final = (
    "inputTokens",
    "outputTokens",
    "cacheReadTokens",
    "cacheWriteTokens",
    "cacheWrite1hTokens",
    "serviceTier",
    "webSearchRequests",
    "inputTokensIncludeCache",
)
_USAGE_FIELDS: Final = frozenset({"featureCode", "feature", "customerId", "model", *_TOKEN_FIELDS})
_EVENT_FIELDS: Final = _USAGE_FIELDS | {"eventId", "idempotencyKey", "timestamp", "value", "properties"}
_CHECK_FIELDS: Final = _USAGE_FIELDS | {"quantity"}
_TOTAL_FIELDS: Final = frozenset({"featureCode", "feature", "customerId", "value", "reason"})
_BATCH_FIELDS: Final = frozenset({"events"})
_PROPERTY_FIELDS: Final = frozenset({"property", "value"})
_NAME_RULE: Final = f"1 to {bounds.PROPERTY_BYTES_MAX} bytes of UTF-8 without control characters"


def batch(given: Value) -> list[Event | TallybookError]:
    """The events of a batch, or each one's own error. Raises ValidationError for what is wrong with the batch itself."""
    reader = Reader(given)
    reader.only(_BATCH_FIELDS)
    reader.require("events")
    events = reader.value("events")
    if isinstance(events, list):
        if not 1 <= len(events) <= bounds.EVENTS_MAX:
            reader.note("events", f"got {len(events)} events; must be 1 to {bounds.EVENTS_MAX}")
    elif events is not None:
        reader.refuse("events", events, f"an array of 1 to {bounds.EVENTS_MAX} events")
    reader.raise_errors()
    return [item(one, index) for index, one in enumerate(events)] if isinstance(events, list) else []


def item(given: Value, index: int) -> Event | TallybookError:
    """The event at a place in a batch, or its error."""
    try:
        return event(given, f"events[{index}]")
    except ValidationError as error:
        return error


def event(given: Value, path: str = "") -> Event:
    """The event. Raises ValidationError that names every broken rule, with field paths that start at `path`."""
    reader = Reader(given, path)
    reader.only(_EVENT_FIELDS)
    code, customer_id = _code(reader), _customer(reader)
    event_id = _either(reader, "eventId", "idempotencyKey", lambda name: reader.printable(name, bounds.ID_BYTES_MAX))
    occurred_at_ms = reader.moment("timestamp")
    properties = _properties(reader)
    quantity_nano, tokens = _used(reader, "value")
    reader.raise_errors()
    fingerprint = fingerprints.of(code, occurred_at_ms, properties, quantity_nano, tokens)
    return Event(code, customer_id, quantity_nano, *tokens, event_id, occurred_at_ms, properties, fingerprint)


def check(given: Value) -> Check:
    """The check. Raises ValidationError that names every broken rule."""
    reader = Reader(given)
    reader.only(_CHECK_FIELDS)
    code, customer_id = _code(reader), _customer(reader)
    quantity_nano, tokens = _used(reader, "quantity")
    reader.raise_errors()
    return Check(code, customer_id, quantity_nano, *tokens)


def total(given: Value) -> PeriodTotal:
    """The total to set. Raises ValidationError that names every broken rule."""
    reader = Reader(given)
    reader.only(_TOTAL_FIELDS)
    code, customer_id = _code(reader), _customer(reader)
    reader.require("value")
    quantity_nano = reader.quantity("value")
    reason = reader.storable("reason", bounds.REASON_BYTES_MAX)
    reader.raise_errors()
    return PeriodTotal(code, customer_id, quantity_nano or 0, reason)


def _code(reader: Reader) -> str:
    code = _either(reader, "featureCode", "feature", reader.code)
    if not reader.has("feature"):
        reader.require("featureCode")
    return code or ""


def _customer(reader: Reader) -> str:
    reader.require("customerId")
    return reader.printable("customerId", bounds.ID_BYTES_MAX) or ""


def _either(reader: Reader, name: str, older: str, read: Callable[[str], str | None]) -> str | None:
    """A field that has an older spelling. Both may be there when they say the same."""
    value, older_value = read(name), read(older)
    if value is not None and older_value is not None and value != older_value:
        reader.note(older, f"differs from {name}, which it is the older spelling of; send one of them")
    return older_value if value is None else value


def _used(reader: Reader, quantity: str) -> tuple[int, Tokens]:
    """Nano-units and tokens; a model and the field `quantity` exclude each other."""
    quantity_nano = reader.quantity(quantity)
    if not reader.has("model"):
        for name in _TOKEN_FIELDS:
            if reader.has(name):
                reader.note(name, "has a meaning only together with model")
        return money.NANO if quantity_nano is None else quantity_nano, NO_TOKENS
    if reader.has(quantity):
        reader.note(quantity, f"must not be sent together with model: a model is charged by tokens, not by {quantity}")
    return money.NANO, _tokens(reader)


def _tokens(reader: Reader) -> Tokens:
    model = reader.printable("model", bounds.MODEL_BYTES_MAX) or ""
    for name in ("inputTokens", "outputTokens"):
        if not reader.has(name):
            reader.note(name, "is required when model is given")
    counts = [reader.integer(name, bounds.TOKENS_MAX) or 0 for name in _TOKEN_FIELDS[:5]]
    total_input, output, read, write, write_1h = counts
    tier = reader.choice("serviceTier", bounds.SERVICE_TIERS)
    searches = reader.integer("webSearchRequests", bounds.WEB_SEARCHES_MAX) or 0
    includes_cache = reader.flag("inputTokensIncludeCache") is not False
    if includes_cache and read + write > total_input:
        reader.note(
            "inputTokens",
            f"is {total_input}, less than cacheReadTokens {read} + cacheWriteTokens {write}; it must be the total prompt count, "
            "or inputTokensIncludeCache must be false",
        )
    if write_1h > write:
        reader.note("cacheWrite1hTokens", f"is {write_1h}, more than cacheWriteTokens {write}, which it is a part of")
    return (model, total_input, output, read, write, write_1h, tier, searches, includes_cache)


def _properties(reader: Reader) -> dict[str, str] | None:
    given = reader.value("properties")
    if given is None:
        return None
    if not isinstance(given, Object | list):
        reader.refuse("properties", given, "an object of strings or an array of {property, value}")
        return None
    if len(given) > bounds.PROPERTIES_MAX:
        reader.note("properties", f"got {len(given)} properties; must be at most {bounds.PROPERTIES_MAX}")
        return None
    return (_named(reader, given) if isinstance(given, Object) else _listed(reader, given)) or None


def _named(reader: Reader, given: Object) -> dict[str, str]:
    inside = reader.inside("properties", given)
    for name in given:
        inside.require(name)
        if not bounds.is_printable(name, bounds.PROPERTY_BYTES_MAX):
            inside.note(name, f"the name must be {_NAME_RULE}")
    return {name: inside.storable(name, bounds.PROPERTY_BYTES_MAX) or "" for name in given}


def _listed(reader: Reader, given: list[Value]) -> dict[str, str]:
    read: dict[str, str] = {}
    for index, one in enumerate(given):
        entry = reader.inside(f"properties[{index}]", one)
        entry.only(_PROPERTY_FIELDS)
        entry.require("property")
        entry.require("value")
        name = entry.printable("property", bounds.PROPERTY_BYTES_MAX) or ""
        if name in read:
            entry.note("property", "is the name of an earlier property too")
        read[name] = entry.storable("value", bounds.PROPERTY_BYTES_MAX) or ""
    return read

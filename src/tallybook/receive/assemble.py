"""From what the typed decoder took to what the rest of the path uses, or None wherever a rule between fields does not hold.

None means "read it slowly": `explain` has the same rules in words. Everything here runs once an event and is written to be cheap.
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.core import money
from tallybook.receive import bounds, fingerprints, quantities, times
from tallybook.receive.model import Check, Event
from tallybook.receive.wire import CheckBody, EventBody, Property, UsageBody

Tokens = tuple[str | None, int, int, int, int, int, str | None, int, bool]
"""The fields of `model.Usage` from `model` on, in their order."""
NO_TOKENS: Final[Tokens] = (None, 0, 0, 0, 0, 0, None, 0, True)


def event(body: EventBody, *, plain: bool) -> Event | None:
    """The event. `plain` says that every text of the body is known to be printable ASCII."""
    code = body.feature_code or body.feature
    customer_id = body.customer_id
    if not code or not customer_id or not bounds.is_code(code) or (body.feature and body.feature != code):
        return None
    event_id = body.event_id or body.idempotency_key or None
    if body.idempotency_key and body.idempotency_key != event_id:
        return None
    properties = _properties(body.properties) if body.properties else None
    if properties is not None and len(properties) != len(body.properties or ()):
        return None
    if not plain and not _texts_hold(customer_id, event_id, body.model, properties):
        return None
    tokens = _tokens(body)
    quantity_nano = _quantity(body.value, tokens)
    if tokens is None or quantity_nano is None:
        return None
    occurred_at_ms = times.unix_ms(body.timestamp) if body.timestamp else None
    fingerprint = fingerprints.of(code, occurred_at_ms, properties, quantity_nano, tokens)
    return Event(code, customer_id, quantity_nano, *tokens, event_id, occurred_at_ms, properties, fingerprint)


def check(body: CheckBody, *, plain: bool) -> Check | None:
    """The check. `plain` as in `event`."""
    code = body.feature_code or body.feature
    customer_id = body.customer_id
    if not code or not customer_id or not bounds.is_code(code) or (body.feature and body.feature != code):
        return None
    if not plain and not _texts_hold(customer_id, None, body.model, None):
        return None
    tokens = _tokens(body)
    quantity_nano = _quantity(body.quantity, tokens)
    if tokens is None or quantity_nano is None:
        return None
    return Check(code, customer_id, quantity_nano, *tokens)


def _tokens(body: UsageBody) -> Tokens | None:
    model, total, output = body.model, body.input_tokens, body.output_tokens
    if not model:
        return NO_TOKENS if _no_tokens(body) else None
    if total is None or output is None or total is UNSET or output is UNSET:
        return None
    read, write = body.cache_read_tokens or 0, body.cache_write_tokens or 0
    write_1h = body.cache_write_1h_tokens or 0
    includes_cache = body.input_tokens_include_cache is not False
    if write_1h > write or (includes_cache and read + write > total):
        return None
    searches = body.web_search_requests or 0
    return (model, total, output, read, write, write_1h, body.service_tier or None, searches, includes_cache)


def _no_tokens(body: UsageBody) -> bool:
    return (
        body.input_tokens is UNSET
        and body.output_tokens is UNSET
        and body.cache_read_tokens is UNSET
        and body.cache_write_tokens is UNSET
        and body.cache_write_1h_tokens is UNSET
        and body.service_tier is UNSET
        and body.web_search_requests is UNSET
        and body.input_tokens_include_cache is UNSET
    )


def _quantity(value: Any, tokens: Tokens | None) -> int | None:  # noqa: ANN401 - whatever JSON had there
    if value is UNSET or value is None:
        return money.NANO
    if tokens is not NO_TOKENS:
        return None
    if type(value) is int:
        nano = value * money.NANO
    elif type(value) is msgspec.Raw:
        nano = quantities.nano_from_bytes(bytes(value))
    else:
        return None
    return nano if nano is not None and 0 <= nano <= money.QUANTITY_MAX else None


def _properties(given: dict[str, str] | list[Property]) -> dict[str, str]:
    return given if isinstance(given, dict) else {item.property: item.value for item in given}


def _texts_hold(customer_id: str, event_id: str | None, model: str | UnsetType | None, properties: dict[str, str] | None) -> bool:
    if not bounds.is_printable(customer_id, bounds.ID_BYTES_MAX):
        return False
    if event_id is not None and not bounds.is_printable(event_id, bounds.ID_BYTES_MAX):
        return False
    if model and not bounds.is_printable(model, bounds.MODEL_BYTES_MAX):
        return False
    return properties is None or all(
        bounds.is_printable(name, bounds.PROPERTY_BYTES_MAX) and bounds.is_storable(value, bounds.PROPERTY_BYTES_MAX)
        for name, value in properties.items()
    )

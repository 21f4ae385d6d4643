"""A second reading of the usage contract, written to be obvious rather than fast: json, Decimal and one rule after the other.

It shares no code with the package. Tests hold both readers of the package against it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import cast

Json = object
INVALID_JSON = "invalid_json"
VALIDATION = "validation_error"
AI_COUNTS = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "cacheWrite1hTokens")
AI_FIELDS = (*AI_COUNTS, "serviceTier", "webSearchRequests", "inputTokensIncludeCache")
SHARED = {"featureCode", "feature", "customerId", "model", *AI_FIELDS}
EVENT = SHARED | {"eventId", "idempotencyKey", "timestamp", "value", "properties"}
CHECK = SHARED | {"quantity"}
TOTAL = {"featureCode", "feature", "customerId", "value", "reason"}
MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))",
)


class Refused(Exception):
    """The input breaks a rule; `code` is what the caller is told."""

    def __init__(self, code: str = VALIDATION) -> None:
        """Remember the code."""
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Text:
    """A number as it was written."""

    digits: str


@dataclass(frozen=True)
class Pairs:
    """An object as it was written."""

    pairs: list[tuple[str, Json]]


@dataclass(frozen=True)
class Expected:
    """What should have been read from an event or a check."""

    feature_code: str
    customer_id: str
    quantity_nano: int
    model: str | None
    counts: tuple[int, ...]
    service_tier: str | None
    web_search_requests: int
    input_tokens_include_cache: bool
    event_id: str | None = None
    occurred_at_ms: int | None = None
    properties: tuple[tuple[str, str], ...] = ()


def read_json(body: bytes) -> Json:
    """The value of a body, 64 levels deep at most and without a thought for how many values there are."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(INVALID_JSON) from None
    if text.startswith("\ufeff") or too_deep(text):
        raise Refused(INVALID_JSON)
    try:
        return json.loads(text, object_pairs_hook=Pairs, parse_float=Text, parse_int=Text, parse_constant=Text)
    except ValueError:
        raise Refused(INVALID_JSON) from None


def too_deep(text: str) -> bool:
    """Whether brackets outside of strings nest deeper than 64, character by character."""
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > 64:
                return True
        elif character in "]}":
            depth -= 1
    return False


def fields(value: Json, known: set[str]) -> dict[str, Json]:
    """The fields of an object that are not null; none repeated, none unknown."""
    if not isinstance(value, Pairs):
        raise Refused
    names = [name for name, _ in value.pairs]
    if len(set(names)) != len(names) or not set(names) <= known:
        raise Refused
    return {name: one for name, one in value.pairs if one is not None}


def text(value: Json, shortest: int, longest: int, forbidden: Callable[[int], bool]) -> str:
    """A string of so many bytes, with none of the forbidden characters."""
    if not isinstance(value, str) or any(0xD800 <= ord(c) <= 0xDFFF or forbidden(ord(c)) for c in value):
        raise Refused
    if not shortest <= len(value.encode()) <= longest:
        raise Refused
    return value


def printable(value: Json, longest: int) -> str:
    """A string without control characters."""
    return text(value, 1, longest, lambda point: point < 0x20 or 0x7F <= point <= 0x9F)


def storable(value: Json, longest: int) -> str:
    """A string without NUL."""
    return text(value, 0, longest, lambda point: point == 0)


def code(value: Json) -> str:
    """A feature code."""
    if not isinstance(value, str) or not re.fullmatch("[a-z0-9_]{1,128}", value, re.ASCII):
        raise Refused
    return value


def integer(value: Json, largest: int) -> int:
    """A whole number without point and exponent."""
    if not isinstance(value, Text) or not re.fullmatch("-?[0-9]{1,20}", value.digits) or not 0 <= int(value.digits) <= largest:
        raise Refused
    return int(value.digits)


def quantity(value: Json) -> int:
    """Nano-units of a decimal number."""
    shape = r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?"
    if not isinstance(value, Text) or not re.fullmatch(shape, value.digits):
        raise Refused
    with localcontext() as context:
        context.prec = 2500
        units = Decimal(value.digits)
        nano = units.scaleb(9)
        if not 0 <= units <= 10**9 or nano != nano.to_integral_value():
            raise Refused
        return int(nano)


def moment(value: Json) -> int:
    """Unix milliseconds: rounded to microseconds, then down."""
    found = MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise Refused
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    micros = int(Decimal("0." + (found[7] or "0")).quantize(Decimal("0.000001"), ROUND_HALF_UP) * 10**6)
    hours, minutes = int(found[9] or 0), int(found[10] or 0)
    if hours > 23 or minutes > 59:
        raise Refused
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if found[8] == "-" else 1)
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=UTC) + timedelta(microseconds=micros)
    except (ValueError, OverflowError):
        raise Refused from None
    since = local - datetime(1970, 1, 1, tzinfo=UTC) - offset
    return since // timedelta(milliseconds=1)


def properties(value: Json) -> tuple[tuple[str, str], ...]:
    """Names and values, sorted."""
    if isinstance(value, Pairs):
        given = value.pairs
    elif isinstance(value, list):
        items = cast("list[Json]", value)
        entries = [fields(one, {"property", "value"}) for one in items]
        if any(len(entry) != 2 for entry in entries):
            raise Refused
        given = [(printable(entry["property"], 256), entry["value"]) for entry in entries]
    else:
        raise Refused
    read = [(printable(name, 256), storable(one, 256)) for name, one in given]
    if len(read) > 20 or len({name for name, _ in read}) != len(read):
        raise Refused
    return tuple(sorted(read))


def either(given: dict[str, Json], name: str, older: str, read: Callable[[Json], str]) -> str | None:
    """A field with an older spelling."""
    values = {read(given[one]) for one in (name, older) if one in given}
    if len(values) > 1:
        raise Refused
    return next(iter(values), None)


def usage(given: dict[str, Json], quantity_field: str) -> Expected:
    """What events and checks have in common."""
    feature_code = either(given, "featureCode", "feature", code)
    if feature_code is None or "customerId" not in given:
        raise Refused
    customer_id = printable(given["customerId"], 128)
    if "model" not in given:
        if any(name in given for name in AI_FIELDS):
            raise Refused
        nano = quantity(given[quantity_field]) if quantity_field in given else 10**9
        return Expected(feature_code, customer_id, nano, None, (0, 0, 0, 0, 0), None, 0, input_tokens_include_cache=True)
    if quantity_field in given or "inputTokens" not in given or "outputTokens" not in given:
        raise Refused
    counts = tuple(integer(given.get(name, Text("0")), 10**9) for name in AI_COUNTS)
    include = given.get("inputTokensIncludeCache", True)
    tier = given.get("serviceTier")
    searches = integer(given.get("webSearchRequests", Text("0")), 10**6)
    if not isinstance(include, bool) or (tier is not None and tier not in ("batch", "flex", "priority")):
        raise Refused
    if counts[4] > counts[3] or (include and counts[2] + counts[3] > counts[0]):
        raise Refused
    model = printable(given["model"], 256)
    return Expected(feature_code, customer_id, 10**9, model, counts, tier if isinstance(tier, str) else None, searches, include)


def event(value: Json) -> Expected:
    """An event."""
    given = fields(value, EVENT)
    used = usage(given, "value")
    event_id = either(given, "eventId", "idempotencyKey", lambda one: printable(one, 128))
    occurred_at_ms = moment(given["timestamp"]) if "timestamp" in given else None
    read = properties(given["properties"]) if "properties" in given else ()
    return replace(used, event_id=event_id, occurred_at_ms=occurred_at_ms, properties=read)


def check(value: Json) -> Expected:
    """A check."""
    return usage(fields(value, CHECK), "quantity")


def total(value: Json) -> tuple[str, str, int, str | None]:
    """A total to set: feature, customer, nano-units, reason."""
    given = fields(value, TOTAL)
    feature_code = either(given, "featureCode", "feature", code)
    if feature_code is None or "customerId" not in given or "value" not in given:
        raise Refused
    reason = storable(given["reason"], 500) if "reason" in given else None
    return feature_code, printable(given["customerId"], 128), quantity(given["value"]), reason


def batch(value: Json) -> list[Expected | str]:
    """The events of a batch, or the code of each one's error."""
    events = fields(value, {"events"}).get("events")
    if not isinstance(events, list):
        raise Refused
    items = cast("list[Json]", events)
    if not 1 <= len(items) <= 100:
        raise Refused
    return [event_or_code(one) for one in items]


def event_or_code(value: Json) -> Expected | str:
    """An event, or the code of its error."""
    try:
        return event(value)
    except Refused as refused:
        return refused.code

"""Words of a question, time zones, exact numbers as text, cursors, run rates. Pure."""

import base64
import binascii
import re
import zoneinfo
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NoReturn, cast

import msgspec

from tallybook.core import clock, errors, money
from tallybook.reports.model import Column, Grain, Property, Question, RawRow, Unit, Value

GROUPS_MAX = 5
CURSOR_CHARACTERS_MAX = 2048
PROPERTY = "property:"
UNIT_PRICE = "unitPrice"
_GRAINS = frozenset(Grain)
_USAGE_WORDS = frozenset({"customerId", "featureCode", "model", "provider", "planCode"})
_WORDS: dict[str, frozenset[str]] = {
    "usage": _USAGE_WORDS,
    "ai-costs": _USAGE_WORDS | {UNIT_PRICE},
    "margin": _USAGE_WORDS,
    "revenue": frozenset({"customerId", "featureCode", "planCode", "lineType"}),
    "top-customers": frozenset({"customerId"}),
}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MICROSECONDS = re.compile(r"@-?[0-9]{1,18}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_HOUR_S = 3600
_HALF_HOUR = timedelta(minutes=30)
_AHEAD = timedelta(minutes=5)
"""How far ahead of the clock an event may be dated."""
_PER_MILLION = 1_000_000
_DIGITS = {Unit.NANO: 9, Unit.PICO: 12, Unit.BPS: 2}


def group_words(report: str, text: str) -> tuple[str, ...]:
    """The words of `groupBy`, which are separated by commas. Raises ValidationError for one that the report does not know."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    known = _WORDS[report]
    for word in words:
        is_property = word.startswith(PROPERTY) and len(word) > len(PROPERTY) and "model" in known
        if word not in known and word not in _GRAINS and not is_property:
            listed = ", ".join([*sorted(known), *(["property:<name>"] if "model" in known else []), *Grain])
            raise errors.invalid("groupBy", f"groupBy has {word[:64]!r}; this report can be grouped by {listed}.")
    if len(set(words)) != len(words) or len(words) > GROUPS_MAX:
        raise errors.invalid("groupBy", f"groupBy takes up to {GROUPS_MAX} different words.")
    return words


def property_filter(text: str) -> Property:
    """`region:eu` taken apart. Raises ValidationError for anything without a colon."""
    name, colon, value = text.partition(":")
    if not colon or not name:
        raise errors.invalid("property", f"property is {text[:64]!r}; write it as name:value.")
    return Property(name, value)


def zone(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of an IANA name. Raises ValidationError for anything else."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise errors.invalid("timeZone", f"timeZone is {name[:64]!r}; it is a name such as Europe/Berlin or UTC.") from error


def local_midnight(day: date, in_zone: zoneinfo.ZoneInfo) -> datetime:
    """When a day begins by the clocks of a zone, in UTC."""
    return datetime.combine(day, time(), in_zone).astimezone(UTC)


def month_bounds(year: int, month: int, in_zone: zoneinfo.ZoneInfo) -> tuple[datetime, datetime]:
    """A calendar month by the clocks of a zone, [start, end) in UTC."""
    first = date(year, month, 1)
    following = (first + timedelta(days=31)).replace(day=1)
    return local_midnight(first, in_zone), local_midnight(following, in_zone)


def end_of_hour(now: datetime) -> datetime:
    """The first whole hour after everything that can have been recorded."""
    return (now + _AHEAD + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)


def bucket_start(moment: datetime, grain: Grain, in_zone: zoneinfo.ZoneInfo) -> datetime:
    """When the hour, day, week or month of a moment began by the clocks of a zone, in UTC."""
    local = moment.astimezone(in_zone)
    if grain is Grain.HOUR:
        return local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
    first = {Grain.DAY: local.day, Grain.WEEK: local.day - local.weekday(), Grain.MONTH: 1}[grain]
    return local_midnight(local.date().replace(day=1) + timedelta(days=first - 1), in_zone)


def buckets(starts_at: datetime, ends_at: datetime, grain: Grain, in_zone: zoneinfo.ZoneInfo) -> list[datetime]:
    """All stretches that [starts_at, ends_at) touches, by when they begin: also those in which nothing happened."""
    found: dict[datetime, None] = {}
    moment = starts_at
    while moment < ends_at:
        found[bucket_start(moment, grain, in_zone)] = None
        moment += _HALF_HOUR
    return list(found)


def first_of_month(text: str) -> date:
    """The first day of `2026-10`. Raises ValidationError for anything else."""
    try:
        return date.fromisoformat(f"{text}-01") if _MONTH.fullmatch(text) else _no_month(text)
    except ValueError:
        return _no_month(text)


def _no_month(text: str) -> NoReturn:
    raise errors.invalid("month", f"month is {text[:16]!r}; write it as 2026-10.")


def is_date(text: str) -> bool:
    """Whether a bare date was given: midnight of the report's time zone is meant."""
    return _DATE.fullmatch(text) is not None


def fits_hours(question: Question) -> bool:
    """Whether totals by UTC hour can answer exactly: no stretch of time that is asked for cuts through such an hour."""
    if any(to_us(moment) % (_HOUR_S * 1_000_000) for moment in (question.starts_at, question.ends_at)):
        return False
    if not any(word in _GRAINS for word in question.group_by):
        return True
    in_zone, day = zone(question.zone), question.starts_at
    while day < question.ends_at + timedelta(days=1):
        offset = day.astimezone(in_zone).utcoffset() or timedelta()
        if offset % timedelta(hours=1):
            return False
        day += timedelta(days=1)
    return True


def to_us(moment: datetime) -> int:
    """Unix microseconds, exact."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def exact(value: int, digits: int) -> str:
    """`0.05022` for 50220000 and 9 digits: every digit, no float, no zeros at the end."""
    sign, magnitude = ("-" if value < 0 else ""), abs(value)
    whole, rest = divmod(magnitude, 10**digits)
    fraction = f"{rest:0{digits}d}".rstrip("0") if digits else ""
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def shown(column: Column, value: Value, in_zone: zoneinfo.ZoneInfo) -> str | int | None:
    """A value as people and programs read it: counts are integers, all other numbers exact decimal text."""
    if value is None or (column.unit is Unit.TEXT and value == ""):
        return None
    if isinstance(value, datetime):
        return clock.iso(value) if column.grain is None else bucket_name(value, column.grain, in_zone)
    if isinstance(value, str) or column.unit is Unit.COUNT:
        return value
    if column.unit is Unit.PICO_PER_TOKEN:
        return exact(value * _PER_MILLION, 12)
    return exact(value, _DIGITS[column.unit])


def bucket_name(start: datetime, grain: Grain, in_zone: zoneinfo.ZoneInfo) -> str:
    """`2026-10-25T02:00+01:00` for an hour, `2026-10-25` for a day and for the Monday of a week, `2026-10` for a month."""
    local = start.astimezone(in_zone)
    if grain is Grain.HOUR:
        return local.isoformat(timespec="minutes")
    return f"{local:%Y-%m}" if grain is Grain.MONTH else f"{local:%Y-%m-%d}"


def percent_of(part: int, whole: int) -> int | None:
    """A share in basis points, rounded half to even; None of nothing."""
    if whole == 0:
        return None
    return money.divide_half_even(part * money.BPS * (1 if whole > 0 else -1), abs(whole))


def encode_cursor(keys: Sequence[Column], row: RawRow) -> str:
    """Where the page after this row begins."""
    values = [_cursor_value(row[column.key]) for column in keys]
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def _cursor_value(value: Value) -> str | int | None:
    return f"@{to_us(value)}" if isinstance(value, datetime) else value


def decode_cursor(keys: Sequence[Column], cursor: str) -> tuple[Value, ...]:
    """The keys in a cursor. Raises ValidationError for one that another question gave."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = msgspec.json.decode(data, type=list[str | int | None])
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise _not_a_cursor() from error
    if len(values) != len(keys):
        raise _not_a_cursor()
    return tuple(_key_value(column, value) for column, value in zip(keys, values, strict=True))


def _key_value(column: Column, value: str | int | None) -> Value:
    if column.unit in (Unit.BUCKET, Unit.INSTANT):
        if not isinstance(value, str) or not _MICROSECONDS.fullmatch(value):
            raise _not_a_cursor()
        return _moment(int(value[1:]))
    if not isinstance(value, str if column.unit is Unit.TEXT else int) or (isinstance(value, str) and "\0" in value):
        raise _not_a_cursor()
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise _not_a_cursor()
    return value


def _moment(microseconds: int) -> datetime:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError as error:
        raise _not_a_cursor() from error


def _not_a_cursor() -> errors.ValidationError:
    return errors.invalid("cursor", "cursor must be a nextCursor of an earlier page of this very report.")


def projected(used: int, elapsed: timedelta, whole: timedelta) -> int:
    """What usage comes to by the end of a period if it goes on as it did so far, rounded half to even."""
    microsecond = timedelta(microseconds=1)
    passed, total = min(elapsed, whole) // microsecond, whole // microsecond
    if passed <= 0:
        return used
    return money.divide_half_even(used * total, passed)


def as_integers(row: dict[str, object]) -> RawRow:
    """A row of the book with its `numeric` columns as Python integers."""
    plain = (str, datetime, int)
    kept = {name: value if value is None or isinstance(value, plain) else int(cast("int", value)) for name, value in row.items()}
    return cast("RawRow", kept)


SHARE_COLUMNS = (Column("marginPercent", Unit.BPS), Column("markupPercent", Unit.BPS))
_WITH_SHARES = frozenset({"margin", "ai-costs"})


def share_columns(report: str) -> tuple[Column, ...]:
    """Columns that follow from others and cannot be summed: the margin in percent of the charge, and of the cost."""
    return SHARE_COLUMNS if report in _WITH_SHARES else ()


def shares(report: str, row: RawRow) -> dict[str, int | None]:
    """The values of `share_columns`."""
    if report not in _WITH_SHARES:
        return {}
    margin, cost, charge = (cast("int", row[name]) for name in ("margin", "cost", "charge"))
    return {"marginPercent": percent_of(margin, charge), "markupPercent": percent_of(margin, cost)}

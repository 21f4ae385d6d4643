"""Which records the book can hold, and what it says about one that it cannot."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from tallybook.core import usage_log
from tallybook.core.usage_log import Kind

DECEMBER = 12
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
MOMENT_MS_MAX = 253_402_300_799_000
"""The last second of the year 9999."""
ACCEPTED_MS_MIN = 1_577_836_800_000
ACCEPTED_MS_MAX = 4_102_444_800_000
"""Arrival times are the till's own clock: outside of 2020 … 2099 it is wrong, and its months are not made."""
POOL_NAME_MAX = 200
KINDS = frozenset(int(kind) for kind in Kind)
INT32_FIELDS = ("tenant_id", "feature_id", "margin_bps", "web_searches")
SECOND_FIELDS = ("period_start_s", "belongs_to_s")
INT64_FIELDS = (
    "customer_id",
    "amount",
    "quantity_nano",
    "price_id",
    "cost_nano",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "input_pico",
    "output_pico",
    "cache_read_pico",
    "cache_write_pico",
    "cache_write_1h_pico",
    "web_search_pico",
    "catalog_version",
)
TEXT_FIELDS = ("event_id", "model", "matched_by", "service_tier", "reason", "voids")

_GATHER_S_MIN, _GATHER_S_MAX = 0.1, 1.0
_EVENTS_A_SECOND_OF_REST = 5_000
_LAG_S = 1.0
"""How far behind the oldest event that is not in the book may be for the sake of a longer rest."""
_NUMBER_BOUNDS = dict.fromkeys(INT32_FIELDS, INT32_MAX) | dict.fromkeys(INT64_FIELDS, INT64_MAX)
_MOMENT_BOUNDS = {"occurred_at_ms": MOMENT_MS_MAX} | dict.fromkeys(SECOND_FIELDS, MOMENT_MS_MAX // 1000)
_AMOUNT = re.compile(r"-?[0-9]{1,19}\Z")


def amount(text: str) -> int | None:
    """An amount in text as an int; "" is 0; None for anything else or beyond 64 bits."""
    if text == "":
        return 0
    if not _AMOUNT.match(text):
        return None
    value = int(text)
    return value if abs(value) <= INT64_MAX else None


def effect_problem(record: usage_log.Record, outcome: str) -> str | None:
    """Why the record's effect on its pool is not known, or None. Such a record is counted nowhere but in quarantine."""
    found = amount(outcome)
    if record.kind not in KINDS:
        return f"unknown kind {record.kind}"
    if found is None or abs(record.amount) > INT64_MAX:
        return f"amount {record.amount} or outcome {outcome[:40]!r} is not an amount of 64 bits"
    if not 0 <= record.tenant_id <= INT32_MAX or not 0 <= record.customer_id <= INT64_MAX:
        return f"tenant {record.tenant_id} or customer {record.customer_id} is out of range"
    if "\0" in record.pool or len(record.pool) > POOL_NAME_MAX:
        return "pool name contains NUL or is too long"
    if not _is_part(found, record):
        return f"purchased credits paid {found} of {record.amount}"
    return None


def _is_part(paid_by_credits: int, record: usage_log.Record) -> bool:
    """Whether what purchased credits paid is a part of the usage; a void, and what is taken by hand, has both with the other sign."""
    if record.kind == Kind.USAGE:
        return 0 <= paid_by_credits <= record.amount
    return record.kind not in (Kind.VOID, Kind.ADJUSTMENT) or min(record.amount, 0) <= paid_by_credits <= 0


def detail_problem(record: usage_log.Record) -> str | None:
    """Why the event itself cannot be stored although its effect on the pool is known, or None."""
    return next(_detail_problems(record), None)


def memory_problem(applied: usage_log.Applied) -> str | None:
    """Why the book can't hold what the till remembers of the event, or None."""
    for text in (applied.left, applied.spare_left):
        if amount(text) is None:
            return f"{text[:40]!r} left is not an amount of 64 bits"
    record = applied.record
    if record.kind == Kind.SET and abs((amount(applied.outcome) or 0) - record.amount) > INT64_MAX:
        return f"{applied.outcome} set to {record.amount} is a change beyond 64 bits"
    return None


def _detail_problems(record: usage_log.Record) -> Iterator[str]:
    for name, bound in _NUMBER_BOUNDS.items():
        if abs(getattr(record, name)) > bound:
            yield f"{name} {getattr(record, name)} is beyond {bound.bit_length() + 1} bits"
    for name, bound in _MOMENT_BOUNDS.items():
        if not 0 <= getattr(record, name) <= bound:
            yield f"{name} {getattr(record, name)} is no time"
    for name in TEXT_FIELDS:
        if "\0" in (getattr(record, name) or ""):
            yield f"{name} contains NUL"
    if any("\0" in text for item in (record.properties or {}).items() for text in item):
        yield "properties contain NUL"


def arrival_is_plausible(accepted_at_ms: int) -> bool:
    """Whether an entry's arrival time can be a real one."""
    return ACCEPTED_MS_MIN <= accepted_at_ms < ACCEPTED_MS_MAX


def gather_s(events: int, took_s: float) -> float:
    """How many seconds to rest after a pass with so many events, so that the next one adds more of them to each row of the totals.

    A quiet installation's book is a tenth of a second behind. A busy one rests for as long as the book may be behind: an event that just
    misses a pass waits for its end, the rest, and the next pass.
    """
    longest = min(_GATHER_S_MAX, _LAG_S - 2 * took_s)
    return max(_GATHER_S_MIN, min(longest, events / _EVENTS_A_SECOND_OF_REST))


def month_bounds(year: int, month: int) -> tuple[datetime, datetime]:
    """The month as [start, end) in UTC."""
    following = (year + 1, 1) if month == DECEMBER else (year, month + 1)
    return datetime(year, month, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC)

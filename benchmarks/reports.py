"""Reports: one customer's month by model and day, over a book with millions of events, from the hourly totals.

The events are written into the tables directly, with totals computed from them; the report is also computed from the raw events,
and must come out the same.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import Any

import msgspec

from benchmarks.installation import Installation
from benchmarks.traffic import MODELS
from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection

_REPEATS = 25
_FIRST_CUSTOMER = 1_000_000_000
"""Ids that no customer of the installation has."""
_DAYS, _CUSTOMERS = 30, 1000
_EVENTS = """
INSERT INTO usage_events (
    tenant_id, customer_id, feature_id, digest, kind, occurred_at, accepted_at, rolled_at, period_start, pool, quantity_nano, amount,
    cost_nano, price_id, model, input_tokens, output_tokens, fingerprint, partition, seq, position
)
SELECT
    $1, $2 + CASE WHEN g % 5 = 0 THEN 0 ELSE g % $3 END, 1, decode(md5(g::text), 'hex'), 0,
    $4::timestamptz + (g * 7919 % ($5 * 86400)) * interval '1 second', $6, $6, $4, 'report', 1000000000, g % 9999, g % 8888,
    ($7::bigint[])[1 + g % cardinality($7::bigint[])], ($8::text[])[1 + g % cardinality($7::bigint[])], g % 5000, g % 700,
    decode(repeat('00', 12), 'hex'), 0, 0, 0
FROM generate_series(1::bigint, $9::bigint) AS g
"""
_HOURS = """
INSERT INTO usage_hourly (
    tenant_id, customer_id, feature_id, hour, period_start, price_id,
    events, quantity_nano, amount, cost_nano, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
)
SELECT
    tenant_id, customer_id, feature_id, date_trunc('hour', occurred_at, 'UTC'), period_start, price_id, count(*),
    sum(quantity_nano), sum(amount), sum(cost_nano), sum(input_tokens), sum(output_tokens), 0, 0
FROM usage_events WHERE customer_id >= $1
GROUP BY 1, 2, 3, 4, 5, 6
"""
_REPORT = """
SELECT p.model_id AS model, date_trunc('day', h.hour, 'UTC') AS day, sum(h.events) AS events, sum(h.amount) AS amount,
    sum(h.cost_nano) AS cost, sum(h.input_tokens) AS input_tokens, sum(h.output_tokens) AS output_tokens
FROM usage_hourly AS h JOIN ai_model_prices AS p ON p.id = h.price_id
WHERE h.tenant_id = $1 AND h.customer_id = $2 AND h.hour >= $3 AND h.hour < $4
GROUP BY 1, 2 ORDER BY 1, 2
"""
_REPORT_OF_EVENTS = """
SELECT model, date_trunc('day', occurred_at, 'UTC') AS day, count(*) AS events, sum(amount) AS amount, sum(cost_nano) AS cost,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
FROM usage_events WHERE tenant_id = $1 AND customer_id = $2 AND occurred_at >= $3 AND occurred_at < $4
GROUP BY 1, 2 ORDER BY 1, 2
"""
_PRICES = (
    "SELECT DISTINCT ON (model_id) model_id, id FROM ai_model_prices WHERE model_id = ANY ($1::text[]) ORDER BY model_id, id DESC"
)


class ReportRun(msgspec.Struct, frozen=True):
    """How long a report takes, median and slowest of some; beside it the same from raw events, once, and whether they agree."""

    events_in_book: int
    events_in_report: int
    rows: int
    report_ms: float
    report_max_ms: float
    from_events_ms: float
    agrees: bool


async def measure(installation: Installation, events: int) -> ReportRun:
    """Fill the book and ask. Leaves the events there: nothing reconciles afterwards."""
    tenant, database = installation.account.tenant, installation.services.database
    starts_at = clock.real_clock().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=_DAYS)
    async with postgres.transaction(database) as connection:
        await _fill(connection, tenant, starts_at, events)
    for table in ("usage_hourly", "usage_events"):
        await database.execute(f"VACUUM ANALYZE {table}", timeout=600.0)
    asked = (tenant.id, _FIRST_CUSTOMER, starts_at, starts_at + timedelta(days=_DAYS))
    async with database.acquire() as connection:
        runs = [await _ask(connection, _REPORT, asked) for _ in range(_REPEATS)]
        from_events_ms, expected = await _ask(connection, _REPORT_OF_EVENTS, asked)
    times, rows = [run[0] for run in runs], runs[-1][1]
    return ReportRun(events, _events(rows), len(rows), median(times), max(times), from_events_ms, rows == expected)


async def _fill(connection: Connection, tenant: Tenant, starts_at: object, events: int) -> None:
    found = await connection.fetch(_PRICES, list(MODELS))
    models, prices = [row["model_id"] for row in found], [row["id"] for row in found]
    now = clock.real_clock()
    filling = (tenant.id, _FIRST_CUSTOMER, _CUSTOMERS, starts_at, _DAYS, now, prices, models, events)
    await connection.execute(_EVENTS, *filling, timeout=1800.0)
    await connection.execute(_HOURS, _FIRST_CUSTOMER, timeout=1800.0)


def _events(rows: Sequence[Sequence[Any]]) -> int:
    return sum(int(row[2]) for row in rows)


async def _ask(connection: Connection, query: str, asked: Sequence[object]) -> tuple[float, list[tuple[object, ...]]]:
    started = time.perf_counter()
    rows = await connection.fetch(query, *asked, timeout=600.0)
    elapsed_ms = (time.perf_counter() - started) * 1000
    return elapsed_ms, [tuple(row.values()) for row in rows]

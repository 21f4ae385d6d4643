"""A book with as many events as one likes, written straight into the tables: what reports and exports are measured on.

Customers send what the power law of the traffic says, of five models, spread over a month; hourly totals are summed from the events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate

from benchmarks.traffic import MODELS, power_law
from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection, Pool

Say = Callable[[str], None]
DAYS = 30
_FILL_S_MAX = 7200.0
_EVENTS = """
INSERT INTO usage_events (
    tenant_id, customer_id, feature_id, digest, identity, event_id, kind, occurred_at, accepted_at, rolled_at, period_start, pool,
    quantity_nano, amount, cost_nano, margin_bps, price_id, model, matched_by, input_tokens, output_tokens, cache_read_tokens,
    input_pico, output_pico, cache_read_pico, catalog_version, properties, fingerprint, partition, seq, position
)
SELECT
    $1::integer, ($2::bigint[])[1 + width_bucket(random(), $3::float8[])], $4::integer, decode(md5(g::text), 'hex'),
    (((extract(epoch FROM $7::timestamptz)::bigint / 86400) - 18262) << 48) | ('x' || substr(md5(g::text), 1, 12))::bit(48)::bigint,
    'event_' || g, 0,
    $5::timestamptz + (g * 7919 % ($6::bigint * 86400)) * interval '1 second', $7, $7, $5, '1.b.1', 1000000000, g % 9999 * 1200,
    g % 9999 * 1000, 2000, ($8::bigint[])[1 + g % cardinality($8::bigint[])], ($9::text[])[1 + g % cardinality($8::bigint[])], 'exact',
    g % 5000, g % 700, g % 300, 3000000, 15000000, 300000, 1, jsonb_build_object('region', 'eu'), decode(repeat('00', 12), 'hex'), 0, g, 0
FROM generate_series($10::bigint, $11::bigint) AS g
"""
_HOURS = """
INSERT INTO usage_hourly (
    tenant_id, customer_id, feature_id, hour, period_start, price_id,
    events, quantity_nano, amount, cost_nano, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
)
SELECT
    tenant_id, customer_id, feature_id, date_trunc('hour', occurred_at, 'UTC'), period_start, price_id, count(*),
    sum(quantity_nano), sum(amount), sum(cost_nano), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), 0
FROM usage_events WHERE tenant_id = $1
GROUP BY 1, 2, 3, 4, 5, 6
"""
_PRICES = (
    "SELECT DISTINCT ON (model_id) model_id, id FROM ai_model_prices WHERE model_id = ANY ($1::text[]) ORDER BY model_id, id DESC"
)
_CUSTOMERS = "SELECT id FROM customers WHERE tenant_id = $1 ORDER BY id"
_DROP_INDEXES = "DROP INDEX usage_events_by_customer, usage_events_by_identity, usage_events_voids, usage_events_late"
_PART = 1_000_000


@dataclass(frozen=True, slots=True)
class Book:
    """What was written: whose, from when, and the customer that has the most."""

    tenant: Tenant
    starts_at: datetime
    largest: int
    events: int
    hours: int

    @property
    def ends_at(self) -> datetime:
        """The end of the month."""
        return self.starts_at + timedelta(days=DAYS)


async def fill(database: Pool, tenant: Tenant, events: int, say: Say, *, alike: bool = False, only_events: bool = False) -> Book:
    """Write so many events of a tenant's customers (`alike`: each sends as many), and their hourly totals, in place of all others.

    `only_events`: no hourly totals, and no indexes but that of times. Nothing reconciles afterwards: there are no pools and no log behind
    these events.
    """
    now = clock.real_clock()
    starts_at = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    async with postgres.transaction(database) as connection:
        await connection.execute("TRUNCATE usage_events, usage_hourly")
        if only_events:
            await connection.execute(_DROP_INDEXES)
        customers = [row["id"] for row in await connection.fetch(_CUSTOMERS, tenant.id)]
        weights = [1 / len(customers)] * len(customers) if alike else power_law(len(customers))
        await _write_events(connection, tenant, customers, weights, (starts_at, now), events, say)
        if not only_events:
            say("summing hourly totals")
            await connection.execute(_HOURS, tenant.id, timeout=_FILL_S_MAX)
    for table in ("usage_hourly", "usage_events"):
        await database.execute(f"VACUUM ANALYZE {table}", timeout=_FILL_S_MAX)
    hours = await database.fetchval("SELECT count(*) FROM usage_hourly WHERE tenant_id = $1", tenant.id, timeout=_FILL_S_MAX)
    return Book(tenant, starts_at, customers[0], events, hours)


async def _write_events(
    connection: Connection,
    tenant: Tenant,
    customers: Sequence[int],
    weights: Sequence[float],
    times: tuple[datetime, datetime],
    events: int,
    say: Say,
) -> None:
    found = await connection.fetch(_PRICES, list(MODELS))
    models, prices = [row["model_id"] for row in found], [row["id"] for row in found]
    feature = await connection.fetchval("SELECT min(id) FROM features WHERE tenant_id = $1", tenant.id)
    steps = list(accumulate(weights))[:-1]
    starts_at, now = times
    for first in range(1, events + 1, _PART):
        last = min(first + _PART - 1, events)
        filling = (tenant.id, customers, steps, feature, starts_at, DAYS, now, prices, models, first, last)
        await connection.execute(_EVENTS, *filling, timeout=_FILL_S_MAX)
        say(f"{last:,} of {events:,} events written")

"""A till and a book that know many customers and many events: what the cost of an event must not depend on.

Customers are copied from one that was made over HTTP, and each has one event that went through the till. Events are written straight into
the month: nothing reconciles afterwards.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from benchmarks import book, prepared
from benchmarks.installation import Installation
from tallybook.charge.commands import Charge, Outcome
from tallybook.core import clock, ids, partitions, pools
from tallybook.rollup import store
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection

_S_MAX = 3600.0
_AT_ONCE = 50_000
_NAMED = "known_"
_CUSTOMERS = """
INSERT INTO customers (tenant_id, public_id, external_id, email, created_at, updated_at)
SELECT $1, 'cus_known' || lpad(g::text, 15, '0'), 'known_' || g, 'known_' || g || '@example.com', now(), now()
FROM generate_series($2::integer, $3::integer) AS g
"""
_SUBSCRIPTIONS = """
INSERT INTO subscriptions (
    tenant_id, public_id, customer_id, plan_id, price_id, name, status, started_at, trial_ends_at, anchor_at, created_at, updated_at
)
SELECT
    s.tenant_id, 'sub_known' || lpad(c.id::text, 15, '0'), c.id, s.plan_id, s.price_id, s.name, s.status, s.started_at, s.trial_ends_at,
    s.anchor_at, s.created_at, s.updated_at
FROM customers AS c CROSS JOIN subscriptions AS s
WHERE s.customer_id = $2 AND c.tenant_id = $1 AND c.id > $3
"""
_PERIODS = """
INSERT INTO billing_periods (subscription_id, tenant_id, starts_at, ends_at, state, feature_revision, price_revision)
SELECT s.id, p.tenant_id, p.starts_at, p.ends_at, p.state, p.feature_revision, p.price_revision
FROM subscriptions AS s CROSS JOIN billing_periods AS p
WHERE p.subscription_id = (SELECT id FROM subscriptions WHERE customer_id = $2) AND p.state = 'open' AND s.tenant_id = $1
    AND s.customer_id > $3
"""
_TERMS = """
INSERT INTO customer_terms (customer_id, tenant_id, version)
SELECT c.id, t.tenant_id, t.version FROM customers AS c CROSS JOIN customer_terms AS t
WHERE t.customer_id = $2 AND c.tenant_id = $1 AND c.id > $3
"""
_NEW = """
SELECT c.id, s.id AS subscription_id FROM customers AS c INNER JOIN subscriptions AS s ON s.customer_id = c.id
WHERE c.tenant_id = $1 AND c.id > $2 ORDER BY c.id
"""
_ACTIVE = """
SELECT external_id FROM (
    SELECT external_id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS every FROM customers WHERE tenant_id = $1
) AS known
WHERE place % greatest(every / $2, 1) = 0 LIMIT $2
"""
_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = 'usage_events'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
_AS_THE_FIRST = {
    "customer_id": "$2::bigint + g * 7919 % $3::bigint",
    "digest": "decode(md5(g::text), 'hex')",
    "identity": "((floor(extract(epoch FROM at) / 86400)::bigint - 18262) << 48) + ((hashint8(g)::bigint & 4294967295) << 16)",
    "event_id": "'stored_' || g",
    **dict.fromkeys(("occurred_at", "accepted_at", "rolled_at"), "at"),
    "seq": "-g",
}


async def customers(installation: Installation, wanted: int) -> None:
    """Make it so many customers, each with one event in till and book."""
    services, tenant = installation.services, installation.account.tenant
    async with postgres.transaction(services.database) as connection:
        template = await connection.fetchval("SELECT min(id) FROM customers WHERE tenant_id = $1", tenant.id)
        last = await connection.fetchval("SELECT max(id) FROM customers WHERE tenant_id = $1", tenant.id)
        there = await connection.fetchval("SELECT count(*) FROM customers WHERE tenant_id = $1", tenant.id, timeout=_S_MAX)
        await connection.execute("SET LOCAL session_replication_role = replica")  # what refers to what need not be looked up
        await connection.execute(_CUSTOMERS, tenant.id, there + 1, wanted, timeout=_S_MAX)
        for statement in (_SUBSCRIPTIONS, _PERIODS, _TERMS):
            await connection.execute(statement, tenant.id, template, last, timeout=_S_MAX)
    for table in ("customers", "subscriptions", "billing_periods", "customer_terms"):
        await services.database.execute(f"ANALYZE {table}", timeout=_S_MAX)
    rows = await services.database.fetch(_NEW, tenant.id, last, timeout=_S_MAX)
    await _charge(installation, [(row["id"], row["subscription_id"]) for row in rows])


async def _charge(installation: Installation, new: Sequence[tuple[int, int]]) -> None:
    """One event of each new customer, by the till's own calls; the book is let catch up now and then."""
    ready = await prepared.ready(installation, "W4", 100)
    first = prepared.charges(ready.price(installation.services, ready.parse()))[0]
    for start in range(0, len(new), prepared.A_CALL):
        charges = [
            _of(installation, first, customer, subscription) for customer, subscription in new[start : start + prepared.A_CALL]
        ]
        receipts = await installation.services.till.charge(charges)
        if any(receipt.outcome is not Outcome.ACCEPTED for receipt in receipts):
            raise RuntimeError(f"a known customer's event was not accepted: {receipts[0]}")
        if start % _AT_ONCE == 0:
            await book.until_level(installation.services)
    await book.until_level(installation.services)


def _of(installation: Installation, first: Charge, customer_id: int, subscription_id: int) -> Charge:
    """The first customer's charge as one of another customer."""
    tenant, replace = installation.account.tenant, msgspec.structs.replace
    record = replace(
        first.record,
        customer_id=customer_id,
        digest=ids.event_digest(tenant.id, customer_id, _NAMED),
        event_id=_NAMED,
        pool=pools.balance(subscription_id, pools.parse(first.record.pool).period_start_s),
    )
    partition = partitions.of(tenant.id, customer_id, installation.services.settings.partitions)
    return replace(first, partition=partition, record=record)


async def active(installation: Installation, count: int) -> list[str]:
    """References of so many customers, evenly from all that are known."""
    rows = await installation.services.database.fetch(_ACTIVE, installation.account.tenant.id, count, timeout=_S_MAX)
    return [row["external_id"] for row in rows]


async def stored(installation: Installation) -> int:
    """How many events are in the book."""
    return await installation.services.database.fetchval("SELECT count(*) FROM usage_events", timeout=_S_MAX)


async def events(installation: Installation, wanted: int) -> None:
    """Make it so many events, by copies of the first one spread over the month so far and over all customers.

    The month is made anew, which is not logged and needs each index built once; Postgres' own upkeep of it is off, because a run is shorter
    than the pause between two rounds of it.
    """
    services, tenant = installation.services, installation.account.tenant
    now = clock.real_clock()
    missing = wanted - await stored(installation)
    if missing <= 0:
        return
    async with postgres.transaction(services.database) as connection:
        for setting in ("maintenance_work_mem = '1GB'", "work_mem = '256MB'"):
            await connection.execute(f"SET LOCAL {setting}")
        first = await connection.fetchval("SELECT min(id) FROM customers WHERE tenant_id = $1", tenant.id)
        count = await connection.fetchval("SELECT count(*) FROM customers WHERE tenant_id = $1", tenant.id)
        await _replace_month(connection, now, (first, count), missing)
    await services.database.execute(f"ANALYZE {store.month_name(now.year, now.month)}", timeout=_S_MAX)


async def _replace_month(connection: Connection, now: datetime, whose: tuple[int, int], missing: int) -> None:
    name = store.month_name(now.year, now.month)
    starts_at = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends_at = (starts_at + timedelta(days=32)).replace(day=1)
    bounds = f"'{starts_at.isoformat()}' AND accepted_at < '{ends_at.isoformat()}'"
    columns = [row["attname"] for row in await connection.fetch(_COLUMNS)]
    await connection.execute(f"CREATE TABLE month_made (LIKE {name} INCLUDING DEFAULTS, CHECK (accepted_at >= {bounds}))")
    await connection.execute("ALTER TABLE month_made SET (autovacuum_enabled = off)")
    filling = (starts_at, *whose, (now - starts_at).total_seconds() / (missing + 1), missing)
    await connection.execute(_copies("month_made", name, columns, _AS_THE_FIRST), *filling, timeout=_S_MAX)
    await connection.execute(f"INSERT INTO month_made SELECT * FROM {name}", timeout=_S_MAX)
    await connection.execute(f"DROP TABLE {name}")
    await connection.execute(f"ALTER TABLE month_made RENAME TO {name}")
    bounds = f"FROM ('{starts_at.isoformat()}') TO ('{ends_at.isoformat()}')"
    await connection.execute(f"ALTER TABLE usage_events ATTACH PARTITION {name} FOR VALUES {bounds}", timeout=_S_MAX)


def _copies(table: str, source: str, columns: Sequence[str], changed: Mapping[str, str]) -> str:
    values = ", ".join(changed.get(column, f"t.{column}") for column in columns)
    return f"""
INSERT INTO {table} ({", ".join(columns)})
SELECT {values}
FROM (SELECT * FROM {source} WHERE kind = 0 LIMIT 1) AS t
CROSS JOIN LATERAL (
    SELECT g, $1::timestamptz + g * $4::float8 * interval '1 second' AS at FROM generate_series(1::bigint, $5::bigint) AS g
) AS made
"""

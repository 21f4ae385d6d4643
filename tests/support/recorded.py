"""What an account's customers were recorded to have used, read from Postgres when the book has caught up with the till."""

import asyncio
from dataclasses import dataclass
from typing import Any

from tallybook.core import partitions
from tallybook.storage import postgres, redis
from tests.support.service import Account
from tests.support.waiting import until

_EVENTS = """
SELECT c.external_id AS customer, f.code AS feature, e.*
FROM usage_events e
JOIN tenants t ON t.id = e.tenant_id
JOIN customers c ON c.id = e.customer_id
JOIN features f ON f.id = e.feature_id
WHERE t.organization_id = $1 AND e.kind = 0
ORDER BY e.accepted_at, e.partition, e.seq, e.position
"""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A row of usage_events. The charge is what was taken from the pool, in nano-USD."""

    event_id: str | None
    customer: str
    feature: str
    model: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    web_searches: int
    service_tier: str | None
    charge_nano: int
    properties: dict[str, str]


def recorded_events(account: Account) -> list[RecordedEvent]:
    """All usage events of the account's organization, in the order they were taken."""
    return asyncio.run(recorded_events_now(account))


async def recorded_events_now(account: Account) -> list[RecordedEvent]:
    """The same, from within an event loop."""
    connection = await postgres.connect_one(account.service.postgres_url)
    client = redis.connect(account.service.redis_url)
    try:
        await until(lambda: _caught_up(connection, client))
        rows = await connection.fetch(_EVENTS, account.organization_id)
    finally:
        await client.close()
        await connection.close()
    return [_event(dict(row)) for row in rows]


async def _caught_up(connection: postgres.Connection, client: redis.Redis) -> bool:
    for row in await connection.fetch("SELECT partition, last_seq FROM log_offsets"):
        written = await client.execute_command("HGET", f"{partitions.prefix(row['partition'])}:m", "seq")
        if int(redis.text(written) or 0) > row["last_seq"]:
            return False
    return True


def _event(row: dict[str, Any]) -> RecordedEvent:
    found: dict[str, Any] = {name: row[name] for name in RecordedEvent.__dataclass_fields__ if name in row}
    found |= {"charge_nano": abs(row["amount"]), "properties": row["properties"] or {}}
    return RecordedEvent(**found)

"""What is kept only for a time goes, however much of it there is; what still waits stays."""

import asyncio
from datetime import timedelta

from tallybook.entrypoints.workers import upkeep
from tallybook.flows.services import Services
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api


async def left_in(services: Services, table: str) -> int:
    """How many rows a round of upkeep leaves."""
    await upkeep.forget_in_book(services, asyncio.Event())
    return await services.database.fetchval(f"SELECT count(*) FROM {table}")


async def test_upkeep_forgets_all_old_answers_in_one_round(database: postgres.Pool, redis_client: Redis) -> None:
    services = await api.make_services(database, redis_client)
    account, now = await api.make_account(database), services.clock()
    await database.execute(
        "INSERT INTO idempotency_keys SELECT $1, int8send(n), '', 200, '', $2 FROM generate_series(1, 25000) AS n",
        account.tenant.id,
        now - timedelta(days=3),
    )
    await database.execute("INSERT INTO idempotency_keys VALUES ($1, 'young', '', 200, '', $2)", account.tenant.id, now)
    assert await left_in(services, "idempotency_keys") == 1


async def test_delivered_changes_of_terms_go_after_a_day_and_waiting_ones_stay(
    database: postgres.Pool, redis_client: Redis
) -> None:
    services = await api.make_services(database, redis_client)
    account, now = await api.make_account(database), services.clock()
    await database.execute("DELETE FROM terms_bumps")
    await database.execute(
        "INSERT INTO terms_bumps (tenant_id, version, delivered_at) SELECT $1, n, $2 FROM generate_series(1, 12000) AS n",
        account.tenant.id,
        now - timedelta(hours=25),
    )
    for delivered_at in (now - timedelta(hours=23), None):
        await database.execute(
            "INSERT INTO terms_bumps (tenant_id, version, delivered_at) VALUES ($1, 1, $2)", account.tenant.id, delivered_at
        )
    assert await left_in(services, "terms_bumps") == 2


async def test_delivered_webhooks_go_after_a_month_and_waiting_ones_stay(database: postgres.Pool, redis_client: Redis) -> None:
    services = await api.make_services(database, redis_client)
    account, now = await api.make_account(database), services.clock()
    await database.execute("DELETE FROM outbox")
    long_ago = now - timedelta(days=31)
    for created_at, delivered_at in ((long_ago, long_ago), (long_ago, now - timedelta(days=29)), (long_ago, None)):
        await database.execute(
            "INSERT INTO outbox (tenant_id, topic, payload, created_at, delivered_at) VALUES ($1, 'a.b', '{}', $2, $3)",
            account.tenant.id,
            created_at,
            delivered_at,
        )
    assert await left_in(services, "outbox") == 2

"""What belongs together is committed together: an effect with its stored response, an invoice with its announcement; and trimming waits."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.core import partitions
from tallybook.entrypoints.http import writes
from tallybook.flows import period
from tallybook.flows.period import Unsettled
from tallybook.rollup import log_reader
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.tenancy import actions as tenancy
from tests.support import billing
from tests.support import book as books
from tests.support import log_builder as log
from tests.support.billing import World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as made:
        yield made


async def break_off(*_given: object) -> None:
    raise RuntimeError("the process ended here")


async def test_a_write_whose_response_could_not_be_stored_has_no_effect(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    body, headers = {"email": "ada@example.com"}, {"Idempotency-Key": "customer-1"}
    with monkeypatch.context() as broken:
        broken.setattr(writes, "_keep", break_off)
        assert (await world.api.send("POST", "/api/v1/customers", body, headers=headers)).status == 500
    assert await world.services.database.fetchval("SELECT count(*) FROM customers") == 0
    first = await world.api.send("POST", "/api/v1/customers", body, headers=headers)
    again = await world.api.send("POST", "/api/v1/customers", body, headers=headers)
    assert first.status < 300
    assert again.body == first.body
    assert await world.services.database.fetchval("SELECT count(*) FROM customers") == 1


async def test_an_invoice_that_could_not_be_announced_is_not_issued(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.metered()
    await world.stand_at("2026-10-15T10:00:00")
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1100)
    await world.stand_at("2026-11-16T10:00:00")
    issued = len(await world.invoices(subscription))
    with monkeypatch.context() as broken:
        broken.setattr(tenancy, "announce", break_off)
        [result] = await period.close_due(world.services)
    assert isinstance(result, Unsettled)
    assert len(await world.invoices(subscription)) == issued
    await world.close_due()
    assert len(await world.invoices(subscription)) == issued + 1
    assert len(await world.topics("invoice.created")) == issued + 1


async def test_a_log_with_an_epoch_keeps_every_entry_that_is_not_committed(database: postgres.Pool, redis_client: Redis) -> None:
    book = await books.empty(database, redis_client)
    await redis_client.execute_command("HSET", f"{partitions.prefix(0)}:m", "epoch", "ours")
    for seq in range(1, 9):
        await book.append(0, seq, log.entry([log.usage(f"e{seq}", model="m" * 5000)]))
    await log_reader.trim(redis_client, [(0, 3)], "another")
    assert len(await log_reader.read_between(redis_client, 0, 0, 9)) == 8
    await log_reader.trim(redis_client, [(0, 3)], "ours")
    assert [entry.seq for entry in await log_reader.read_between(redis_client, 0, 3, 9)] == [4, 5, 6, 7, 8]
    assert len(await log_reader.read_between(redis_client, 0, 0, 9)) < 8

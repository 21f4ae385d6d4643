"""What happens when there is too much of something: memory of the till, lag of the book, connections, time, events of a key.

Each test says which change of the code it fails for.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import cast

import aiohttp
import pytest

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.http import auth, resources, server
from tallybook.entrypoints.http.routing import Call, HotCall, Operation
from tallybook.entrypoints.workers import watch
from tallybook.flows.services import Services
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing, waiting
from tests.support.billing import World

_gate = asyncio.Event()


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


@pytest.fixture
async def limited(redis_client: Redis) -> AsyncGenerator[Redis]:
    """Redis, whose memory limit a test sets and which has none afterwards."""
    yield redis_client
    await redis_client.execute_command("CONFIG", "SET", "maxmemory", 0)


async def fill(client: Redis, percent: int) -> None:
    """Set the limit so that this much of it is in use."""
    used = int((await client.execute_command("INFO", "memory")).split(b"used_memory:")[1].split(b"\r")[0])
    await client.execute_command("CONFIG", "SET", "maxmemory", used * 100 // percent)


async def use(world: World, customer: str) -> api.Answer:
    event = {"customerId": customer, "featureCode": "api_calls", "eventId": f"p{next(world.events)}", "value": 1}
    return await world.api.send("POST", "/api/v1/usage/events", event)


async def test_a_till_that_fills_up_slows_usage_down_and_then_stops_it_but_answers_questions(
    world: World, limited: Redis
) -> None:
    """Fails when the memory is not looked at, the bounds are swapped, or checks and reads are turned away with it."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    question = {"customerId": customer, "featureCode": "api_calls"}
    for percent, expected in ((50, (200, None, None)), (80, (429, "rate_limited", "5")), (95, (503, "till_full", "5"))):
        await fill(limited, percent)
        await watch.look(world.services)
        answer = await use(world, customer)
        code = None if answer.status == 200 else answer.code
        assert (answer.status, code, answer.headers.get("Retry-After")) == expected
        assert (await world.api.send("POST", "/api/v1/usage/check", question)).status == 200
    await limited.execute_command("CONFIG", "SET", "maxmemory", 0)
    await watch.look(world.services)
    assert (await use(world, customer)).status == 200
    assert 'tallybook_till_memory_bytes{kind="limit"} 0.0' in metrics.exposition({}).decode()


async def test_a_redis_that_is_full_before_anybody_looked_records_nothing_and_says_so(world: World, limited: Redis) -> None:
    """Fails when the refusal of Redis is told as an outcome that is not known, or half a batch is recorded."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    before = await world.services.till.sequences()
    await fill(limited, 400)
    answer = await use(world, customer)
    assert (answer.status, answer.code) == (503, "till_full")
    assert await world.services.till.sequences() == before
    await limited.execute_command("CONFIG", "SET", "maxmemory", 0)
    assert (await use(world, customer)).status == 200


async def test_a_book_that_falls_too_far_behind_stops_usage_until_it_has_caught_up(world: World) -> None:
    """Fails when the lag is not measured against the book, or the bound is not applied."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    services = world.services
    services.settings = replace(services.settings, rollup_lag_s_max=1)
    await world.caught_up()
    await watch.look(services)
    async with postgres.transaction(services.database) as connection:
        await connection.fetch("SELECT 1 FROM log_offsets FOR UPDATE")
        assert (await use(world, customer)).status == 200
        await watch.look(services)
        await asyncio.sleep(1.1)
        await watch.look(services)
        answer = await use(world, customer)
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "book_behind", "5")
    await world.caught_up()
    await watch.look(services)
    assert (await use(world, customer)).status == 200


async def test_a_watched_till_that_is_lost_is_refused_for_reads_too_and_taken_back_when_it_returns(world: World) -> None:
    """Fails when the watch does not compare the till with the book."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    question = {"customerId": customer, "featureCode": "api_calls"}
    epoch = world.services.till.epoch
    await world.services.redis.execute_command("HSET", "{p00}:m", "epoch", "another")
    await watch.look(world.services)
    refused = await world.api.send("POST", "/api/v1/usage/check", question)
    assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "till_unknown", "30")
    assert "tallybook_till_refused 1.0" in metrics.exposition({}).decode()
    await world.services.redis.execute_command("HSET", "{p00}:m", "epoch", epoch)
    await watch.look(world.services)
    assert (await world.api.send("POST", "/api/v1/usage/check", question)).status == 200


async def wait_for_the_gate(_call: Call) -> None:
    await _gate.wait()


async def count(call: HotCall) -> dict[str, object]:
    call.spend(call.key.id, len(call.body))
    return {"counted": len(call.body)}


class _Resource:
    OPERATIONS = (
        Operation(method="GET", path="/slow", id="slow", summary="", permission="customer", handler=wait_for_the_gate),
        Operation(method="POST", path="/count", id="count", summary="", permission="usage", handler=count, hot=True),
    )


@contextlib.asynccontextmanager
async def serving(services: Services, monkeypatch: pytest.MonkeyPatch, **settings: int) -> AsyncGenerator[str]:
    """The URL of a server of its own with these settings."""
    monkeypatch.setattr(resources, "MODULES", (_Resource(),))
    _gate.clear()
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    changed = replace(services, settings=replace(services.settings, **settings))
    task = asyncio.create_task(server.serve(changed, "127.0.0.1", 0, stop=stop, started=port.set_result))
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        _gate.set()
        stop.set()
        await task


async def test_a_request_that_takes_too_long_is_given_up_with_an_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when there is no deadline over the whole request, or it closes the connection without a word."""
    async with (
        serving(world.services, monkeypatch, request_s_max=1) as url,
        aiohttp.ClientSession(headers={"x-api-key": world.account.key}) as session,
        session.get(f"{url}/api/v1/slow") as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert (await response.json())["error"]["code"] == "deadline_exceeded"


async def test_connections_beyond_the_bound_are_told_to_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when connections are taken without bound, or one that was closed is counted for ever."""
    async with serving(world.services, monkeypatch, connections_max=10) as url:
        port = int(url.rpartition(":")[2])
        open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        for _reader, writer in open_ones:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for reader, _writer in open_ones:
            await reader.readuntil(b'{"status":"ok"}')
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"Retry-After: 1\r\n" in answer
        assert b'"code":"too_many_connections"' in answer
        for _reader, writer in open_ones:
            writer.close()
            await writer.wait_closed()

        async def taken_again() -> bool:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz") as response:
                return response.status == 200

        await waiting.until(taken_again)


async def test_a_key_that_sends_too_many_events_is_slowed_down_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the limit is not applied, or to all keys together."""
    other = await api.make_account(world.services.database)
    async with serving(world.services, monkeypatch, key_events_per_s=100) as url, aiohttp.ClientSession() as session:

        async def send(key: str) -> tuple[int, str | None]:
            async with session.post(f"{url}/api/v1/count", data=b"x" * 60, headers={"x-api-key": key}) as response:
                return response.status, response.headers.get("Retry-After")

        assert await send(world.account.key) == (200, None)
        assert await send(world.account.key) == (429, "1")
        assert await send(other.key) == (200, None)


async def test_a_key_is_not_taken_for_longer_than_the_grace(world: World) -> None:
    """Fails when a remembered key outlives the grace, or a key that was never good is taken."""
    stranger = await api.make_account(world.services.database)
    database = Sometimes(world.services.database)
    ring = auth.KeyRing(cast("postgres.Pool", database), world.services.clock, grace_s=5)
    now = world.services.clock()
    await ring.authenticate(world.account.key, now)
    database.is_away = True
    await asyncio.sleep(auth.FRESH_S + 0.2)
    assert (await ring.authenticate(world.account.key, now)).tenant == world.tenant
    with pytest.raises(errors.Unavailable):
        await ring.authenticate(stranger.key, now)
    await asyncio.sleep(2.0)
    with pytest.raises(errors.Unavailable):
        await ring.authenticate(world.account.key, now)
    database.is_away = False
    assert (await ring.authenticate(world.account.key, now)).tenant == world.tenant


class Sometimes:
    """A pool of connections that a test takes away."""

    def __init__(self, pool: postgres.Pool) -> None:
        self._pool = pool
        self.is_away = False

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[postgres.Connection]:
        if self.is_away:
            raise ConnectionError("away")
        return self._pool.acquire(timeout=timeout)

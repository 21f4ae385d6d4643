"""Transactions, snapshots, JSON columns and boot assertions against the real servers."""

import asyncio

import pytest

from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Pool
from tallybook.storage.safety import UnreadableSettingsError, UnsafeStoreError


@pytest.fixture(scope="module", autouse=True)
async def things(database: Pool) -> None:
    await database.execute("CREATE TABLE things (id integer PRIMARY KEY, body jsonb)")


@pytest.fixture(autouse=True)
async def no_things(database: Pool) -> None:
    await database.execute("TRUNCATE things")


async def test_a_transaction_that_raises_leaves_nothing(database: Pool) -> None:
    async def write_and_fail() -> None:
        async with postgres.transaction(database) as connection:
            await connection.execute("INSERT INTO things VALUES (1, NULL)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert await database.fetchval("SELECT count(*) FROM things") == 0


async def test_a_snapshot_sees_one_moment_and_can_not_write(database: Pool) -> None:
    async with postgres.snapshot(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM things") == 0
        await database.execute("INSERT INTO things VALUES (1, NULL)")
        assert await connection.fetchval("SELECT count(*) FROM things") == 0
        with pytest.raises(postgres.PostgresError, match="read-only"):
            await connection.execute("INSERT INTO things VALUES (2, NULL)")


@pytest.mark.parametrize("value", [{"a": [1, 0.5, None, "ä"]}, [], "text", 2**63 - 1, True])
async def test_json_columns_read_back_what_was_written(database: Pool, value: object) -> None:
    async with postgres.transaction(database) as connection:
        await connection.execute("INSERT INTO things VALUES (1, $1)", value)
        await connection.copy_records_to_table("things", records=[(2, value)], columns=["id", "body"])
    rows = await database.fetch("SELECT body FROM things")
    assert [row["body"] for row in rows] == [value, value]


async def test_a_json_null_is_not_an_sql_null(database: Pool) -> None:
    await database.execute("INSERT INTO things VALUES (1, 'null'), (2, NULL)")
    rows = await database.fetch("SELECT id, body IS NULL AS missing, body FROM things ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, False, None), (2, True, None)]


async def test_times_are_utc(database: Pool) -> None:
    assert await database.fetchval("SHOW timezone") == "UTC"


async def test_postgres_as_embedded_is_safe(database: Pool) -> None:
    async with database.acquire() as connection:
        await postgres.assert_settings(connection)


async def test_postgres_that_forgets_commits_is_refused(postgres_url: str) -> None:
    connection = await postgres.connect_one(postgres_url)
    try:
        await connection.execute("SET synchronous_commit = off")
        with pytest.raises(UnsafeStoreError, match=r"synchronous_commit is 'off', needed is .* To fix: ALTER SYSTEM"):
            await postgres.assert_settings(connection)
    finally:
        await connection.close()


async def test_redis_as_embedded_is_durable(redis_client: redis.Redis) -> None:
    await redis.assert_durable(redis_client)


@pytest.mark.parametrize(
    ("setting", "weak"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ],
)
async def test_redis_with_a_weak_setting_is_refused_by_name(redis_client: redis.Redis, setting: str, weak: str) -> None:
    before = redis.pairs(await redis_client.execute_command("CONFIG", "GET", setting))[setting.encode()]
    await redis_client.execute_command("CONFIG", "SET", setting, weak)
    try:
        with pytest.raises(UnsafeStoreError, match=f"{setting} is '{weak}', needed is .* To fix: run `CONFIG SET {setting}"):
            await redis.assert_durable(redis_client)
    finally:
        await redis_client.execute_command("CONFIG", "SET", setting, before)


async def test_redis_that_hides_its_settings_is_refused_until_somebody_vouches(redis_client: redis.Redis, redis_url: str) -> None:
    await redis_client.execute_command("ACL", "SETUSER", "guest", "on", ">word", "~*", "+@all", "-config")
    guest = redis.connect(redis_url + "?username=guest&password=word")
    try:
        with pytest.raises(UnreadableSettingsError, match="TALLYBOOK_REDIS_CONFIG_VOUCHED=true"):
            await redis.assert_durable(guest)
        await redis.assert_durable(guest, accept_unreadable=True)
    finally:
        await guest.close()
        await redis_client.execute_command("ACL", "DELUSER", "guest")


async def test_an_atomic_pipeline_returns_raw_replies_in_order(redis_client: redis.Redis) -> None:
    replies = await redis.atomically(redis_client, ("HSET", "h", "a", "1"), ("HGETALL", "h"), ("HGET", "h", "x"))
    assert replies == [1, [b"a", b"1"], None]
    assert redis.pairs(replies[1]) == {b"a": b"1"}
    assert (redis.text(None), redis.text(b"1")) == (None, "1")


async def test_a_command_whose_reply_is_lost_is_never_sent_again(redis_client: redis.Redis, redis_url: str) -> None:
    await redis_client.execute_command("SET", "n", "0")
    impatient = redis.connect(redis_url, timeout_s=0.2)
    script = "redis.call('INCR', 'n'); local t = redis.call('TIME')[1]; while redis.call('TIME')[1] - t < 2 do end"
    try:
        with pytest.raises(redis.RedisError):
            await impatient.execute_command("EVAL", script, 0)
    finally:
        await impatient.close()
    await asyncio.sleep(2)
    assert await redis_client.execute_command("GET", "n") == b"1"

"""Migrations make the recorded schema, run once whoever starts them, and never silently differ from what was applied."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

import pytest

from tallybook.embedded.stores import Stores
from tallybook.storage import migrate, postgres
from tallybook.storage.migrate import Migration, MigrationError
from tests.migration import schema_dump
from tests.support import databases

_numbers = itertools.count(1)
ONE = Migration("0001_one", "CREATE TABLE one (id integer PRIMARY KEY)")
TWO = Migration("0002_two", "CREATE TABLE two (id integer PRIMARY KEY); INSERT INTO one VALUES (2)")
THREE = Migration("0003_three", "CREATE TABLE three (id integer)")


@pytest.fixture
async def empty_url(stores: Stores) -> AsyncGenerator[str]:
    """A database of this test's own, without any table."""
    async with databases.fresh(stores, f"migration_{next(_numbers)}", template="template0") as url:
        yield url


async def fetchval(url: str, query: str) -> object:
    connection = await postgres.connect_one(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_the_migrations_make_the_recorded_schema(postgres_url: str) -> None:
    made = await asyncio.to_thread(schema_dump.dump, postgres_url)
    assert made == schema_dump.RECORDED.read_text(encoding="utf-8"), "run `make schema` and look at the difference"


async def test_many_processes_that_start_at_once_apply_each_migration_once(empty_url: str) -> None:
    done = await asyncio.gather(*(migrate.migrate(empty_url) for _ in range(8)))
    assert sorted(itertools.chain(*done)) == [migration.name for migration in migrate.packaged()]


async def test_a_migrated_database_lacks_nothing(postgres_url: str) -> None:
    connection = await postgres.connect_one(postgres_url)
    try:
        assert await migrate.pending(connection) == []
    finally:
        await connection.close()
    assert await migrate.migrate(postgres_url) == []


async def test_an_empty_database_lacks_everything(empty_url: str) -> None:
    connection = await postgres.connect_one(empty_url)
    try:
        assert await migrate.pending(connection) == [migration.name for migration in migrate.packaged()]
    finally:
        await connection.close()


async def test_migrations_run_in_order_and_only_the_new_ones(empty_url: str) -> None:
    assert await migrate.migrate(empty_url, [ONE]) == ["0001_one"]
    assert await migrate.migrate(empty_url, [ONE, TWO]) == ["0002_two"]
    assert await fetchval(empty_url, "SELECT id FROM one") == 2


async def test_a_migration_that_fails_leaves_nothing_of_itself_and_keeps_those_before(empty_url: str) -> None:
    broken = Migration("0002_broken", "CREATE TABLE two (id integer); SELECT 1 / 0")
    with pytest.raises(postgres.PostgresError, match="division by zero"):
        await migrate.migrate(empty_url, [ONE, broken])
    assert await fetchval(empty_url, "SELECT to_regclass('one') IS NOT NULL AND to_regclass('two') IS NULL") is True
    assert await migrate.migrate(empty_url, [ONE, TWO]) == ["0002_two"]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ([Migration("0001_one", ONE.sql + " "), TWO, THREE], "0001_one was edited after it was applied"),
        ([ONE], "the database is newer than this version of Tallybook: it has 0002_two"),
        (
            [ONE, Migration("0001_other", "SELECT 1"), TWO, THREE],
            "0002_two was applied to this database where this version has 0001_other",
        ),
    ],
)
async def test_history_that_differs_is_an_error_and_nothing_runs(empty_url: str, later: Sequence[Migration], said: str) -> None:
    await migrate.migrate(empty_url, [ONE, TWO])
    with pytest.raises(MigrationError, match=said):
        await migrate.migrate(empty_url, later)
    assert await fetchval(empty_url, "SELECT to_regclass('three')") is None


def test_packaged_migrations_are_numbered_without_gaps() -> None:
    names = [migration.name for migration in migrate.packaged()]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))

"""A log in Redis and an empty book in Postgres, for tests of what goes from one to the other."""

from dataclasses import dataclass
from datetime import datetime

from tallybook.core import clock
from tallybook.rollup import actions, log_reader, store
from tallybook.rollup.model import PassResult
from tallybook.storage.postgres import Pool, Row
from tallybook.storage.redis import Redis
from tests.support import log_builder

PARTITIONS = 4
NOW: datetime = clock.from_ms(log_builder.ACCEPTED_MS + 5_000)
_TABLES = "log_offsets, usage_events, usage_hourly, pool_balances, pool_ledger, quarantine"


@dataclass(frozen=True, slots=True)
class Book:
    """Both stores."""

    database: Pool
    redis: Redis

    async def append(self, partition: int, seq: int, data: bytes) -> None:
        """Write one log entry as the till does."""
        await self.redis.execute_command("XADD", log_reader.key(partition), f"{seq}-0", "d", data)

    async def roll_up(self) -> PassResult:
        """One pass over all partitions."""
        return await actions.roll_up(self.database, self.redis, range(PARTITIONS), NOW)

    async def offset(self, partition: int = 0) -> int:
        """How far the book has read."""
        return (await store.offsets(self.database, [partition]))[partition]

    async def rows(self, query: str) -> list[Row]:
        """What a query finds."""
        return await self.database.fetch(query)

    async def number(self, query: str) -> int:
        """The one number a query finds; no row and NULL are 0."""
        return int(await self.database.fetchval(query) or 0)


async def empty(database: Pool, client: Redis) -> Book:
    """Both stores, emptied, with the offsets of PARTITIONS partitions at 0."""
    await client.execute_command("FLUSHALL")
    await database.execute(f"TRUNCATE {_TABLES}")
    await store.ensure_offsets(database, PARTITIONS)
    return Book(database, client)

"""Several API processes and workers on the same stores: workers share the partitions out, and take over what a dead one had."""

import asyncio
import math
import threading
from collections import Counter
from pathlib import Path

from tallybook.core import partitions
from tallybook.rollup import store
from tallybook.storage import postgres, redis
from tests.crash import ground as grounds
from tests.crash.ground import Ground
from tests.support import waiting

WORKERS = 3
EVENTS_BETWEEN = 500
_LOOK_S = 0.01
_LEASES = """
SELECT pid, objid::integer AS partition FROM pg_locks
WHERE locktype = 'advisory' AND classid = x'7a11'::int::oid AND objsubid = 2 AND granted AND objid < 1000
"""


async def test_workers_share_the_partitions_and_take_over_those_of_a_dead_one(folder: Path) -> None:
    async with grounds.prepared(folder, seed=20_261_120, apis=2, workers=WORKERS, customers_each=4) as ground:
        async with grounds.loaded(ground):
            ground.loading(rate=1000)
            await until_shared(ground, WORKERS)
            back = threading.Event()
            ground.field.target("worker-2").kill(ground.field.starters, back.wait)
            try:
                await accept_more(ground)
                await until_shared(ground, WORKERS - 1)
                await until_read(ground)
            finally:
                back.set()
            await grounds.until_ready(ground.field)
            await until_shared(ground, WORKERS)
            await accept_more(ground)
        result = grounds.result(ground, await grounds.judge(ground), [], kills=1)
    assert result.problems == []
    assert "lost=0 double=0 drift=0 unknown=0" in result.line


async def until_shared(ground: Ground, workers: int) -> None:
    """Wait until so many workers hold all partitions, none more than its share; each partition has one holder at all times."""
    count = ground.field.settings.partitions
    connection = await postgres.connect_one(ground.field.settings.postgres_url)

    async def is_shared() -> bool:
        ground.field.check()
        rows = await connection.fetch(_LEASES)
        assert max(Counter(row["partition"] for row in rows).values(), default=0) <= 1
        held = Counter(row["pid"] for row in rows)
        return len(held) == workers and held.total() == count and max(held.values()) <= math.ceil(count / workers)

    await waiting.until(is_shared)
    await connection.close()


async def until_read(ground: Ground) -> None:
    """Wait until the book has read what the log of every partition holds now, those of the dead worker among them."""
    numbers = range(ground.field.settings.partitions)
    client = redis.connect(ground.field.settings.redis_url)
    database = await postgres.connect(ground.field.settings.postgres_url)
    asked = [("HGET", f"{partitions.prefix(number)}:m", "seq") for number in numbers]
    goals = [int(reply or 0) for reply in await client.pipeline(*asked, atomic=False)]

    async def is_read() -> bool:
        read = await store.offsets(database, numbers)
        return all(read[number] >= goal for number, goal in zip(numbers, goals, strict=True))

    await waiting.until(is_read)
    await client.close()
    await database.close()


async def accept_more(ground: Ground) -> None:
    """Wait until some more events are accepted."""
    goal = ground.load.accepted + EVENTS_BETWEEN
    while ground.load.accepted < goal:
        ground.field.check()
        await asyncio.sleep(_LOOK_S)

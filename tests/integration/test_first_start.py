"""Several processes of a new installation start at the same moment."""

import asyncio

from tallybook.core.clock import real_clock
from tallybook.rollup import actions, store
from tallybook.storage import postgres

PARTITIONS = 4


async def test_processes_that_start_together_make_the_months_once(postgres_url: str) -> None:
    async def start() -> None:
        pool = await postgres.connect(postgres_url)
        try:
            await actions.prepare(pool, PARTITIONS, real_clock())
        finally:
            await pool.close()

    await asyncio.gather(*(start() for _ in range(8)))
    pool = await postgres.connect(postgres_url)
    try:
        assert len(await store.months_made(pool)) == 2
    finally:
        await pool.close()

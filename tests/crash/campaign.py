"""One campaign: load, kills, a period's end in the middle of it all, and the verdict."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tallybook.embedded.stores import Stores
from tallybook.storage import migrate, postgres, redis
from tests.crash import field, oracle, setting
from tests.crash.field import Field
from tests.crash.load import Load
from tests.support.service import Account, Service

APIS, WORKERS, LOAD_TASKS = 3, 2, 6
_PAUSE_S = (0.1, 0.5)
_LOOK_S = 0.02
ACCEPTED_BETWEEN_KILLS = 1000
"""A kill that hits an idle system proves nothing: this many more events are accepted before the next one."""
_WEIGHTS = {"api": 2, "worker": 2, "redis": 3, "postgres": 2}
"""How often each kind of process is chosen."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a campaign found."""

    line: str
    problems: Sequence[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or off."""
        return not self.problems


async def run(folder: Path, *, kills: int, seed: int, progress: Callable[[str], None]) -> Result:
    """Start everything, kill `kills` times under load, wait until the book is level, close the period, judge."""
    dice = random.Random(seed)
    stores = await asyncio.to_thread(_start_stores, folder)
    await migrate.migrate(stores.postgres.url)
    running = await asyncio.to_thread(field.open_field, folder, stores, apis=APIS, workers=WORKERS)
    try:
        await _until_ready(running)
        tenant_id, account = await _account(running)
        with contextlib.closing(account.service):
            load = await _load(running, tenant_id, account, dice)
            killed = await _kill_under_load(running, load, dice, kills, progress)
            return await _judge(running, account, load, killed, seed, progress)
    finally:
        await asyncio.to_thread(running.close)


async def _kill_under_load(
    running: Field, load: Load, dice: random.Random, kills: int, progress: Callable[[str], None]
) -> Counter[str]:
    """Returns when every process is back and every id has a definite answer."""
    stop = asyncio.Event()
    loading = asyncio.create_task(load.run(stop, LOAD_TASKS))
    killed = await _kill(running, dice, kills, progress, load)
    await _until_ready(running)
    stop.set()
    await loading
    return killed


def _start_stores(folder: Path) -> Stores:
    stores = Stores(folder / "data", postgres_settings={"shared_buffers": "64MB"})
    stores.start()
    return stores


async def _account(running: Field) -> tuple[int, Account]:
    service = Service(running.urls[0], running.settings.postgres_url, running.settings.redis_url)
    connection = await postgres.connect_one(running.settings.postgres_url)
    try:
        return await setting.make_account(connection, service)
    finally:
        await connection.close()


async def _load(running: Field, tenant_id: int, account: Account, dice: random.Random) -> Load:
    await asyncio.to_thread(setting.make_plans, account)
    made = await asyncio.to_thread(setting.make_customers, account)
    connection = await postgres.connect_one(running.settings.postgres_url)
    try:
        customers = await setting.customers(connection, tenant_id, made)
    finally:
        await connection.close()
    return Load(tenant_id, account.key, running.urls, customers, dice)


async def _until_ready(running: Field) -> None:
    """Wait until every process that was killed is back and every API answers."""
    while not all(target.is_up for target in running.targets):  # noqa: ASYNC110 - restarts happen in threads
        await asyncio.sleep(0.02)
    for port in running.ports:
        while not await asyncio.to_thread(port.is_ready):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)


async def _kill(running: Field, dice: random.Random, kills: int, progress: Callable[[str], None], load: Load) -> Counter[str]:
    killed: Counter[str] = Counter()
    goal = 0
    while killed.total() < kills:
        await asyncio.sleep(dice.uniform(*_PAUSE_S))
        while len(load.settled) < goal:  # noqa: ASYNC110 - the load notes answers, it sets no event
            await asyncio.sleep(_LOOK_S)
        goal = len(load.settled) + ACCEPTED_BETWEEN_KILLS
        standing = [target for target in running.targets if target.is_up]
        if not standing:
            continue
        [target] = dice.choices(standing, [_WEIGHTS[target.name.split("-")[0]] for target in standing])
        target.kill(running.starters)
        killed[target.name.split("-")[0]] += 1
        if killed.total() % 10 == 0:
            progress(f"{killed.total()} kills, {len(load.settled)} accepted, {len(load.pending)} unknown")
    return killed


async def _judge(
    running: Field, account: Account, load: Load, killed: Counter[str], seed: int, progress: Callable[[str], None]
) -> Result:
    database = await postgres.connect(running.settings.postgres_url)
    client = redis.connect(running.settings.redis_url)
    try:
        partitions = running.settings.partitions
        await oracle.until_rolled_up(database, client, partitions)
        before = await oracle.verify(database, client, load.sent, partitions=partitions)
        progress("load verified; closing the period")
        await asyncio.to_thread(account.advance, advanceDays=32)
        await oracle.until_rolled_up(database, client, partitions)
        report = await oracle.verify(database, client, load.sent, partitions=partitions)
    finally:
        await client.close()
        await database.close()
    problems = [*dict.fromkeys([*before.problems(), *report.problems()]), *load.wrong]
    kinds = " ".join(f"{kind}={count}" for kind, count in sorted(killed.items()))
    progress(f"killed: {kinds}; requests without an answer: {load.requests_failed}")
    line = (
        f"kills={killed.total()} acked={report.acked} lost={len(report.lost)} double={len(report.doubled)} drift={report.drift} "
        f"unknown={report.unknown} duplicates={load.duplicates} seed={seed}"
    )
    return Result(line, problems)

"""What every test that injects faults stands on: stores of its own, running processes, customers to load, and the verdict."""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tallybook.embedded.stores import Stores
from tallybook.storage import migrate, postgres, redis
from tests.crash import field, oracle, setting
from tests.crash.field import Field
from tests.crash.load import Customer, Load
from tests.crash.oracle import Report
from tests.support.redis_cluster import ClusterServers
from tests.support.service import Account, Service

LOAD_TASKS = 6
Tell = Callable[[str], None]
_LOOK_S = 0.02
_ASK_S = 0.05
_TURNING_S_MAX = 300.0
"""Nobody waits longer for the end of a period; it takes seconds."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A running installation with one organization and its customers, a client that loads it, and the dice that decide.

    The client knows all that was ever sent, or the oracle would not know what belongs there.
    """

    field: Field
    account: Account
    customers: Sequence[Customer]
    load: Load
    seed: int
    dice: random.Random

    def loading(self, *, rate: float = 0.0, urls: Sequence[str] = (), customers: Sequence[Customer] = ()) -> Load:
        """The load client, sending so many events a second (0: as many as are answered) to these APIs of these customers, or all."""
        self.load.rate = rate
        self.load.urls = urls or self.field.urls
        self.load.customers = customers or self.customers
        return self.load


@contextlib.asynccontextmanager
async def prepared(
    folder: Path,
    *,
    seed: int,
    apis: int = 3,
    workers: int = 2,
    customers_each: int = setting.CUSTOMERS_EACH,
    clustered: bool = False,
) -> AsyncGenerator[Ground]:
    """Start everything in this folder, on a Redis Cluster or one Redis; all of it is stopped at the end."""
    stores = Stores(folder / "data", postgres_settings={"shared_buffers": "64MB"})
    await asyncio.to_thread(stores.start)
    await migrate.migrate(stores.postgres.url)
    cluster = ClusterServers(folder / "cluster") if clustered else None
    if cluster is not None:
        await asyncio.to_thread(cluster.start)
    running = await asyncio.to_thread(field.open_field, stores, apis=apis, workers=workers, cluster=cluster)
    try:
        await until_ready(running)
        service = Service(running.urls[0], running.settings.postgres_url, running.settings.redis_url)
        with contextlib.closing(service):
            yield await _settle(running, service, seed, customers_each)
    finally:
        await asyncio.to_thread(running.close)


async def _settle(running: Field, service: Service, seed: int, customers_each: int) -> Ground:
    connection = await postgres.connect_one(running.settings.postgres_url)
    try:
        tenant_id, account = await setting.make_account(connection, service)
        await asyncio.to_thread(setting.make_plans, account)
        made = await asyncio.to_thread(setting.make_customers, account, customers_each)
        customers = await setting.customers(connection, tenant_id, made)
        dice = random.Random(seed)
        load = Load(tenant_id, account.key, running.urls, customers, dice)
        return Ground(running, account, customers, load, seed, dice)
    finally:
        await connection.close()


async def until_ready(running: Field) -> None:
    """Wait until every process that was killed is back and every API answers. Raises AssertionError when one never will."""
    while not all(target.is_up for target in running.targets):  # noqa: ASYNC110 - restarts happen in threads
        await asyncio.sleep(_LOOK_S)
    for port in running.ports:
        while not await asyncio.to_thread(port.is_ready):
            running.check()
            await asyncio.sleep(_LOOK_S)


@contextlib.asynccontextmanager
async def loaded(ground: Ground, tasks: int = LOAD_TASKS) -> AsyncGenerator[None]:
    """Load flows inside the block; behind it every process is back and every id has a definite answer."""
    stop = asyncio.Event()
    loading = asyncio.create_task(ground.load.run(stop, tasks))
    try:
        yield
        await until_ready(ground.field)
    except BaseException:
        loading.cancel()
        raise
    stop.set()
    await loading


async def end_period(ground: Ground) -> None:
    """Turn the sandbox's clock a month on and wait until that is done, whatever is killed meanwhile."""
    await asyncio.to_thread(_end_period, ground.account, str(uuid.uuid4()))


def _end_period(account: Account, key: str) -> None:
    gives_up_at = time.monotonic() + _TURNING_S_MAX
    while _status_of_turning(account, key) not in (200, 202):
        _ask_later(gives_up_at)
    while _run_of_clock(account) != "completed":
        _ask_later(gives_up_at)


def _ask_later(gives_up_at: float) -> None:
    assert time.monotonic() < gives_up_at, "the period does not end: its log is not read, or nobody closes it"
    time.sleep(_ASK_S)


def _status_of_turning(account: Account, key: str) -> int:
    with contextlib.suppress(httpx.TransportError):
        return account.call("POST", "/test-clock", {"advanceDays": 32}, headers={"Idempotency-Key": key}).status
    return 0


def _run_of_clock(account: Account) -> str | None:
    with contextlib.suppress(httpx.TransportError):
        answer = account.call("GET", "/test-clock")
        if answer.status == 200:
            assert answer.body["latestRun"]["status"] != "failed", answer.body
            return answer.body["latestRun"]["status"]
    return None


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found: its last line, what stands before that, and what is wrong."""

    line: str
    problems: Sequence[str]
    notes: Sequence[str] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or off."""
        return not self.problems


def result(ground: Ground, report: Report, problems: Iterable[str], *, notes: Sequence[str] = (), **counts: int) -> Result:
    """The line that begins with these counts, and everything that is wrong, once."""
    found = {"acked": report.acked, "lost": len(report.lost), "double": len(report.doubled), "drift": report.drift}
    every = {**counts, **found, "unknown": report.unknown, "duplicates": ground.load.duplicates, "seed": ground.seed}
    line = " ".join(f"{name}={count}" for name, count in every.items())
    return Result(line, list(dict.fromkeys([*problems, *report.problems(), *ground.load.wrong])), notes)


async def judge(ground: Ground) -> Report:
    """The oracle's verdict when the book has read everything. Nothing may be sent meanwhile."""
    settings = ground.field.settings
    database = await postgres.connect(settings.postgres_url)
    client = redis.connect(settings.redis_url)
    try:
        await oracle.until_rolled_up(database, client, settings.partitions)
        return await oracle.verify(database, client, ground.load.sent, partitions=settings.partitions)
    finally:
        await client.close()
        await database.close()

"""The composition root: the only place that builds things and joins them. Processes are `run_api` and `run_worker`."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine

import uvloop

from tallybook.ai_models import actions as ai_models
from tallybook.charge.lane import LaneLimits
from tallybook.charge.till import Till, TillSettings
from tallybook.core import errors, failpoints
from tallybook.core.clock import real_clock
from tallybook.entrypoints import logs, metrics
from tallybook.entrypoints.http import server
from tallybook.entrypoints.workers import (
    books,
    catalog,
    clocks,
    delivery,
    periods,
    reconciling,
    repeats,
    rollup,
    upkeep,
    watch,
    webhooks,
)
from tallybook.flows import alerting, claim, price_changes
from tallybook.flows.services import Services
from tallybook.flows.terms_cache import TermsCache
from tallybook.rollup import actions as rollups
from tallybook.settings import Settings
from tallybook.storage import migrate, postgres, redis
from tallybook.storage.postgres import Pool
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy.model import Installation

_LOG = logging.getLogger(__name__)
_HOUR_S = 3600
_STORES_S_MAX = 60.0
_AGAIN_S = 0.5
_SILENT_S_MAX = 3.0
_SAY_AGAIN_S = 10.0
_CLOSE_S_MAX = 5.0
_SILENCE = "no answer yet from where TALLYBOOK_POSTGRES_URL and TALLYBOOK_REDIS_URL point"
_AWAY = frozenset({"database_unavailable", "till_unavailable"})


class Stopped(Exception):
    """A process was told to stop before its stores were up."""


@contextlib.asynccontextmanager
async def services(
    settings: Settings, *, name: str, till_is_open: bool = True, stop: asyncio.Event | None = None
) -> AsyncGenerator[Services]:
    """Everything a process works with, on stores that are fit for it; closed when the block ends.

    `till_is_open` False: whatever Redis holds, for what does not charge. Stores that are not up yet are waited for. Raises
    UnsafeStoreError for stores whose settings can lose what was acknowledged, Unavailable for a schema or till that is not this
    version's or installation's, Stopped when `stop` is set meanwhile.
    """
    built = await when_stores_are_up(lambda: _build(settings, name, till_is_open=till_is_open), stop)
    try:
        yield built
        await built.till.drain()
    finally:
        await _close(built.database, built.redis)


async def when_stores_are_up(build: Callable[[], Coroutine[None, None, Services]], stop: asyncio.Event | None = None) -> Services:
    """Try until the stores answer, for a minute at most: they may be starting, or recovering, at the same time.

    Says what is waited for within seconds, and again now and then. Raises what the last attempt did, or Stopped.
    """
    loop, told = asyncio.get_running_loop(), stop or asyncio.Event()
    deadline, tell = loop.time() + _STORES_S_MAX, _Teller()
    while True:
        try:
            return await _unless_stopped(build(), told, lambda: tell(_SILENCE))
        except (*postgres.TRANSIENT_ERRORS, redis.RedisError, errors.Unavailable) as error:
            is_away = not isinstance(error, errors.Unavailable) or error.code in _AWAY
            if not is_away or loop.time() > deadline:
                raise
            tell(str(error) or type(error).__name__)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                await told.wait()


class _Teller:
    """Says what is waited for when that changes, and every ten seconds."""

    def __init__(self) -> None:
        self._said = ""
        self._at = 0.0

    def __call__(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        if what != self._said or now - self._at > _SAY_AGAIN_S:
            self._said, self._at = what, now
            _LOG.warning("waiting for the stores: %s", what)


async def _unless_stopped(
    building: Coroutine[None, None, Services], stop: asyncio.Event, while_silent: Callable[[], None]
) -> Services:
    """What comes of building, which is given up when told to stop. Raises Stopped."""
    built, stopping = asyncio.create_task(building), asyncio.create_task(stop.wait())
    try:
        while not built.done():
            if stop.is_set():
                raise Stopped
            done, _ = await asyncio.wait((built, stopping), timeout=_SILENT_S_MAX, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                while_silent()
        return built.result()
    finally:
        built.cancel()
        stopping.cancel()
        await asyncio.wait((built, stopping), timeout=_CLOSE_S_MAX)


async def _build(settings: Settings, name: str, *, till_is_open: bool) -> Services:
    database = await postgres.connect(
        settings.postgres_url, connections_max=settings.postgres_connections_max, application_name=f"tallybook-{name}"
    )
    client = redis.connect(settings.redis_url, connections_max=settings.redis_connections_max)
    try:
        await redis.assert_durable(client, accept_unreadable=settings.redis_config_vouched)
        made = await _installation(database, settings)
        till = Till(client, _till_settings(settings, made), metrics.observe_till_call, claim.asker(database, made.partitions))
        if till_is_open:
            await _open_till(database, till, made)
        async with database.acquire() as connection:
            book = await ai_models.load_book(connection)
    except BaseException:
        await _close(database, client)
        raise
    terms = TermsCache(database, real_clock, made.partitions)
    return Services(settings, real_clock, database, client, till, terms, book, observe_repeats=metrics.REPEATS_VOIDED.inc)


async def _close(database: Pool, client: redis.Redis) -> None:
    """Let go of both stores; one that does not answer is not waited for."""
    try:
        async with asyncio.timeout(_CLOSE_S_MAX):
            await client.close()
            await database.close()
    except TimeoutError:
        database.terminate()


async def _installation(database: Pool, settings: Settings) -> Installation:
    async with postgres.transaction(database) as connection:
        await postgres.assert_settings(connection)
        missing = await migrate.pending(connection)
        if missing:
            raise errors.Unavailable("schema_outdated", f"The database lacks {', '.join(missing)}; run `tallybook migrate`.")
        made = await tenancy.install(connection, settings.partitions)
        await ai_models.load_packaged(connection, real_clock, price_changes.announce)
    await rollups.prepare(database, made.partitions, real_clock())
    return made


def _till_settings(settings: Settings, made: Installation) -> TillSettings:
    lane = LaneLimits(waiting_max=settings.queue_max)
    return TillSettings(made.epoch, made.partitions, settings.hot_window_h * _HOUR_S, lane)


async def _open_till(database: Pool, till: Till, made: Installation) -> None:
    """Give a new till its epoch, once; from then on it must have it, and not be behind the book."""
    if not made.till_made:
        await till.initialize()
        async with database.acquire() as connection:
            await tenancy.note_till_made(connection)
    await till.check()


def run_api(settings: Settings) -> None:
    """Serve HTTP until SIGTERM or SIGINT, then finish what is in flight."""
    logs.configure(settings.log_level)
    _run(_api, settings)


def run_worker(settings: Settings) -> None:
    """Roll up, close periods, deliver and keep the stores tidy until SIGTERM or SIGINT."""
    logs.configure(settings.log_level)
    _run(_worker, settings)


async def _api(settings: Settings, stop: asyncio.Event) -> None:
    async with services(settings, name="api", stop=stop) as built, asyncio.TaskGroup() as tasks:
        tasks.create_task(books.follow(built, stop))
        tasks.create_task(watch.watch(built, stop))
        tasks.create_task(clocks.watch(built, stop, postgres_too=False))
        await server.serve(built, settings.host, settings.port, reuse_port=settings.reuse_port, stop=stop)
        stop.set()


async def _worker(settings: Settings, stop: asyncio.Event) -> None:
    async with services(settings, name="worker", stop=stop) as built, asyncio.TaskGroup() as tasks:
        gc.collect()
        gc.freeze()  # what is there now stays; to look through it again and again was an eighth of a busy worker's CPU
        tasks.create_task(rollup.run(_rollup(built), stop))
        tasks.create_task(delivery.run(built, stop))
        tasks.create_task(periods.run(built, stop))
        tasks.create_task(books.follow(built, stop))
        tasks.create_task(upkeep.keep_tidy(built, stop))
        tasks.create_task(watch.watch(built, stop))
        tasks.create_task(reconciling.run(built, stop))
        tasks.create_task(repeats.run(built, stop))
        tasks.create_task(clocks.watch(built, stop, postgres_too=True))
        tasks.create_task(catalog.run(built, stop))
        tasks.create_task(webhooks.run(built, stop))


def _rollup(built: Services) -> rollup.Rollup:
    return rollup.Rollup(
        built.database,
        built.redis,
        built.settings.postgres_url,
        built.settings.partitions,
        built.clock,
        lambda: built.till.epoch,
        alerting.judge_with(built.clock),
        observe=lambda result: metrics.ROLLUP_LAG_SECONDS.set(result.lag_ms / 1000),
        observe_gap=lambda _gap: metrics.LOG_GAPS.inc(),
    )


def _run(main: Callable[[Settings, asyncio.Event], Coroutine[None, None, None]], settings: Settings) -> None:
    """Run a process's main coroutine on uvloop; SIGTERM and SIGINT set its stop event."""
    if settings.failpoint:
        failpoints.arm(settings.failpoint, lambda: _end_at(settings.failpoint))

    async def until_told_to_stop() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with contextlib.suppress(Stopped):
            await main(settings, stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_told_to_stop())


def _end_at(failpoint: str) -> None:
    """End like a process that is killed, and leave word of where."""
    os.write(2, f"tallybook: failpoint {failpoint}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)

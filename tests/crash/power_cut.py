"""`python -m tests.crash.power_cut --cuts N --seed S`: cut the power of Redis under load, N times, then judge.

The load goes to API processes that live on, so what Redis forgets is known to somebody. Before each cut the workers stand still for a
moment: what was acknowledged then is in Redis alone, and no book can make up for it. With `--appendfsync everysec` the same harness must
find losses; Redis then hides its settings, as a hosted one does, and Tallybook is told by its operator that they are right.
Prints as its last line `cuts=… acked=… lost=… double=… drift=… …` and exits non-zero when that line is not what it must be.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tallybook import settings as settings_module
from tallybook.cli.ports import SharedPort
from tallybook.cli.processes import starter
from tallybook.embedded.child import Child
from tallybook.embedded.stores import Stores
from tallybook.settings import Settings
from tallybook.storage import migrate, postgres, redis
from tests.crash import oracle, setting, synced
from tests.crash.load import Load
from tests.crash.synced import Cut, WatchedRedis
from tests.support.service import Account, Service

APIS, LOAD_TASKS = 2, 4
_CUSTOMERS_A_PLAN = 6
_ACCEPTED_BETWEEN = 150
_PAUSE_S = (0.0, 0.2)
_ALONE_S = (0.05, 0.25)
"""How long the workers stand still before a cut."""
_LOOK_S = 0.02
_PROGRESS_CUTS = 10


@dataclass(slots=True)
class Cuts:
    """What the cuts took, and how often the till had to be made anew from the book after one."""

    made: list[Cut] = field(default_factory=list[Cut])
    rebuilt: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a campaign found. `lost` are acknowledged events that are nowhere."""

    line: str
    problems: Sequence[str]
    cuts: Cuts
    acked: int
    lost: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or off, and nothing had to be made anew."""
        return not self.problems and self.lost == 0 and self.cuts.rebuilt == 0


@dataclass(slots=True)
class Ground:
    """The running pieces."""

    stores: Stores
    redis: WatchedRedis
    settings: Settings
    ports: list[SharedPort]
    apis: list[Child]
    worker: Child

    @property
    def urls(self) -> list[str]:
        """Where the API processes answer."""
        return [port.url for port in self.ports]


async def run(
    folder: Path,
    *,
    cuts: int,
    seed: int,
    appendfsync: str = "always",
    program: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _message: None,
) -> Result:
    """Start everything, cut `cuts` times under load, wait until the book is level, judge."""
    dice = random.Random(seed)
    with _ground(folder, appendfsync, program) as ground:
        await migrate.migrate(ground.settings.postgres_url)
        await asyncio.to_thread(_start_processes, ground, folder)
        try:
            return await _campaign(ground, dice, cuts, seed, appendfsync, progress)
        finally:
            for child in [*ground.apis, ground.worker]:
                await asyncio.to_thread(child.stop)


@contextlib.contextmanager
def _ground(folder: Path, appendfsync: str, program: Sequence[str]) -> Generator[Ground]:
    """The stores, started; Redis with the library and, where it is not set up as it must be, without CONFIG."""
    vouched = appendfsync != "always"
    stores = Stores(folder / "data", postgres_settings={"shared_buffers": "64MB"})
    words = {"appendfsync": appendfsync}
    server = WatchedRedis(stores.data, synced.build(folder), settings=words, program=program, hides_settings=vouched)
    stores.redis = server
    settings = Settings(
        postgres_url=stores.postgres.url,
        redis_url=server.url,
        log_level="error",
        catalog_url="",
        redis_config_vouched=vouched,
        reconcile_every_s=0,
    )
    with stores:
        ports = [SharedPort("127.0.0.1", 0) for _ in range(APIS)]
        try:
            yield Ground(stores, server, settings, ports, [], stores.postgres.child)
        finally:
            for port in ports:
                port.close()


def _start_processes(ground: Ground, folder: Path) -> None:
    for number, port in enumerate(ground.ports, start=1):
        own = dataclasses.replace(ground.settings, port=port.port, reuse_port=True)
        ground.apis.append(starter(f"api-{number}", ["serve"], own, folder / "pids")())
    ground.worker = starter("worker", ["work"], ground.settings, folder / "pids")()


async def _campaign(
    ground: Ground, dice: random.Random, cuts: int, seed: int, appendfsync: str, progress: Callable[[str], None]
) -> Result:
    made = Cuts()
    await _until_charged(ground, made)
    service = Service(ground.urls[0], ground.settings.postgres_url, ground.settings.redis_url)
    with contextlib.closing(service):
        load = await _load(ground, service, dice)
        stop = asyncio.Event()
        loading = asyncio.create_task(load.run(stop, LOAD_TASKS))
        cutting = asyncio.create_task(_cut_under_load(ground, load, dice, cuts, made, progress))
        await asyncio.wait([loading, cutting], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        if loading.done():
            cutting.cancel()
        await asyncio.gather(loading, cutting)
        return await _judge(ground, load, made, seed, appendfsync)


async def _load(ground: Ground, service: Service, dice: random.Random) -> Load:
    connection = await postgres.connect_one(ground.settings.postgres_url)
    try:
        tenant_id, account = await setting.make_account(connection, service)
        made = await asyncio.to_thread(_make_customers, account)
        customers = await setting.customers(connection, tenant_id, made)
    finally:
        await connection.close()
    return Load(tenant_id, account.key, ground.urls, customers, dice)


def _make_customers(account: Account) -> list[tuple[str, str]]:
    setting.make_plans(account)
    return setting.make_customers(account, _CUSTOMERS_A_PLAN)


async def _cut_under_load(
    ground: Ground, load: Load, dice: random.Random, cuts: int, made: Cuts, progress: Callable[[str], None]
) -> None:
    for number in range(1, cuts + 1):
        goal = load.accepted + _ACCEPTED_BETWEEN
        while load.accepted < goal:  # noqa: ASYNC110 - the load notes answers, it sets no event
            await asyncio.sleep(_LOOK_S)
        await asyncio.sleep(dice.uniform(*_PAUSE_S))
        os.kill(ground.worker.pid, signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(*_ALONE_S))
        made.made.append(await asyncio.to_thread(ground.redis.cut_power, dice))
        await asyncio.to_thread(ground.redis.start)
        os.kill(ground.worker.pid, signal.SIGCONT)
        await _until_charged(ground, made)
        if number % _PROGRESS_CUTS == 0:
            progress(f"{number} cuts, {load.accepted} accepted, {made.rebuilt} times rebuilt")


async def _until_charged(ground: Ground, made: Cuts) -> None:
    """Wait until every API process takes usage; a till that lost something is made anew from the book, as an operator would."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while True:
            assert all(child.exit_code is None for child in [*ground.apis, ground.worker]), "a process ended; its log is above"
            states = [await _state(session, url) for url in ground.urls]
            if all(state is not None and set(state["checks"].values()) == {"ok"} for state in states):
                return
            tills = [state["checks"]["till"] for state in states if state is not None]
            if any("tallybook rebuild" in till for till in tills):
                await asyncio.to_thread(_rebuild, ground)
                made.rebuilt += 1
            await asyncio.sleep(_LOOK_S)


async def _state(session: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    """What `/readyz` says; None: nobody answered."""
    try:
        async with session.get(f"{url}/readyz") as answer:
            found: dict[str, Any] = await answer.json()
            return found
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def _rebuild(ground: Ground) -> None:
    environment = {**os.environ, **settings_module.to_environment(ground.settings)}
    command = [sys.executable, "-m", "tallybook.cli", "rebuild"]
    subprocess.run(command, env=environment, check=False, capture_output=True)  # noqa: S603 - the command is ours


async def _judge(ground: Ground, load: Load, made: Cuts, seed: int, appendfsync: str) -> Result:
    database = await postgres.connect(ground.settings.postgres_url)
    client = redis.connect(ground.settings.redis_url)
    try:
        await oracle.until_rolled_up(database, client, ground.settings.partitions)
        report = await oracle.verify(database, client, load.sent, partitions=ground.settings.partitions)
    finally:
        await client.close()
        await database.close()
    unsynced, kept = sum(cut.unsynced for cut in made.made), sum(cut.kept for cut in made.made)
    line = (
        f"cuts={len(made.made)} acked={report.acked} lost={len(report.lost)} double={len(report.doubled)} drift={report.drift} "
        f"unknown={report.unknown} rebuilt={made.rebuilt} unsynced_bytes={unsynced} kept_bytes={kept} "
        f"appendfsync={appendfsync} seed={seed}"
    )
    return Result(line, [*report.problems(), *load.wrong], made, report.acked, len(report.lost))


def main() -> int:
    """Run one campaign in a folder of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.power_cut")
    parser.add_argument("--cuts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--appendfsync", choices=("always", "everysec"), default="always")
    parser.add_argument("--redis-server", help="another server than the embedded one")
    given = parser.parse_args()
    missing = synced.missing_compiler()
    if missing is not None:
        sys.exit(missing)
    program = [given.redis_server] if given.redis_server else []
    with tempfile.TemporaryDirectory(prefix="tallybook-power-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        campaign = run(folder, cuts=given.cuts, seed=given.seed, appendfsync=given.appendfsync, program=program, progress=_tell)
        result = asyncio.run(campaign)
    for problem in result.problems:
        print(problem)
    print(f"with 95 % confidence a cut loses something in less than {3 / len(result.cuts.made):.2%} of cases (3/N)")
    print(result.line)
    return 0 if (result.is_clean if given.appendfsync == "always" else result.lost > 0) else 1


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

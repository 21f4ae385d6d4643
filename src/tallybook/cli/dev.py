"""`tallybook dev`: everything on this machine, data in one folder, nothing to install or set up.

Prints one JSON line on stdout when requests are answered: {"url", "apiKey", "organizationId", "livemode"}. Logs go to stderr.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from tallybook.cli import dev_key, processes, serve
from tallybook.cli.dev_key import DevKey
from tallybook.cli.ports import SharedPort
from tallybook.cli.processes import StopSignals
from tallybook.core import clock
from tallybook.embedded.crew import Crew
from tallybook.embedded.failures import EmbeddedError
from tallybook.embedded.stores import Stores
from tallybook.entrypoints import metrics_files
from tallybook.settings import Settings
from tallybook.storage import migrate

_TEND_S = 0.1
_READY_S_MAX = 120.0
_DEATHS_BEFORE_READY_MAX = 3
_IN_A_HURRY = ("api", "worker")


@dataclass(frozen=True, slots=True)
class Running:
    """A started installation: where it answers, the key to use, who keeps it running, and its settings with both stores."""

    port: SharedPort
    key: DevKey
    crew: Crew
    settings: Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--data", type=Path, default=Path(".tallybook"), help="folder for all data (default: .tallybook)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", default="8080", help="port to listen on; 0 takes a free one (default: 8080)")
    parser.add_argument("--workers", default="1", help="API processes (default: 1)")
    parser.add_argument("--postgres-user", help="when started as root: the user that Postgres runs as")


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C; then stop API, worker, Redis and Postgres in this order."""
    crew = Crew(serve.log)
    stop = StopSignals(lambda: crew.hurry(_IN_A_HURRY))
    with started(arguments.data, serve.from_arguments(arguments), crew, postgres_user=arguments.postgres_user) as running:
        if _wait_until_ready(running, stop):
            print(json.dumps({"url": running.port.url, **dataclasses.asdict(running.key)}), flush=True)
        while not stop.asked:
            crew.tend()
            time.sleep(_TEND_S)
        serve.log("stopping: API, worker, Redis, Postgres")
    return 0


@contextlib.contextmanager
def started(data: Path, given: Settings, crew: Crew, *, postgres_user: str | None = None) -> Generator[Running]:
    """Everything running on `data`, stopped in order at the end. Raises EmbeddedError, MigrationError."""
    with contextlib.closing(SharedPort(given.host, given.port)) as port, Stores(data, postgres_user=postgres_user) as stores:
        if stores.left_behind:
            serve.log(f"stopped what an earlier start left behind: {', '.join(stores.left_behind)}")
        key = asyncio.run(_prepare(stores))
        metrics_files.prepare(stores.data / "metrics")
        settings = dataclasses.replace(
            given, postgres_url=stores.postgres.url, redis_url=stores.redis.url, webhook_allow_private=True
        )
        try:
            crew.adopt("postgres", stores.postgres.child, stores.postgres.start)
            crew.adopt("redis", stores.redis.child, stores.redis.start)
            crew.add("worker", processes.starter("worker", ["work"], settings, stores.pids))
            serve.add_api(crew, port, settings, stores.pids)
            yield Running(port, key, crew, settings)
        finally:
            crew.stop()


async def _prepare(stores: Stores) -> DevKey:
    for name in await migrate.migrate(stores.postgres.url):
        serve.log(f"applied migration {name}")
    return await dev_key.ensure(stores.postgres.url, stores.data, clock.real_clock())


def _wait_until_ready(running: Running, stop: StopSignals) -> bool:
    """Whether it became ready; False when it was asked to stop before. Raises EmbeddedError when it won't."""
    deadline = time.monotonic() + _READY_S_MAX
    while not stop.asked:
        running.crew.tend()
        if running.port.is_ready():
            return True
        if running.crew.deaths_most() >= _DEATHS_BEFORE_READY_MAX or time.monotonic() > deadline:
            raise EmbeddedError("the API does not become ready; its log above says why")
        time.sleep(_TEND_S)
    return False

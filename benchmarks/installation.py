"""A whole Tallybook of its own: stores, API processes and workers, started in a folder and stopped by process id."""

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import account, processes
from benchmarks.account import Account
from benchmarks.processes import Usage
from tallybook import app
from tallybook.cli.ports import SharedPort
from tallybook.cli.processes import starter
from tallybook.embedded.child import Child
from tallybook.embedded.stores import Stores
from tallybook.flows.services import Services
from tallybook.settings import Settings
from tallybook.storage import migrate

_READY_S_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """How many processes of each kind, and how many customers."""

    apis: int = 1
    workers: int = 1
    customers: int = 1000


@dataclass(frozen=True, slots=True)
class Running:
    """API processes and workers on running stores. Each API process has a port of its own, so that connections are shared evenly."""

    stores: Stores
    settings: Settings
    ports: list[SharedPort] = field(default_factory=list[SharedPort])
    apis: list[Child] = field(default_factory=list[Child])
    workers: list[Child] = field(default_factory=list[Child])

    def start(self, folder: Path, size: Size) -> None:
        """Start them all."""
        for number in range(1, size.apis + 1):
            port = SharedPort("127.0.0.1", 0)
            self.ports.append(port)
            own = dataclasses.replace(self.settings, port=port.port, reuse_port=True)
            self.apis.append(starter(f"api-{number}", ["serve"], own, folder / "pids")())
        for number in range(1, size.workers + 1):
            self.workers.append(starter(f"worker-{number}", ["work"], self.settings, folder / "pids")())

    async def until_ready(self) -> None:
        """Wait until every API process answers. Raises TimeoutError."""
        async with asyncio.timeout(_READY_S_MAX):
            for port in self.ports:
                while not await asyncio.to_thread(port.is_ready):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.05)

    def rest_workers(self, *, on: bool) -> None:
        """Stop the workers in their tracks, or let them go on."""
        for child in self.workers:
            child.send(signal.SIGSTOP if on else signal.SIGCONT)

    def stop(self) -> None:
        """Stop them all."""
        self.rest_workers(on=False)
        every = [*self.apis, *self.workers]
        for child in every:
            child.request_stop()
        for child in every:
            child.stop()
        for port in self.ports:
            port.close()


@dataclass(frozen=True, slots=True)
class Installation:
    """What is running, who sends the usage, and this process's own services on the same stores to look behind the counter."""

    running: Running
    account: Account
    services: Services

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where the API processes listen."""
        return [(port.host, port.port) for port in self.running.ports]

    @property
    def redis_pid(self) -> int:
        """The Redis server's process id."""
        return self.running.stores.redis.child.pid

    @property
    def postgres_pid(self) -> int:
        """The Postgres server's process id; its backends are children of it."""
        return self.running.stores.postgres.child.pid

    def usage(self) -> Usage:
        """CPU seconds so far, by role."""
        apis, workers = ([child.pid for child in children] for children in (self.running.apis, self.running.workers))
        return processes.read({"api": apis, "worker": workers, "redis": [self.redis_pid], "postgres": [self.postgres_pid]})


@contextlib.asynccontextmanager
async def installed(folder: Path, size: Size, *, reconciles: bool = True) -> AsyncGenerator[Installation]:
    """An installation with an account; it ends with the block. Children die with the thread that starts them: this one.

    Without `reconciles` its worker does not compare the book with the till, and so freezes nobody for what is written straight into it.
    """
    folder.chmod(0o711)  # noqa: ASYNC240 - before anything runs that could wait for it
    with Stores(folder / "data") as stores:
        await migrate.migrate(stores.postgres.url)
        settings = Settings(
            postgres_url=stores.postgres.url,
            redis_url=stores.redis.url,
            log_level="warning",
            catalog_url="",
            reconcile_every_s=300 if reconciles else 0,
        )
        running = Running(stores, settings)
        try:
            running.start(folder, size)
            await running.until_ready()
            async with app.services(settings, name="benchmark") as services:
                made = await account.make(services.database, running.ports[0].url, size.customers)
                yield Installation(running, made, services)
        finally:
            running.stop()

"""A whole Tallybook of its own: stores, API processes and workers, started in a folder and stopped by process id."""

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
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


@dataclass(slots=True)
class Installation:
    """The running pieces. `services` are this process's own, on the same stores, for looking behind the counter."""

    size: Size
    stores: Stores
    settings: Settings
    ports: list[SharedPort] = field(default_factory=list[SharedPort])
    apis: list[Child] = field(default_factory=list[Child])
    workers: list[Child] = field(default_factory=list[Child])
    _account: Account | None = None
    _services: Services | None = None

    @property
    def account(self) -> Account:
        """Who sends the usage."""
        assert self._account is not None
        return self._account

    @property
    def services(self) -> Services:
        """What this process works with."""
        assert self._services is not None
        return self._services

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where the API processes listen, each on a port of its own so that connections are shared evenly."""
        return [(port.host, port.port) for port in self.ports]

    @property
    def roles(self) -> Mapping[str, Sequence[int]]:
        """Process ids by role."""
        return {
            "api": [child.pid for child in self.apis],
            "worker": [child.pid for child in self.workers],
            "redis": [self.stores.redis.child.pid],
            "postgres": [self.stores.postgres.child.pid],
        }

    def usage(self) -> Usage:
        """CPU seconds so far."""
        return processes.read(self.roles)

    def rest_workers(self, *, on: bool) -> None:
        """Stop the workers in their tracks, or let them go on."""
        for child in self.workers:
            os.kill(child.pid, signal.SIGSTOP if on else signal.SIGCONT)

    def _start(self, folder: Path) -> None:
        for number in range(1, self.size.apis + 1):
            port = SharedPort("127.0.0.1", 0)
            self.ports.append(port)
            own = dataclasses.replace(self.settings, port=port.port, reuse_port=True)
            self.apis.append(starter(f"api-{number}", ["serve"], own, folder / "pids")())
        for number in range(1, self.size.workers + 1):
            self.workers.append(starter(f"worker-{number}", ["work"], self.settings, folder / "pids")())

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.rest_workers(on=False)
        every = [*self.apis, *self.workers]
        for child in every:
            child.request_stop()
        for child in every:
            child.stop()
        for port in self.ports:
            port.close()


@contextlib.asynccontextmanager
async def installed(folder: Path, size: Size) -> AsyncGenerator[Installation]:
    """An installation with an account; it ends with the block. Children die with the thread that starts them: this one."""
    with Stores(folder / "data") as stores:
        await migrate.migrate(stores.postgres.url)
        settings = Settings(postgres_url=stores.postgres.url, redis_url=stores.redis.url, log_level="warning", catalog_url="")
        made = Installation(size, stores, settings)
        try:
            made._start(folder)  # noqa: SLF001 - the only maker
            await _until_ready(made)
            async with app.services(settings, name="benchmark") as services:
                made._services = services  # noqa: SLF001
                made._account = await account.make(services.database, made.ports[0].url, size.customers)  # noqa: SLF001
                yield made
        finally:
            made._stop()  # noqa: SLF001


async def _until_ready(made: Installation) -> None:
    async with asyncio.timeout(_READY_S_MAX):
        for port in made.ports:
            while not await asyncio.to_thread(port.is_ready):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)

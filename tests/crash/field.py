"""A whole installation that can be killed piece by piece: stores, several API processes and workers, each on private addresses."""

import dataclasses
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tallybook.cli.ports import SharedPort
from tallybook.cli.processes import starter
from tallybook.embedded.child import Child
from tallybook.embedded.stores import Stores
from tallybook.settings import Settings

_KILLED_S_MAX = 60.0


@dataclass(slots=True)
class Target:
    """One process that may be killed, and how to start it again."""

    name: str
    start: Callable[[], Child]
    child: Child
    restarting: Future[None] | None = None

    def kill(self, starters: ThreadPoolExecutor) -> None:
        """SIGKILL, and start it again in the background."""
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait(_KILLED_S_MAX)
        self.restarting = starters.submit(self._restart)

    @property
    def is_up(self) -> bool:
        """Whether its last restart is over. Raises what went wrong with it."""
        if self.restarting is None:
            return True
        if self.restarting.done():
            self.restarting.result()
        return self.restarting.done()

    def _restart(self) -> None:
        self.child = self.start()


@dataclass(slots=True)
class Field:
    """The running pieces. Close it to stop them all by process id."""

    stores: Stores
    settings: Settings
    urls: list[str]
    targets: list[Target] = field(default_factory=list[Target])
    ports: list[SharedPort] = field(default_factory=list[SharedPort])
    starters: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))
    """Children die with the thread that started them, so these threads live as long as the field."""

    def close(self) -> None:
        """Stop everything that was started."""
        self.starters.shutdown(wait=True)
        for target in self.targets:
            if target.name.startswith(("api", "worker")):
                target.child.stop()
        for port in self.ports:
            port.close()
        self.stores.stop()


def open_field(folder: Path, stores: Stores, *, apis: int, workers: int) -> Field:
    """Start API processes and workers on running, migrated stores."""
    settings = Settings(
        postgres_url=stores.postgres.url,
        redis_url=stores.redis.url,
        log_level="warning",
        catalog_url="",
        period_grace_s=0,
    )
    opened = Field(stores, settings, [])
    for number in range(1, apis + 1):
        port = SharedPort("127.0.0.1", 0)
        opened.ports.append(port)
        opened.urls.append(port.url)
        own = dataclasses.replace(settings, port=port.port, reuse_port=True)
        _add(opened, f"api-{number}", starter(f"api-{number}", ["serve"], own, folder / "pids"))
    for number in range(1, workers + 1):
        _add(opened, f"worker-{number}", starter(f"worker-{number}", ["work"], settings, folder / "pids"))
    opened.targets.append(Target("redis", stores.redis.start, stores.redis.child))
    opened.targets.append(Target("postgres", stores.postgres.start, stores.postgres.child))
    return opened


def _add(opened: Field, name: str, start: Callable[[], Child]) -> None:
    opened.targets.append(Target(name, start, start()))

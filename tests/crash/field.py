"""A whole installation that can be killed piece by piece: stores, several API processes and workers, each on private addresses."""

import dataclasses
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tallybook.cli.ports import SharedPort
from tallybook.embedded.stores import Stores
from tallybook.settings import Settings
from tests.crash.nursery import Nursery
from tests.support.redis_cluster import ClusterServers

_KILLED_S_MAX = 60.0


class Process(Protocol):
    """A running process."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        ...

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait for its end. Returns whether it came."""
        ...

    def stop(self) -> int:
        """Ask it to finish, and wait until it has."""
        ...


@dataclass(slots=True)
class Target:
    """One process that may be killed, and how to start it again."""

    name: str
    start: Callable[[], Process]
    child: Process
    start_armed: Callable[[str, Path], Process] | None = None
    """Starts it with a failpoint, logging to a file; the stores have none."""
    restarting: Future[None] | None = None
    is_armed: bool = False

    @property
    def kind(self) -> str:
        """What it is: its name without a number."""
        return self.name.partition("-")[0]

    def kill(self, starters: ThreadPoolExecutor, meanwhile: Callable[[], object] = lambda: None) -> None:
        """SIGKILL, and start it again in the background; `meanwhile` is done there in between."""
        self._end()
        self.is_armed = False
        self.restarting = starters.submit(self._restart, meanwhile)

    def arm(self, failpoint: str, log: Path) -> None:
        """SIGKILL, and start it again so that it ends at a failpoint; a nursling needs no thread that stays."""
        assert self.start_armed is not None
        self._end()
        self.is_armed = True
        self.child = self.start_armed(failpoint, log)

    def _end(self) -> None:
        if self.restarting is not None:
            self.restarting.result()
        self.child.send(signal.SIGKILL)
        self.child.wait(_KILLED_S_MAX)

    @property
    def is_up(self) -> bool:
        """Whether its last restart is over. Raises what went wrong with it."""
        if self.restarting is None:
            return True
        if self.restarting.done():
            self.restarting.result()
        return self.restarting.done()

    def _restart(self, meanwhile: Callable[[], object]) -> None:
        meanwhile()
        self.child = self.start()


@dataclass(slots=True)
class Field:
    """The running pieces. Close it to stop them all by process id."""

    stores: Stores
    settings: Settings
    urls: list[str]
    nursery: Nursery
    cluster: ClusterServers | None = None
    """Stands in for the Redis of the stores."""
    targets: list[Target] = field(default_factory=list[Target])
    ports: list[SharedPort] = field(default_factory=list[SharedPort])
    starters: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))
    """Children die with the thread that started them, so these threads live as long as the field."""

    def check(self) -> None:
        """Raise AssertionError when a process has ended that nobody killed: nothing may end by itself, whatever happens to others."""
        for target in self.targets:
            if target.is_up and target.child.exit_code is not None:
                raise AssertionError(f"{target.name} ended by itself, with {target.child.exit_code}; its log says why")

    def target(self, name: str) -> Target:
        """The process of this name."""
        [found] = [target for target in self.targets if target.name == name]
        return found

    def close(self) -> None:
        """Stop everything that was started."""
        self.starters.shutdown(wait=True)
        for target in self.targets:
            if target.name.startswith(("api", "worker")):
                target.child.stop()
        self.nursery.close()
        for port in self.ports:
            port.close()
        if self.cluster is not None:
            self.cluster.stop()
        self.stores.stop()


_SHARED_PARTITIONS = 16
"""Where several masters or workers share them; else as many as an installation has by default."""


def open_field(stores: Stores, *, apis: int, workers: int, cluster: ClusterServers | None = None) -> Field:
    """Start API processes and workers on running, migrated stores; with a cluster, on that instead of the stores' Redis."""
    settings = Settings(
        postgres_url=stores.postgres.url,
        redis_url=stores.redis.url if cluster is None else cluster.url,
        log_level="warning",
        catalog_url="",
        period_grace_s=0,
    )
    if cluster is not None or workers > 1:
        settings = dataclasses.replace(settings, partitions=_SHARED_PARTITIONS)
    opened = Field(stores, settings, [], Nursery(), cluster)
    for number in range(1, apis + 1):
        port = SharedPort("127.0.0.1", 0)
        opened.ports.append(port)
        opened.urls.append(port.url)
        own = dataclasses.replace(settings, port=port.port, reuse_port=True)
        _add(opened, f"api-{number}", "serve", own)
    for number in range(1, workers + 1):
        _add(opened, f"worker-{number}", "work", settings)
    if cluster is None:
        opened.targets.append(Target("redis", stores.redis.start, stores.redis.child))
    else:
        opened.targets += [
            Target(f"redis-{number}", node.start, node.child) for number, node in enumerate(cluster.nodes, start=1)
        ]
    opened.targets.append(Target("postgres", stores.postgres.start, stores.postgres.child))
    return opened


def _add(opened: Field, name: str, word: str, settings: Settings) -> None:
    def start() -> Process:
        return opened.nursery.start([word], settings)

    def start_armed(failpoint: str, log: Path) -> Process:
        return opened.nursery.start([word], dataclasses.replace(settings, failpoint=failpoint), log)

    opened.targets.append(Target(name, start, start(), start_armed))

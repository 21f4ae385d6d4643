"""A Redis Cluster of the wheel's own server on this machine: masters without replicas, each a process that tests may kill."""

import asyncio
import random
import socket
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tallybook.core import partitions
from tallybook.embedded import folders
from tallybook.embedded.redis_server import RedisServer
from tallybook.storage import redis
from tallybook.storage.redis import Redis
from tallybook.storage.redis_cluster import SLOTS
from tests.support import api, waiting

MASTERS = 3
EVERY = range(api.PARTITIONS)
_BUS = 10_000
"""A node talks to the others on its port plus this."""
_SETTINGS = {
    "bind": "127.0.0.1",
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": "1000",
    "cluster-require-full-coverage": "no",
}


class ClusterServers:
    """The masters of one cluster in one folder; the slots are shared out evenly, in order."""

    def __init__(self, folder: Path) -> None:
        self.ports = _free_ports(MASTERS)
        self.nodes = [_node(folder / f"redis-{number}", port) for number, port in enumerate(self.ports, start=1)]

    @property
    def url(self) -> str:
        """Where clients connect."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self) -> None:
        """Start the servers, make them a cluster, and wait until each knows all of it."""
        for node in self.nodes:
            node.start()
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(asyncio.run, self._join()).result()

    def stop(self) -> None:
        """Stop them all."""
        for node in self.nodes:
            node.stop()

    async def _join(self) -> None:
        clients = [redis.connect(node.url) for node in self.nodes]
        for number, client in enumerate(clients):
            first, last = SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last))
        for port in self.ports[1:]:
            await clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        await waiting.until(lambda: _is_joined(clients))
        for client in clients:
            await client.close()


@contextmanager
def running() -> Generator[ClusterServers]:
    """A cluster in a folder of its own, for as long as the block runs."""
    with TemporaryDirectory(prefix="tallybook-cluster-") as folder:
        servers = ClusterServers(Path(folder))
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()


def customer_in(partition: int, nth: int = 0) -> int:
    """A customer whose pools are there."""
    return [customer for customer in range(1, 1000) if partitions.of(1, customer, api.PARTITIONS) == partition][nth]


async def server_of(client: Redis, partition: int) -> tuple[Redis, list[int]]:
    """The master that holds a partition, and all partitions it holds."""
    groups = await client.by_server([partitions.prefix(one) for one in EVERY])
    return next(group for group in groups if partition in group[1])


def node_of(cluster: ClusterServers, server: Redis) -> int:
    """Its place among `nodes`."""
    return next(number for number, port in enumerate(cluster.ports) if server.name.endswith(f":{port}"))


async def kill(cluster: ClusterServers, server: Redis) -> None:
    """Stop a master as a crash does."""
    cluster.nodes[node_of(cluster, server)].child.kill()


async def start(cluster: ClusterServers, server: Redis) -> None:
    """Start a master again and wait until it takes commands; it waits a while before it trusts itself."""
    cluster.nodes[node_of(cluster, server)].start()
    await until_ok(cluster, server)


async def until_ok(cluster: ClusterServers, server: Redis) -> None:
    """Wait until a master takes commands."""
    node = cluster.nodes[node_of(cluster, server)]

    async def is_ok() -> bool:
        client = redis.connect(node.url)
        try:
            return redis.info(await client.execute_command("CLUSTER", "INFO"))["cluster_state"] == "ok"
        finally:
            await client.close()

    await waiting.until(is_ok)


def _node(folder: Path, port: int) -> RedisServer:
    data = folders.make(folder)
    return RedisServer(data, folders.sockets(data), settings={**_SETTINGS, "port": str(port)})


async def _is_joined(clients: Sequence[Redis]) -> bool:
    for client in clients:
        state = redis.info(await client.execute_command("CLUSTER", "INFO"))
        if state["cluster_state"] != "ok" or len(await client.execute_command("CLUSTER", "SLOTS")) != len(clients):
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, with the one of their bus."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(20_000, 32_000)
        if port not in found and _is_free(port) and _is_free(port + _BUS):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""The ceilings of the stores, without anything of the service around them: the bare script on the same Redis, a bare COPY.

Both work beside the installation's own data: the script on partitions named `{x…}` that nobody else reads, the COPY into a table
of its own with the columns and indexes of `usage_events`. What they leave is removed.
"""

import io
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, cast

from benchmarks import prepared
from benchmarks.installation import Installation
from benchmarks.processes import cpu_s
from tallybook.charge import commands
from tallybook.charge.commands import Charge
from tallybook.core import clock, partitions
from tallybook.rollup import aggregate
from tallybook.rollup.aggregate import EVENT_COLUMNS
from tallybook.rollup.model import RawEntry
from tallybook.storage import postgres
from tallybook.storage.redis import Redis

_SCRIPT = resources.files("tallybook.charge").joinpath("charge.lua").read_bytes()
_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class StoreRun:
    """A store's figures: events per second of wall time, and its CPU microseconds an event."""

    eps: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class ScriptRun(StoreRun):
    """What the script did, with its replies call by call and the log it wrote."""

    replies: Sequence[bytes]
    entries: Sequence[RawEntry]


async def run_script(installation: Installation, calls: Sequence[Mapping[int, Sequence[Charge]]], rounds: int) -> ScriptRun:
    """Packed calls, one connection, two on their way at any time; each round on partitions of its own."""
    client = installation.services.redis
    epoch = await client.execute_command("HGET", f"{partitions.prefix(0)}:m", "epoch")
    packed = [({p: commands.pack(charges) for p, charges in call.items()}) for call in calls]
    events = sum(len(charges) for call in calls for charges in call.values())
    sha = await client.execute_command("SCRIPT", "LOAD", _SCRIPT)
    replies: list[bytes] = []
    seconds = cpu = 0.0
    for number in range(rounds):
        await _give_epoch(client, epoch, number, installation.settings.partitions)
        words = [_words(sha, epoch, number, call) for call in packed]
        before, started = cpu_s(installation.stores.redis.child.pid), time.perf_counter()
        for start in range(0, len(words), _IN_FLIGHT):
            replies += await client.pipeline(*words[start : start + _IN_FLIGHT], atomic=False)
        seconds += time.perf_counter() - started
        cpu += cpu_s(installation.stores.redis.child.pid) - before
    entries = await _entries(client, installation.settings.partitions)
    await _remove(client)
    return ScriptRun(events * rounds / seconds, cpu / events / rounds * 1e6, replies[: len(calls)], entries)


def _prefix(number: int, partition: int) -> str:
    return f"{{x{number}p{partition:02d}}}"


def _words(sha: bytes, epoch: bytes, number: int, call: Mapping[int, bytes]) -> tuple[Any, ...]:
    return ("EVALSHA", sha, len(call), *(_prefix(number, partition) for partition in call), epoch, 259_200, *call.values())


async def _give_epoch(client: Redis, epoch: bytes, number: int, count: int) -> None:
    own = [("HSET", f"{_prefix(number, partition)}:m", "epoch", epoch) for partition in range(count)]
    await client.pipeline(*own, atomic=False)


async def _entries(client: Redis, count: int) -> list[RawEntry]:
    """The log of the first round."""
    found: list[RawEntry] = []
    for partition in range(count):
        for name, fields in await client.execute_command("XRANGE", f"{_prefix(0, partition)}:log", "-", "+"):
            found.append(RawEntry(partition, int(name.partition(b"-")[0]), fields[1]))
    return found


async def _remove(client: Redis) -> None:
    cursor = b"0"
    while True:
        cursor, keys = await client.execute_command("SCAN", cursor, "MATCH", "{x*p*}:*", "COUNT", 5000)
        if keys:
            await client.execute_command("UNLINK", *keys)
        if cursor == b"0":
            return


@asynccontextmanager
async def scratch_table(installation: Installation) -> AsyncGenerator[str]:
    """A table like one month of events."""
    name = "benchmark_events"
    await installation.services.database.execute(f"CREATE TABLE {name} (LIKE usage_events INCLUDING ALL)")
    try:
        yield name
    finally:
        await installation.services.database.execute(f"DROP TABLE {name}")


async def run_copy(installation: Installation, csv: bytes, events: int, rounds: int) -> StoreRun:
    """COPY of the rows that the rollup made of these events, one transaction a round."""
    pid, seconds = installation.stores.postgres.child.pid, 0.0
    async with scratch_table(installation) as table:
        before = cpu_s(pid)
        for _ in range(rounds):
            started = time.perf_counter()
            async with postgres.transaction(installation.services.database) as connection:
                await cast("Any", connection).copy_to_table(table, source=io.BytesIO(csv), columns=EVENT_COLUMNS, format="csv")
            seconds += time.perf_counter() - started
        return StoreRun(events * rounds / seconds, (cpu_s(pid) - before) / events / rounds * 1e6)


async def one_copy(installation: Installation, entries: Sequence[RawEntry], rounds: int) -> StoreRun:
    """`run_copy` for the events of these log entries."""
    effects = aggregate.effects(entries, clock.real_clock())
    return await run_copy(installation, effects.events_csv, effects.events, rounds)


async def bytes_of_log(installation: Installation) -> int:
    """Memory of the installation's logs."""
    keys = [("MEMORY", "USAGE", f"{partitions.prefix(number)}:log", "SAMPLES", 0) for number in range(installation.settings.partitions)]
    return sum(size or 0 for size in await installation.services.redis.pipeline(*keys, atomic=False))


async def bytes_of_ids(installation: Installation) -> tuple[int, int]:
    """Memory of the remembered identities, keys included, and how many they are."""
    client, cursor, size, count = installation.services.redis, b"0", 0, 0
    while True:
        cursor, keys = await client.execute_command("SCAN", cursor, "MATCH", "{p*}:d:*", "COUNT", 5000)
        asked = [word for key in keys for word in (("MEMORY", "USAGE", key, "SAMPLES", 0), ("HLEN", key))]
        found = await client.pipeline(*asked, atomic=False) if asked else []
        size, count = size + sum(found[::2]), count + sum(found[1::2])
        if cursor == b"0":
            return size, count


async def one_script(installation: Installation, workload: str, events: int, rounds: int) -> ScriptRun:
    """`run_script` for fresh events of a batch workload."""
    ready = await prepared.ready(installation, workload, events)
    return await run_script(installation, prepared.calls(ready.price(installation.services, ready.parse())), rounds)

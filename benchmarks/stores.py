"""The ceilings of the stores, without anything of the service around them: the bare script on the same Redis, a bare COPY.

Both work beside the installation's own data: the script on partitions beyond its own, which nobody reads, the COPY into a table of its
own with the columns and indexes of `usage_events`. What they leave is removed.
"""

import io
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from benchmarks import prepared
from benchmarks.installation import Installation
from benchmarks.processes import cpu_s
from tallybook.charge.commands import Charge, Receipt
from tallybook.charge.till import Till, TillSettings
from tallybook.core import clock, partitions
from tallybook.rollup import aggregate, copy_rows, log_reader
from tallybook.rollup.model import RawEntry
from tallybook.storage import postgres, redis
from tallybook.storage.redis import Redis, Word

_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class StoreRun:
    """A store's figures: events per second of wall time, and its CPU microseconds an event."""

    eps: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class ScriptRun(StoreRun):
    """What the script did. `client_us` is this process's CPU for calling it: packing, the driver, reading the replies."""

    client_us: float
    receipts: Sequence[Receipt]
    entries: Sequence[RawEntry]


class _Recorder:
    """A client of one Redis that remembers what it was asked."""

    is_cluster = False

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.calls: list[tuple[Word, ...]] = []

    async def execute_command(self, *words: Word) -> object:
        """Remember and send."""
        self.calls.append(words)
        return await self._client.execute_command(*words)


async def run_script(installation: Installation, charges: Sequence[Charge], rounds: int) -> ScriptRun:
    """The calls that the till makes for these charges, made once by it and then sent again bare, each round on other partitions.

    Two calls are on their way at any time, over one connection.
    """
    client, count = installation.services.redis, installation.services.settings.partitions
    meta = await client.execute_command("HGETALL", f"{partitions.prefix(0)}:m")
    scratch = [partitions.prefix(number) for number in range(count, count * (rounds + 2))]
    await client.pipeline(*[("HSET", f"{prefix}:m", *_without_sequence(meta)) for prefix in scratch], atomic=False)
    try:
        recorder = _Recorder(client)
        started = time.process_time()
        receipts = await _charge(installation, cast("Redis", recorder), charges, rounds)
        client_us = (time.process_time() - started) / len(charges) * 1e6
        entries = await _entries(client, count)
        seconds = cpu = 0.0
        for number in range(1, rounds + 1):
            words = [_moved(call, number * count) for call in recorder.calls]
            before, started = cpu_s(installation.redis_pid), time.perf_counter()
            for start in range(0, len(words), _IN_FLIGHT):
                await client.pipeline(*words[start : start + _IN_FLIGHT], atomic=False)
            seconds += time.perf_counter() - started
            cpu += cpu_s(installation.redis_pid) - before
    finally:
        await _remove(client, set(scratch))
    done = len(charges) * rounds
    return ScriptRun(done / seconds, cpu / done * 1e6, client_us, receipts, entries)


def _without_sequence(meta: Sequence[bytes]) -> list[bytes]:
    """What a partition says of itself, for one that has no log yet."""
    fields = zip(meta[::2], meta[1::2], strict=True)
    return [word for name, value in fields if name != b"seq" for word in (name, value)]


async def _charge(installation: Installation, client: Redis, charges: Sequence[Charge], rounds: int) -> list[Receipt]:
    """Through a till that works on the first partitions beyond the installation's own."""
    count, hot_window_s = installation.services.settings.partitions, installation.services.settings.hot_window_h * 3600
    epoch = await installation.services.redis.execute_command("HGET", f"{partitions.prefix(0)}:m", "epoch")
    till = Till(client, TillSettings(epoch.decode(), count * (rounds + 2), hot_window_s))
    moved = [msgspec.structs.replace(charge, partition=charge.partition + count) for charge in charges]
    receipts: list[Receipt] = []
    for start in range(0, len(moved), prepared.A_CALL):
        receipts += await till.charge(moved[start : start + prepared.A_CALL])
    return receipts


_KEYS_AT = 2
"""Where a call of a script says how many keys follow."""


def _moved(call: Sequence[Word], by: int) -> tuple[Word, ...]:
    """The same call for other partitions."""
    start, count = _KEYS_AT + 1, int(call[_KEYS_AT])
    keys = [partitions.prefix(int(str(key).strip("{p}")) + by) for key in call[start : start + count]]
    return (*call[:start], *keys, *call[start + count :])


async def _entries(client: Redis, count: int) -> list[RawEntry]:
    """The log of the partitions that the till has worked on."""
    found: list[RawEntry] = []
    for partition in range(count, 2 * count):
        for name, fields in await client.execute_command("XRANGE", log_reader.key(partition), "-", "+"):
            found.append(RawEntry(partition, int(name.partition(b"-")[0]), fields[1]))
    return found


async def _remove(client: Redis, prefixes: Collection[str]) -> None:
    cursor = b"0"
    while True:
        cursor, keys = await client.execute_command("SCAN", cursor, "MATCH", "{p*}:*", "COUNT", 5000)
        mine = [key for key in keys if key.partition(b":")[0].decode() in prefixes]
        if mine:
            await client.execute_command("UNLINK", *mine)
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


async def run_copy(installation: Installation, rows: bytes, events: int, rounds: int) -> StoreRun:
    """COPY of the rows that the rollup made of these events, one transaction a round."""
    pid, seconds = installation.postgres_pid, 0.0
    async with scratch_table(installation) as table:
        before = cpu_s(pid)
        for _ in range(rounds):
            started = time.perf_counter()
            async with postgres.transaction(installation.services.database) as connection:
                await cast("Any", connection).copy_to_table(
                    table, source=io.BytesIO(rows), columns=copy_rows.COLUMNS, format="binary"
                )
            seconds += time.perf_counter() - started
        return StoreRun(events * rounds / seconds, (cpu_s(pid) - before) / events / rounds * 1e6)


async def one_copy(installation: Installation, entries: Sequence[RawEntry], rounds: int) -> StoreRun:
    """`run_copy` for the events of these log entries."""
    effects = aggregate.effects(entries, clock.real_clock())
    return await run_copy(installation, effects.event_rows, effects.events, rounds)


async def bytes_used(installation: Installation) -> int:
    """What Redis' allocator has given out."""
    reply = await installation.services.redis.execute_command("INFO", "memory")
    return int(redis.info(reply)["used_memory"])


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
    return await run_script(installation, prepared.charges(ready.price(installation.services, ready.parse())), rounds)

"""Making the till anew from what the book says, while it is closed. Beside the script, nothing else writes the till's keys.

The order makes every crash on the way harmless: the till is closed first and opened last, so it is either refused or whole.
"""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tallybook.charge import identities, states
from tallybook.charge.identities import Original
from tallybook.charge.states import Pool, State
from tallybook.core import clock, partitions
from tallybook.core.usage_log import PAYLOAD_BYTES
from tallybook.storage import redis
from tallybook.storage.redis import Redis, Word

CLOSED_FOR_REBUILD = "for tallybook rebuild"
_COMMANDS_AT_ONCE = 2000
_OWN_KEY = re.compile(rb"(\{p[0-9]+\}):(m|log|c|d:.*)", re.DOTALL)
_OPEN = b"""
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'untold'
for _, prefix in ipairs(KEYS) do
    if redis.call('HGET', prefix .. ':m', 'epoch') ~= ARGV[1] then return redis.error_reply('EPOCH another rebuild was faster') end
end
for _, prefix in ipairs(KEYS) do
    redis.call('HSET', prefix .. ':m', 'run', run)
    redis.call('HDEL', prefix .. ':m', 'closed')
end
"""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What a partition of Redis says of itself; None and 0 where it says nothing."""

    epoch: str | None
    sequence: int
    closed: str | None


@dataclass(frozen=True, slots=True)
class OpenPool:
    """A pool as the till is to hold it: what the terms granted, and what is left. 1e-9 of its unit."""

    tenant_id: int
    customer_id: int
    pool: str
    opening: int
    left: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """An identity with what the till answers to a repeat of it; `found` as in `Receipt`."""

    partition: int
    digest: bytes
    fingerprint: bytes
    accepted_at_ms: int
    amount: int
    left: int
    spare_left: int
    found: int


class Remaking:
    """The till of one installation while it is made anew."""

    def __init__(self, client: Redis, count: int, hot_window_s: int) -> None:
        self._redis = client
        self._count = count
        self._hot_window_s = hot_window_s

    async def look(self) -> list[PartitionState]:
        """Every partition as it is."""
        asked = [("HMGET", f"{prefix}:m", "epoch", "seq", "closed") for prefix in self._prefixes()]
        replies = [list(map(redis.text, reply)) for reply in await self._redis.pipeline(*asked, atomic=False)]
        return [PartitionState(epoch, int(sequence or 0), closed) for epoch, sequence, closed in replies]

    async def close(self, epoch: str) -> None:
        """Take no charge any more in the partitions that have the epoch."""
        for prefix, state in zip(self._prefixes(), await self.look(), strict=True):
            if state.epoch == epoch:
                await self._redis.execute_command("HSET", f"{prefix}:m", "closed", CLOSED_FOR_REBUILD)

    async def clear(self, own_epoch: str) -> int:
        """Drop everything that a till is made of. The log of another installation is set aside, not dropped: nobody here has read it.

        The partitions' epochs go first, so that nobody is charging what is being dropped. Returns how many logs were set aside.
        """
        aside = 0
        async for keys in self._scan("{p*}:m"):
            for meta in keys:
                aside += await self._set_aside(meta.removesuffix(b":m"), own_epoch)
        async for keys in self._scan("{p*}:*"):
            await self._send([("UNLINK", key) for key in keys])
        return aside

    async def _scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        """Keys of tills that match, some at a time; each at least once."""
        async for found in redis.scan(self._redis, pattern):
            yield [key for key in found if _OWN_KEY.fullmatch(key)]

    async def begin(self, epoch: str, sequences: Sequence[int], not_before_ms: int) -> int:
        """Give every partition its epoch and the sequence it goes on from, still closed. Returns the current generation.

        Time does not go back: it is `not_before_ms` at least.
        """
        now_ms = max(clock.to_ms(await redis.server_time(self._redis)), not_before_ms)
        generation = now_ms // 1000 // self._hot_window_s
        words = ("closed", CLOSED_FOR_REBUILD, "generation", generation, "now_ms", now_ms)
        metas = [
            ("HSET", f"{prefix}:m", "epoch", epoch, "seq", sequence, *words)
            for prefix, sequence in zip(self._prefixes(), sequences, strict=True)
        ]
        await self._redis.pipeline(*metas, atomic=False)
        return generation

    async def write_tenants(self, versions: Mapping[int, int]) -> None:
        """Terms versions of tenants, which every partition knows."""
        words = [
            word
            for tenant_id, version in versions.items()
            for word in (states.tenant_field(tenant_id), states.tenant_version(version))
        ]
        if words:
            await self._send([("HSET", states.key(partition), *words) for partition in range(self._count)])

    async def write_customers(self, versions: Iterable[tuple[int, int, int]]) -> None:
        """Terms versions of customers: tenant, customer, version."""
        await self._add((tenant, customer, State(version)) for tenant, customer, version in versions)

    async def write_frozen(self, reasons: Iterable[tuple[int, int, str]]) -> None:
        """Frozen customers: tenant, customer, reason."""
        await self._add((tenant, customer, State(frozen=reason)) for tenant, customer, reason in reasons)

    async def write_pools(self, pools: Iterable[OpenPool]) -> None:
        """Pools with what they were opened with and what is left."""
        await self._add((one.tenant_id, one.customer_id, State(pools={one.pool: Pool(one.opening, one.left)})) for one in pools)

    async def _add(self, parts: Iterable[tuple[int, int, State]]) -> None:
        """Join parts of customers' states with what is known of them. Nobody else writes: the till is closed."""
        found: dict[int, dict[str, list[State]]] = defaultdict(lambda: defaultdict(list))
        for tenant_id, customer_id, part in parts:
            found[partitions.of(tenant_id, customer_id, self._count)][states.customer_field(customer_id)].append(part)
        for partition, by_field in found.items():
            fields = list(by_field)
            for start in range(0, len(fields), _COMMANDS_AT_ONCE):
                some = fields[start : start + _COMMANDS_AT_ONCE]
                known = await self._redis.execute_command("HMGET", states.key(partition), *some)
                joined = [_joined([states.read(text), *by_field[name]]) for name, text in zip(some, known, strict=True)]
                words = [word for name, state in zip(some, joined, strict=True) for word in (name, states.write(state))]
                await self._redis.execute_command("HSET", states.key(partition), *words)

    async def write_identities(self, remembered: Iterable[Remembered], generation: int) -> int:
        """Identities, each in the generation it was accepted in; those the script would no longer find are left out."""
        buckets: dict[bytes, list[Word]] = defaultdict(list)
        written = 0
        for one in remembered:
            own = one.accepted_at_ms // 1000 // self._hot_window_s
            if own < generation - 1 or own > generation:
                continue
            bucket, field = identities.place_of(one.digest)
            payload, request = one.fingerprint[:PAYLOAD_BYTES], one.fingerprint[PAYLOAD_BYTES:]
            original = Original(request, one.accepted_at_ms, one.amount, one.left, one.spare_left, one.found)
            buckets[identities.key(one.partition, own, bucket)] += [field, identities.write(payload, original)]
            written += 1
        await self._send([("HSET", key, *words) for key, words in buckets.items()])
        return written

    async def open(self, epoch: str) -> None:
        """Let the till be charged. Raises ResponseError when another rebuild has begun meanwhile."""
        prefixes = self._prefixes()
        for places in self._redis.together(prefixes):
            named = [prefixes[place] for place in places]
            await self._redis.execute_command("EVAL", _OPEN, len(named), *named, epoch)

    async def _set_aside(self, prefix: bytes, own_epoch: str) -> int:
        meta, log = prefix + b":m", prefix + b":log"
        epoch: bytes | None = await self._redis.execute_command("HGET", meta, "epoch")
        has_log = bool(await self._redis.execute_command("EXISTS", log))
        if epoch is None or epoch == own_epoch.encode() or not has_log:
            await self._redis.execute_command("UNLINK", log, meta)
            return 0
        seconds = b"%d" % (await redis.server_time(self._redis)).timestamp()
        place = prefix + b":aside:" + epoch + b":" + seconds
        await self._redis.execute_command("RENAME", log, place + b":log")
        await self._redis.execute_command("RENAME", meta, place + b":m")
        return 1

    async def _send(self, commands: Sequence[tuple[Word, ...]]) -> None:
        for start in range(0, len(commands), _COMMANDS_AT_ONCE):
            await self._redis.pipeline(*commands[start : start + _COMMANDS_AT_ONCE], atomic=False)

    def _prefixes(self) -> list[str]:
        return [partitions.prefix(partition) for partition in range(self._count)]


def _joined(parts: Sequence[State]) -> State:
    """One state of parts that say different things of a customer."""
    pools = {name: pool for part in parts for name, pool in part.pools.items()}
    reason = next((part.frozen for part in reversed(parts) if part.frozen is not None), None)
    return State(max(part.version for part in parts), pools, reason)

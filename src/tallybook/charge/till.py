"""The till: charges go in, receipts come out, and a receipt is only given for what is on disk (Redis runs `appendfsync always`)."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import cast

from tallybook.charge import commands
from tallybook.charge.commands import Charge, Outcome, Receipt
from tallybook.charge.lane import Lane, LaneLimits
from tallybook.core import errors, partitions, usage_log
from tallybook.storage import redis

_SCRIPT = resources.files("tallybook.charge").joinpath("charge.lua").read_bytes()
_SCRIPT_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()
_BUCKETS = 4096
"""Dedupe buckets of one generation in one partition; the script takes the first 12 bits of the identity."""

ObserveCall = Callable[[int, float], None]
"""Told after each call: how many charges it carried and how many seconds it took."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool as the till holds it: what the terms granted, and what is left. 1e-9 of the pool's unit."""

    opening: int
    left: int


@dataclass(frozen=True, slots=True)
class CustomerView:
    """All that the till holds of one customer, read in one atomic step together with the partition's last log sequence."""

    tenant_version: int
    customer_version: int
    frozen: bool
    pools: Mapping[str, PoolState]
    sequence: int


@dataclass(frozen=True, slots=True)
class TillSettings:
    """What identifies the till of this installation, and how long it remembers identities (1 to 2 times the hot window)."""

    epoch: str
    partitions: int
    hot_window_s: int
    lane: LaneLimits = field(default_factory=LaneLimits)


class Till:
    """The till of one installation, seen from one process."""

    def __init__(self, client: redis.Redis, settings: TillSettings, observe: ObserveCall = lambda _count, _seconds: None) -> None:
        self._redis = client
        self._settings = settings
        self._observe = observe
        self._lane = Lane(self._send, settings.lane)

    @property
    def depth(self) -> int:
        """Charges waiting or in flight."""
        return self._lane.depth

    async def charge(self, charges: Sequence[Charge]) -> list[Receipt]:
        """Settle charges: same length, same order; each on disk before this returns.

        Raises RateLimited when the queue is full and Unavailable when the till can't be reached, is not this installation's or did not
        answer; then it is not known what was recorded, and sending the same identities again is safe.
        """
        return await self._lane.charge(charges)

    async def tick(self, partition: int) -> int:
        """Append an entry that changes nothing. Returns its sequence: what was accepted before has a lower one."""
        record = usage_log.Record(usage_log.Kind.TICK, 0, 0, b"", "", 0)
        reply = await self._call({partition: [Charge(partition, record, 0)]})
        sequence = reply[0][0]
        assert isinstance(sequence, int)
        return sequence

    async def bump_terms(self, tenant_id: int, customer_id: int | None, version: int) -> None:
        """Tell the till that older terms are stale, for one customer or (None) for all of a tenant. Never lowers a version."""
        if customer_id is None:
            await asyncio.gather(
                *(
                    self._raise_version(f"{partitions.prefix(partition)}:t", str(tenant_id), version)
                    for partition in range(self._settings.partitions)
                )
            )
            return
        await self._raise_version(self._customer_key(tenant_id, customer_id), "v", version)

    async def read(self, tenant_id: int, customer_id: int) -> CustomerView:
        """What is left in each of a customer's pools now."""
        prefix = self._prefix(tenant_id, customer_id)
        epoch, sequence, tenant_version, state = await redis.atomically(
            self._redis,
            ("HGET", f"{prefix}:m", "epoch"),
            ("HGET", f"{prefix}:m", "seq"),
            ("HGET", f"{prefix}:t", str(tenant_id)),
            ("HGETALL", self._customer_key(tenant_id, customer_id)),
        )
        if epoch != self._settings.epoch.encode():
            raise _wrong_epoch(f"partition {prefix} holds {epoch!r}")
        fields = redis.pairs(state)
        return CustomerView(
            tenant_version=int(redis.text(tenant_version) or 0),
            customer_version=int(fields.get(b"v", b"0")),
            frozen=b"z" in fields,
            pools=_pools(fields),
            sequence=int(redis.text(sequence) or 0),
        )

    async def freeze(self, tenant_id: int, customer_id: int, reason: str) -> None:
        """Refuse every charge of this customer from now on: its pools do not reconcile. `thaw` undoes it."""
        await self._redis.execute_command("HSET", self._customer_key(tenant_id, customer_id), "z", reason)

    async def thaw(self, tenant_id: int, customer_id: int) -> None:
        """Take charges of this customer again."""
        await self._redis.execute_command("HDEL", self._customer_key(tenant_id, customer_id), "z")

    async def forget(self, generations: int = 4) -> None:
        """Free the dedupe entries of generations that the script no longer reads."""
        for partition in range(self._settings.partitions):
            prefix = partitions.prefix(partition)
            current = redis.text(await self._redis.execute_command("HGET", f"{prefix}:m", "generation"))
            if current is None:
                continue
            for generation in range(int(current) - 1 - generations, int(current) - 1):
                keys = [f"{prefix}:d:{generation}:{bucket}" for bucket in range(_BUCKETS)]
                await self._redis.execute_command("UNLINK", *keys)

    async def initialize(self) -> None:
        """Give an empty till this installation's epoch. Raises Unavailable when a partition already belongs to another."""
        for partition in range(self._settings.partitions):
            key = f"{partitions.prefix(partition)}:m"
            await self._redis.execute_command("HSETNX", key, "epoch", self._settings.epoch)
        await self.check_epoch()

    async def check_epoch(self) -> None:
        """Raise Unavailable unless every partition carries this installation's epoch."""
        for partition in range(self._settings.partitions):
            found = await self._redis.execute_command("HGET", f"{partitions.prefix(partition)}:m", "epoch")
            if found != self._settings.epoch.encode():
                raise _wrong_epoch(f"partition {partition} holds {found!r}")

    async def sequences(self) -> list[int]:
        """The last log sequence of each partition."""
        found = [
            await self._redis.execute_command("HGET", f"{partitions.prefix(partition)}:m", "seq")
            for partition in range(self._settings.partitions)
        ]
        return [int(redis.text(value) or 0) for value in found]

    async def drain(self) -> None:
        """Wait for all calls that have begun."""
        await self._lane.drain()

    def _prefix(self, tenant_id: int, customer_id: int) -> str:
        return partitions.prefix(partitions.of(tenant_id, customer_id, self._settings.partitions))

    def _customer_key(self, tenant_id: int, customer_id: int) -> str:
        return f"{self._prefix(tenant_id, customer_id)}:c:{customer_id}"

    async def _raise_version(self, key: str, field: str, version: int) -> None:
        await self._redis.execute_command("EVAL", _RAISE_VERSION, 1, key, field, str(version))

    async def _send(self, charges: Sequence[Charge]) -> list[Receipt]:
        by_partition: dict[int, list[Charge]] = {}
        places: dict[int, list[int]] = {}
        for place, charge in enumerate(charges):
            by_partition.setdefault(charge.partition, []).append(charge)
            places.setdefault(charge.partition, []).append(place)
        reply = await self._call(by_partition)
        receipts: list[Receipt | None] = [None] * len(charges)
        for partition, (_sequence, accepted_at_ms, *results) in zip(by_partition, reply, strict=True):
            assert isinstance(accepted_at_ms, int)
            for place, result in zip(places[partition], results, strict=True):
                receipts[place] = commands.receipt(charges[place], cast("list[object]", result), accepted_at_ms)
        return [receipt for receipt in receipts if receipt is not None]

    async def _call(self, by_partition: Mapping[int, Sequence[Charge]]) -> list[list[object]]:
        keys = [partitions.prefix(partition) for partition in by_partition]
        arguments = [commands.pack(charges) for charges in by_partition.values()]
        started = time.perf_counter()
        try:
            reply = await self._evaluate(len(keys), *keys, self._settings.epoch, self._settings.hot_window_s, *arguments)
        except redis.RedisError as error:
            raise _unavailable(error) from error
        self._observe(sum(map(len, by_partition.values())), time.perf_counter() - started)
        return commands.unpack(reply)

    async def _evaluate(self, *arguments: redis.Word) -> bytes:
        try:
            reply = await self._redis.execute_command("EVALSHA", _SCRIPT_SHA, *arguments)
        except redis.NoScriptError:
            reply = await self._redis.execute_command("EVAL", _SCRIPT, *arguments)
        assert isinstance(reply, bytes)
        return reply


_RAISE_VERSION = b"""
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if tonumber(ARGV[2]) > known then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
"""


def _pools(fields: Mapping[bytes, bytes]) -> dict[str, PoolState]:
    names = [name for name in fields if name not in (b"v", b"z") and not name.endswith(b".o")]
    return {name.decode(): PoolState(int(fields.get(name + b".o", b"0")), int(fields[name])) for name in names}


def _unavailable(error: Exception) -> errors.Unavailable:
    if str(error).startswith("EPOCH"):
        return _wrong_epoch(str(error))
    return errors.Unavailable("till_unavailable", f"Redis did not answer ({type(error).__name__}); send the same ids again.")


def _wrong_epoch(found: str) -> errors.Unavailable:
    return errors.Unavailable(
        "till_unknown",
        f"Redis does not hold this installation's till ({found}). Usage is refused until `tallybook rebuild` has run.",
        retry_after_s=30,
    )


__all__ = ["Charge", "CustomerView", "Outcome", "PoolState", "Receipt", "Till", "TillSettings"]

"""The till: charges go in, receipts come out, and a receipt is only given for what is on disk (Redis runs `appendfsync always`)."""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TypeVar, cast

from tallybook.charge import commands, fence, identities, states
from tallybook.charge.commands import Answer, Charge, Outcome, Receipt
from tallybook.charge.fence import AskBook, Claim, Fence
from tallybook.charge.lane import Lane, LaneLimits
from tallybook.charge.lanes import Lanes, Settled
from tallybook.charge.views import CustomerView, PoolState, Views, Wanted
from tallybook.core import errors, failpoints, partitions, usage_log
from tallybook.storage import redis

_PARTS = ("bytes.lua", "amounts.lua", "pools.lua", "charge.lua")
_SCRIPT = b"\n".join(resources.files("tallybook.charge").joinpath(name).read_bytes() for name in _PARTS)
_CHANGE_STATE = resources.files("tallybook.charge").joinpath("states.lua").read_bytes()
_SCRIPT_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()

Reply = TypeVar("Reply")
ObserveCall = Callable[[int, float], None]
"""Told after each call: how many charges it carried and how many seconds it took."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What Redis uses and may use, in bytes; `most` 0: nobody said how much it may."""

    used: int
    most: int


@dataclass(frozen=True, slots=True)
class TillSettings:
    """What identifies the till of this installation, and how long it remembers identities (1 to 2 times the hot window)."""

    epoch: str
    partitions: int
    hot_window_s: int
    lane: LaneLimits = field(default_factory=LaneLimits)


class Till:
    """The till of one installation, seen from one process."""

    def __init__(
        self,
        client: redis.Redis,
        settings: TillSettings,
        observe: ObserveCall = lambda _count, _seconds: None,
        ask_book: AskBook | None = None,
    ) -> None:
        """Without `ask_book` the till is only compared with what this process was told itself."""
        self._redis = client
        self._settings = settings
        self._observe = observe
        self._fence = Fence(client, Claim(settings.epoch, [0] * settings.partitions), ask_book)
        self._lane = (
            Lanes(self._send_apart, settings.lane, self._server_of) if client.is_cluster else Lane(self._send, settings.lane)
        )
        self._views = Views(client, settings.lane)

    @property
    def depth(self) -> int:
        """Charges waiting or in flight."""
        return self._lane.depth

    async def charge(self, charges: Sequence[Charge]) -> list[Receipt]:
        """Settle charges: same length, same order; each on disk before this returns.

        Raises RateLimited when the queue is full and Unavailable when the till can't be reached, is not this installation's or did not
        answer; then it is not known what was recorded, and sending the same identities again is safe.
        """
        return await (self._lane.charge(charges) if isinstance(self._lane, Lanes) else self._lane.ask(charges))

    async def settle(self, charges: Sequence[Charge]) -> Sequence[Settled]:
        """As `charge`, but on a cluster with the error in the places of those that are not known, unless nothing is known of any."""
        return await (self._lane.settle(charges) if isinstance(self._lane, Lanes) else self._lane.ask(charges))

    @property
    def hot_window_s(self) -> int:
        """How long the till remembers an identity at least."""
        return self._settings.hot_window_s

    @property
    def epoch(self) -> str:
        """The epoch that the till must have; another one after it was made anew."""
        return self._fence.epoch

    @property
    def fails_apart(self) -> bool:
        """Partitions may be away by themselves: the till is on a cluster."""
        return self._redis.is_cluster

    def partition_of(self, tenant_id: int, customer_id: int) -> int:
        """Where a customer's pools and log entries are."""
        return partitions.of(tenant_id, customer_id, self._settings.partitions)

    async def tick(self, partition: int) -> int:
        """Append an entry that changes nothing. Returns its sequence: what was accepted before has a lower one."""
        record = usage_log.Record(usage_log.Kind.TICK, 0, 0, b"", "", 0)
        answers = await self._call({partition: commands.pack([Charge(partition, record, 0)])}, 1)
        return answers[0][0]

    async def bump_terms(self, tenant_id: int, customer_id: int | None, version: int) -> None:
        """Tell the till that older terms are stale, for one customer or (None) for all of a tenant. Never lowers a version."""
        if customer_id is None:
            await self._write("tenant", range(self._settings.partitions), states.tenant_field(tenant_id), version)
        else:
            await self._write(
                "customer", [self.partition_of(tenant_id, customer_id)], states.customer_field(customer_id), version
            )

    async def read(self, tenant_id: int, customer_id: int) -> CustomerView:
        """What is left in each of a customer's pools now. Raises Unavailable when this is not the till, and RedisError."""
        wanted = Wanted(self.partition_of(tenant_id, customer_id), tenant_id, customer_id)
        await self._fence.check(wanted.partition)
        view = await self._read(wanted)
        if view is None:
            await self._fence.admit_one(wanted.partition)
            view = await self._read(wanted)
        if view is None:
            raise fence.unknown_till("EPOCH it has just changed")
        return view

    async def _read(self, wanted: Wanted) -> CustomerView | None:
        """None when this is not the till, as far as this process knows it, or is older than what it was told."""
        told = self._fence.told[wanted.partition]
        found = await self._views.read(wanted)
        is_till = found.epoch == self.epoch and not found.is_closed and found.view.sequence >= told
        return found.view if is_till else None

    async def freeze(self, tenant_id: int, customer_id: int, reason: str) -> None:
        """Refuse every charge of this customer from now on: its pools do not reconcile. `thaw` undoes it."""
        await self._write("freeze", [self.partition_of(tenant_id, customer_id)], states.customer_field(customer_id), reason)

    async def thaw(self, tenant_id: int, customer_id: int) -> None:
        """Take charges of this customer again."""
        await self._write("thaw", [self.partition_of(tenant_id, customer_id)], states.customer_field(customer_id), "")

    async def forget(self) -> None:
        """Free the identities of generations that the script no longer reads. Raises RedisError when it could not everywhere.

        They are looked for by name: how far back they are nobody knows after a silence.
        """
        prefixes = [partitions.prefix(partition) for partition in range(self._settings.partitions)]
        metas = await self._redis.replies([("HMGET", f"{prefix}:m", "epoch", "generation") for prefix in prefixes])
        problems = [meta for meta in metas if isinstance(meta, redis.RedisError)]
        ours = self.epoch.encode()
        oldest = {
            prefix.encode(): int(meta[1]) - 1
            for prefix, meta in zip(prefixes, metas, strict=True)
            if not isinstance(meta, redis.RedisError) and meta[0] == ours and meta[1] is not None
        }
        for server in await self._redis.servers():
            try:
                await _forget_on(server, oldest)
            except redis.RedisError as problem:
                problems.append(problem)
        if problems:
            raise problems[0]

    async def initialize(self) -> None:
        """Give an empty till this installation's epoch. Raises Unavailable when a partition already belongs to another."""
        await self._fence.begin()

    async def check(self) -> None:
        """Compare the till with the book. Raises Unavailable unless it is this installation's and whole, and may be charged.

        On a cluster it is enough that this is so of one server: the others' partitions are refused, or away, by themselves.
        """
        await self._fence.admit()

    async def sequences(self) -> list[int]:
        """The last log sequence of each partition."""
        asked = [("HGET", f"{partitions.prefix(partition)}:m", "seq") for partition in range(self._settings.partitions)]
        return [int(redis.text(value) or 0) for value in await self._redis.pipeline(*asked, atomic=False)]

    @property
    def booked(self) -> Sequence[int]:
        """By partition, how far the book had read at the last `check` that it answered."""
        return self._fence.booked

    @property
    def is_refused(self) -> bool:
        """Whether Redis, or one server of it, is known not to be this installation's whole till."""
        return bool(self._fence.refusals)

    async def written(self) -> list[int]:
        """The last log sequence of each partition, as far as it is known where its server is away. Raises RedisError when all are."""
        asked = [("HGET", f"{partitions.prefix(partition)}:m", "seq") for partition in range(self._settings.partitions)]
        found = await self._redis.replies(asked)
        if all(isinstance(reply, Exception) for reply in found):
            raise found[0]
        told, refused = self._fence.told, self._fence.refusals
        return [
            told[number] if isinstance(reply, Exception) or number in refused else int(redis.text(reply) or 0)
            for number, reply in enumerate(found)
        ]

    async def memory(self) -> Memory:
        """How full Redis is; of a cluster, that server of those that answer which is fullest."""
        found = [redis.info(reply) for reply in await redis.everywhere(self._redis, "INFO", "memory")]
        used = [Memory(int(one.get("used_memory", 0)), int(one.get("maxmemory", 0))) for one in found]
        return max(used, key=lambda one: (one.used / one.most if one.most else 0.0, one.used))

    async def drain(self) -> None:
        """Wait for all calls that have begun."""
        await self._lane.drain()

    async def _write(self, verb: str, numbers: Sequence[int], field: str, value: redis.Word) -> None:
        """Change a field of the states as `states.lua` says, if the partitions are this installation's. Raises Unavailable and RedisError.

        A cluster does it partition by partition, and perhaps only to some before it raises; to do it again is harmless.
        """
        prefixes = [partitions.prefix(number) for number in numbers]
        groups = self._redis.together(prefixes)
        lots = [[numbers[place] for place in places] for places in groups]
        outcomes = await asyncio.gather(*(self._write_one(lot, (verb, field, value)) for lot in lots), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _write_one(self, numbers: Sequence[int], words: tuple[redis.Word, ...]) -> None:
        prefixes = [partitions.prefix(number) for number in numbers]
        for is_last in (False, True):
            try:
                await self._redis.execute_command("EVAL", _CHANGE_STATE, len(prefixes), *prefixes, self.epoch, *words)
            except redis.ResponseError as error:
                if is_last:
                    raise fence.unanswered(error) from error
                await self._fence.resolve(error, numbers[0])
            else:
                return

    async def _send(self, charges: Sequence[Charge]) -> list[Receipt]:
        by_partition: dict[int, list[int]] = {}
        for place, charge in enumerate(charges):
            by_partition.setdefault(charge.partition, []).append(place)
        packed = {number: commands.pack([charges[place] for place in places]) for number, places in by_partition.items()}
        answers = await self._call(packed, len(charges))
        receipts: list[Receipt | None] = [None] * len(charges)
        for places, answer in zip(by_partition.values(), answers, strict=True):
            for place, receipt in zip(places, commands.receipts([charges[place] for place in places], answer), strict=True):
                receipts[place] = receipt
        return cast("list[Receipt]", receipts)

    async def _send_apart(self, charges: Sequence[Charge]) -> list[Settled]:
        """On a cluster: a script for each partition, all sent together. Each partition's charges are settled, or told what is wrong."""
        started = time.perf_counter()
        by_partition: dict[int, list[Charge]] = {}
        for charge in charges:
            by_partition.setdefault(charge.partition, []).append(charge)
        packed = {number: commands.pack(lot) for number, lot in by_partition.items()}
        answers = dict(zip(packed, await self._charge_apart(packed), strict=True))
        settled = {number: iter(_settled(by_partition[number], answer)) for number, answer in answers.items()}
        self._observe(len(charges), time.perf_counter() - started)
        return [next(settled[charge.partition]) for charge in charges]

    async def _charge_apart(self, packed: Mapping[int, tuple[bytes, bytes]]) -> list[Answer | errors.TallybookError]:
        epoch, told, window = self.epoch, self._fence.told, self.hot_window_s
        calls: list[tuple[redis.Word, ...]] = [
            ("EVALSHA", _SCRIPT_SHA, 1, partitions.prefix(number), epoch, window, *arguments, told[number])
            for number, arguments in packed.items()
        ]
        try:
            replies = await _between_failpoints(self._redis.replies(calls))
        except redis.RedisError as error:
            raise fence.unanswered(error) from error
        answers: list[Answer | errors.TallybookError] = []
        for number, reply in zip(packed, replies, strict=True):
            if isinstance(reply, redis.RedisError):
                answers.append(await self._charge_alone(number, packed[number], reply))
            else:
                answers += (answer := commands.unpack(reply))
                self._fence.note(epoch, number, answer[0][0])
        return answers

    async def _charge_alone(
        self, number: int, arguments: tuple[bytes, bytes], refused: redis.RedisError
    ) -> Answer | errors.TallybookError:
        """A partition whose script was refused: it is called again when that was resolved, and is told what is wrong when it can't be."""
        try:
            if isinstance(refused, redis.NoScriptError):
                return (await self._charge_resolved({number: arguments}))[0]
            await self._fence.resolve(refused, number)
            return (await self._charge_again({number: arguments}))[0]
        except errors.TallybookError as problem:
            return problem

    def _server_of(self, partition: int) -> str:
        return self._redis.server_of(partitions.prefix(partition))

    async def _call(self, packed: Mapping[int, tuple[bytes, bytes]], count: int) -> list[Answer]:
        started = time.perf_counter()
        answers = await self._charge_resolved(packed)
        self._observe(count, time.perf_counter() - started)
        return answers

    async def _charge_resolved(self, packed: Mapping[int, tuple[bytes, bytes]]) -> list[Answer]:
        try:
            return await self._charge_partitions(packed)
        except redis.RedisError as error:
            await self._fence.resolve(error, next(iter(packed)))
            return await self._charge_again(packed)

    async def _charge_partitions(self, packed: Mapping[int, tuple[bytes, bytes]]) -> list[Answer]:
        epoch, told = self.epoch, self._fence.told
        keys = [partitions.prefix(number) for number in packed]
        words = [word for number, arguments in packed.items() for word in (*arguments, told[number])]
        answers = commands.unpack(await _between_failpoints(self._evaluate(len(keys), *keys, epoch, self.hot_window_s, *words)))
        for number, answer in zip(packed, answers, strict=True):
            self._fence.note(epoch, number, answer[0])
        return answers

    async def _charge_again(self, packed: Mapping[int, tuple[bytes, bytes]]) -> list[Answer]:
        """After a refusal that was resolved: the script has written nothing, and now knows us."""
        try:
            return await self._charge_partitions(packed)
        except redis.RedisError as error:
            raise fence.unanswered(error) from error

    async def _evaluate(self, *arguments: redis.Word) -> bytes:
        try:
            reply = await self._redis.execute_command("EVALSHA", _SCRIPT_SHA, *arguments)
        except redis.NoScriptError:
            reply = await self._redis.execute_command("EVAL", _SCRIPT, *arguments)
        assert isinstance(reply, bytes)
        return reply


async def _forget_on(server: redis.Redis, oldest: Mapping[bytes, int]) -> None:
    """Free what is older than the oldest generation that is still read, by the prefix of its partition."""
    async for keys in redis.scan(server, identities.KEYS):
        old: dict[bytes, list[bytes]] = defaultdict(list)
        for key in keys:
            place = identities.generation_of(key)
            if place is not None and place[0] in oldest and place[1] < oldest[place[0]]:
                old[place[0]].append(key)
        for some in old.values():
            await server.execute_command("UNLINK", *some)


async def _between_failpoints(asking: Awaitable[Reply]) -> Reply:
    """What the till answers; an API process can be told to die before it asks and when it has the answer."""
    failpoints.reach("charge.before_script")
    reply = await asking
    failpoints.reach("charge.after_script")
    return reply


def _settled(charges: Sequence[Charge], answer: Answer | errors.TallybookError) -> Sequence[Settled]:
    return [answer] * len(charges) if isinstance(answer, errors.TallybookError) else commands.receipts(charges, answer)


__all__ = ["Charge", "CustomerView", "Outcome", "PoolState", "Receipt", "Till", "TillSettings"]

"""The real till: a Redis of its own that can be killed, two processes' views of it, and a book that its log is rolled up into."""

# pyright: reportPrivateUsage=false
# The driver of the client is wrapped, where no caller could.

import asyncio
from collections import Counter
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from unittest import mock

import pytest

from tallybook.charge import commands, states
from tallybook.charge.till import Charge, CustomerView, PoolState, Receipt, Till, TillSettings
from tallybook.core import clock, errors, partitions
from tallybook.embedded import folders
from tallybook.embedded.redis_server import RedisServer
from tallybook.flows import reconcile
from tallybook.rollup import actions, decoding, log_reader, store
from tallybook.rollup.decoding import Decoded
from tallybook.storage import postgres, redis

PARTITIONS = 2
PROCESSES = 2
HOT_WINDOW_S = 3600
START_MS = 4_000_000_000_000
"""In 2096: later than the machine's own time, so that the till's time is exactly what the test says it is."""
_EPOCH = "epoch-of-properties"
_TABLES = "log_offsets, usage_events, usage_hourly, pool_balances, pool_ledger, quarantine"
_EVERYTHING = b"""
local found = {}
for _, key in ipairs(redis.call('KEYS', '{p*')) do
    local kind, row = string.match(key, '^{p%d+}:(%a+)'), {key}
    if kind == 'm' then
        row[2] = redis.call('HGET', key, 'seq') or '0'
    elseif kind == 'd' then
        row[2] = tostring(redis.call('HLEN', key))
    elseif kind == 'c' then
        for _, word in ipairs(redis.call('HGETALL', key)) do row[#row + 1] = word end
    end
    found[#found + 1] = row
end
return found
"""
_COUNTED = "SELECT digest, count(*) AS times FROM usage_events WHERE kind IN (0, 5) GROUP BY digest"
_ADMITTED_ATTEMPTS = 20
_ROWS_MAX = 2
"""So that small calls meet both forms of the log."""
_PATIENCE_S = 600.0
"""Of a client: on a busy machine a disk may take its time, and that is no difference."""

Lost = Literal["", "before", "after"]
Result = TypeVar("Result")


class LosingRedis(redis.Redis):
    """Loses the next call of a script on its way there, or its answer on the way back."""

    lose: Lost = ""

    async def execute_command(self, *words: redis.Word) -> Any:  # noqa: ANN401 - as in the base class
        """As it is, unless something is to be lost."""
        lost, self.lose = self.lose, ""
        if lost == "before":
            raise redis.ConnectionLostError("lost on its way there")
        try:
            reply = await super().execute_command(*words)
        except redis.NoScriptError:  # nothing was done: the script is sent with the next command
            self.lose = lost
            raise
        if lost == "after":
            raise redis.ConnectionLostError("lost on its way back")
        return reply


@dataclass(frozen=True, slots=True)
class BookedPool:
    """What the book says of a pool."""

    left: int
    closed: bool


@dataclass(slots=True)
class Sight:
    """All that can be seen of a till but its logs. What is 0 or nothing counts as not there."""

    sequences: Counter[int] = field(default_factory=Counter[int])
    tenant_versions: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    """By partition and tenant."""
    versions: dict[int, int] = field(default_factory=dict[int, int])
    frozen: dict[int, str] = field(default_factory=dict[int, str])
    pools: dict[tuple[int, str], PoolState] = field(default_factory=dict[tuple[int, str], PoolState])
    remembered: Counter[tuple[int, int]] = field(default_factory=Counter[tuple[int, int]])
    """Identities by partition and generation."""

    def of_something(self) -> Self:
        """Without what is as good as not there."""
        for name in ("sequences", "tenant_versions", "versions", "frozen", "remembered"):
            setattr(self, name, {key: value for key, value in getattr(self, name).items() if value})
        self.pools = {key: state for key, state in self.pools.items() if state != PoolState(0, 0)}
        return self


class World:
    """Everything real. All calls run on an event loop of its own."""

    def __init__(self, server: RedisServer, postgres_url: str) -> None:
        self._server = server
        self._runner = asyncio.Runner()
        self._database = self.run(postgres.connect(postgres_url))
        self._clients: list[LosingRedis] = []
        self._tills: list[Till] = []
        self.kills = 0

    def run(self, doing: Coroutine[Any, Any, Result]) -> Result:
        """Wait for something."""
        return self._runner.run(doing)

    def close(self) -> None:
        """End all connections."""
        self.run(self._disconnect())
        self.run(self._database.close())
        self._runner.close()

    def begin(self) -> None:
        """An empty till and an empty book, at START_MS."""
        self.run(self._begin())

    def charge(self, process: int, charges: Sequence[Charge], lose: Lost = "") -> list[Receipt] | None:
        """One call of a process; None when the call or its answer was lost."""
        return self.run(self._charge(process, charges, lose))

    def charge_and_kill(self, process: int, charges: Sequence[Charge], turns: int) -> list[Receipt] | None:
        """The same, and Redis is killed while the call is under way: `turns` of the event loop after it began."""
        return self.run(self._charge_and_kill(process, charges, turns))

    def set_time(self, now_ms: int) -> None:
        """Let the till's clock be there."""
        words = ("now_ms", str(now_ms))
        self.run(self._all(*[("HSET", f"{prefix}:m", *words) for prefix in _prefixes()]))

    def look(self) -> Sight:
        """All that can be seen of the till but its logs, at one moment."""
        return self.run(self._look())

    def read(self, customers: Mapping[int, int]) -> dict[int, CustomerView]:
        """What the till itself says of customers, given with their tenants."""
        return self.run(self._read(customers))

    def log_after(self, partition: int, seq: int, until: int) -> Decoded:
        """What the log holds beyond a sequence, as the rollup reads it; its entries must be dense."""
        entries = self.run(log_reader.read_between(self._clients[0], partition, seq, until))
        assert [entry.seq for entry in entries] == list(range(seq + 1, until + 1)), "the log is not dense"
        return decoding.decode(entries)

    def do(self, process: int, verb: str, *arguments: Any) -> Any:  # noqa: ANN401 - any method of the till
        """Call a method of a process's till."""
        return self.run(getattr(self._tills[process], verb)(*arguments))

    def roll_up(self, now_ms: int) -> list[int]:
        """Bring the whole log into the book. Returns the book's offsets."""
        return self.run(self._roll_up(now_ms))

    def booked_pools(self) -> dict[tuple[int, str], BookedPool]:
        """All pools of the book, by customer and name."""
        rows = self.run(self._database.fetch("SELECT customer_id, pool, balance, closed FROM pool_balances"))
        return {(row["customer_id"], row["pool"]): BookedPool(int(row["balance"]), row["closed"]) for row in rows}

    def booked_events(self) -> Counter[bytes]:
        """How often the book has each identity as usage, voids included."""
        rows = self.run(self._database.fetch(_COUNTED))
        return Counter({row["digest"]: row["times"] for row in rows})

    def reconciles(self) -> str:
        """What `tallybook reconcile` finds different; empty when nothing is."""
        report = self.run(reconcile.reconcile(self._database, self._clients[0], PARTITIONS))
        return "" if report.is_clean else repr(report)

    async def _begin(self) -> None:
        if not self._clients:
            self._connect()
        await self._clients[0].execute_command("FLUSHALL")
        await self._database.execute(f"TRUNCATE {_TABLES}")
        await store.ensure_offsets(self._database, PARTITIONS)
        self._tills = [Till(client, TillSettings(_EPOCH, PARTITIONS, HOT_WINDOW_S)) for client in self._clients]
        await self._tills[0].initialize()
        await self._all(*[("HSET", f"{prefix}:m", "now_ms", str(START_MS)) for prefix in _prefixes()])

    async def _charge(self, process: int, charges: Sequence[Charge], lose: Lost) -> list[Receipt] | None:
        self._clients[process].lose = lose
        if not lose:
            return await self._tills[process].charge(charges)
        with pytest.raises(errors.Unavailable) as lost:
            await self._tills[process].charge(charges)
        assert lost.value.code == "till_unavailable"
        return None

    async def _charge_and_kill(self, process: int, charges: Sequence[Charge], turns: int) -> list[Receipt] | None:
        call = asyncio.create_task(self._tills[process].charge(charges))
        for _ in range(turns):
            await asyncio.sleep(0)
        self.kills += 1
        self._server.child.kill()
        try:
            receipts = await call
        except errors.Unavailable:
            receipts = None
        self._server.start()
        for till in self._tills:
            await _admitted(till)
        return receipts

    async def _read(self, customers: Mapping[int, int]) -> dict[int, CustomerView]:
        views = [await self._tills[0].read(tenant_id, customer_id) for customer_id, tenant_id in customers.items()]
        return dict(zip(customers, views, strict=True))

    async def _look(self) -> Sight:
        reply: list[list[bytes]] = await self._clients[0].execute_command("EVAL", _EVERYTHING, 0)
        sight = Sight()
        for key, *content in reply:
            tag, kind, *names = key.split(b":", 3)
            _see(sight, int(tag.strip(b"{p}")), kind, names, content)
        return sight

    async def _roll_up(self, now_ms: int) -> list[int]:
        now = clock.from_ms(now_ms)
        while (await actions.roll_up(self._database, self._clients[0], range(PARTITIONS), now, _EPOCH)).more:
            pass
        read = await store.offsets(self._database, range(PARTITIONS))
        return [read[partition] for partition in range(PARTITIONS)]

    async def _all(self, *commands: tuple[redis.Word, ...]) -> list[Any]:
        return await self._clients[0].pipeline(*commands, atomic=False) if commands else []

    def _connect(self) -> None:
        self._clients = [LosingRedis(redis.connect(self._server.url, timeout_s=_PATIENCE_S)._client) for _ in range(PROCESSES)]

    async def _disconnect(self) -> None:
        for client in self._clients:
            await client.close()


def _see(sight: Sight, partition: int, kind: bytes, names: Sequence[bytes], content: Sequence[bytes]) -> None:
    """Add what one key says."""
    if kind == b"m":
        sight.sequences[partition] = int(content[0] or 0)
    elif kind == b"d":
        sight.remembered[partition, int(names[0])] += int(content[0])
    elif kind == b"c":
        for name, text in zip(content[::2], content[1::2], strict=True):
            if not states.is_customer(name):
                sight.tenant_versions[partition, int(name[1:])] = int(text)
                continue
            state, customer_id = states.read(text), int(name)
            sight.versions[customer_id], sight.frozen[customer_id] = state.version, state.frozen or ""
            sight.pools |= {(customer_id, pool): PoolState(one.opening or 0, one.left) for pool, one in state.pools.items()}


async def _admitted(till: Till) -> None:
    """Connections of a killed server break once each; then the till is compared and charged again."""
    for attempt in range(1, _ADMITTED_ATTEMPTS + 1):
        try:
            await till.check()
        except errors.Unavailable:
            if attempt == _ADMITTED_ATTEMPTS:
                raise
        else:
            return


def _prefixes() -> list[str]:
    return [partitions.prefix(partition) for partition in range(PARTITIONS)]


@contextmanager
def opened(folder: Path, postgres_url: str) -> Generator[World]:
    """A world with a Redis in this folder; it is stopped at the end."""
    data = folders.make(folder)
    sockets = folders.sockets(data)
    server = RedisServer(data, sockets)
    server.start()
    try:
        world = World(server, postgres_url)
        try:
            with mock.patch.object(commands, "ROWS_MAX", _ROWS_MAX):
                yield world
        finally:
            world.close()
    finally:
        server.stop()
        folders.discard_sockets(sockets)

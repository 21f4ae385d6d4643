"""Where the microseconds go: CPU time of each step an event takes, in one process, step by step.

Steps of Python are timed by this process's CPU clock, steps of a store by the store's. The sum of the API's steps is less than what
an API process spends on an event: the rest is the HTTP server, the event loop and the driver of Redis.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import orjson

from benchmarks import prepared, stores
from benchmarks.installation import Installation
from benchmarks.processes import cpu_s
from tallybook.charge import commands
from tallybook.charge.commands import Charge, Receipt
from tallybook.core import clock
from tallybook.entrypoints.http.resources import usage_wire
from tallybook.flows.price_event import PricedEvent
from tallybook.flows.usage import Settled
from tallybook.rollup import aggregate, decoding, store
from tallybook.rollup.model import Effects
from tallybook.storage import postgres

T = TypeVar("T")
_EVENTS = 20_000
_REPEATS = 3
_UPSERTS = 8


async def measure(installation: Installation, workload: str = "W2") -> Mapping[str, float]:
    """CPU microseconds an event, by step."""
    found: dict[str, float] = {}

    def step(name: str, work: Callable[[], T], repeats: int = _REPEATS) -> T:
        result, found[name] = _least_cpu_us(work, repeats)
        return result

    services = installation.services
    ready = await prepared.ready(installation, workload, _EVENTS)
    batches = step("receive", ready.parse)
    priced = step("price", lambda: ready.price(services, batches))
    calls = prepared.calls(priced)
    step("pack", lambda: [commands.pack(charges) for call in calls for charges in call.values()])
    script = await stores.run_script(installation, calls, _REPEATS)
    found["script"] = script.cpu_us
    receipts = step("unpack", lambda: [_receipts(call, reply) for call, reply in zip(calls, script.replies, strict=True)])
    settled = _settled(priced, {digest: receipt for some in receipts for digest, receipt in some.items()})
    step("encode", lambda: [orjson.dumps(usage_wire.batch(batch, livemode=True)) for batch in settled])
    step("rollup_decode", lambda: decoding.decode(script.entries))
    effects = step("rollup_effects", lambda: aggregate.effects(script.entries, clock.real_clock()))
    found["rollup_aggregate"] = found.pop("rollup_effects") - found["rollup_decode"]
    copied = await stores.run_copy(installation, effects.events_csv, effects.events, _REPEATS)
    found["copy"] = copied.cpu_us
    found["upserts"] = await _upserts(installation, effects)
    return {**found, "log_bytes": sum(len(entry.data) for entry in script.entries) / _EVENTS}


def _least_cpu_us(work: Callable[[], T], repeats: int) -> tuple[T, float]:
    """The result, and the least CPU time of some repeats: what is above it is other processes' doing."""
    least = float("inf")
    while True:
        started = time.process_time()
        result = work()
        least = min(least, time.process_time() - started)
        repeats -= 1
        if not repeats:
            return result, least / _EVENTS * 1e6


def _receipts(call: Mapping[int, list[Charge]], reply: bytes) -> dict[bytes, Receipt]:
    found: dict[bytes, Receipt] = {}
    for charges, (_sequence, accepted_at_ms, *results) in zip(call.values(), commands.unpack(reply), strict=True):
        for charge, result in zip(charges, results, strict=True):
            found[charge.record.digest] = commands.receipt(charge, cast("list[object]", result), cast("int", accepted_at_ms))
    return found


def _settled(priced: list[list[PricedEvent]], receipts: Mapping[bytes, Receipt]) -> list[list[Settled]]:
    return [[Settled(one, receipts[one.charge.record.digest]) for one in batch] for batch in priced]


class _Undone(Exception):
    """Ends a transaction whose effects are not wanted."""


async def _upserts(installation: Installation, effects: Effects) -> float:
    """Postgres' CPU time for hourly totals, pools and ledger of these events, on rows that are there already."""
    pid, spent = installation.stores.postgres.child.pid, 0.0
    sums = dataclasses.replace(effects, events=0, events_csv=b"")
    try:
        async with postgres.transaction(installation.services.database) as connection:
            await store.write(connection, sums)
            before = cpu_s(pid)
            for _ in range(_UPSERTS):
                await store.write(connection, sums)
            spent = cpu_s(pid) - before
            raise _Undone
    except _Undone:
        return spent / _UPSERTS / effects.events * 1e6

"""Where the microseconds go: CPU time of each step an event takes, in one process, step by step.

Steps of Python are timed by this process's CPU clock, steps of a store by the store's. The sum of the API's steps is less than what
an API process spends on an event: the rest is the HTTP server, the event loop and the driver of Redis.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from benchmarks import prepared, stores
from benchmarks.installation import Installation
from benchmarks.processes import cpu_s
from tallybook.charge import commands
from tallybook.core import clock, usage_log
from tallybook.entrypoints.http.resources import usage_wire
from tallybook.flows.usage import Settled
from tallybook.rollup import aggregate, plain_usage, store
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

    services, encode = installation.services, msgspec.json.Encoder().encode
    ready = await prepared.ready(installation, workload, _EVENTS)
    batches = step("receive", ready.parse)
    priced = step("price", lambda: ready.price(services, batches))
    charges = prepared.charges(priced)
    step("pack", lambda: [commands.pack(group) for group in prepared.by_partition(charges)])
    script = await stores.run_script(installation, charges, _REPEATS)
    found["script"] = script.cpu_us
    found["send_and_unpack"] = script.client_us - found["pack"]
    receipts = iter(script.receipts)
    settled = [[Settled(one, next(receipts)) for one in batch] for batch in priced]
    step("encode", lambda: [encode(usage_wire.batch(batch, livemode=True)) for batch in settled])
    steady, now = [entry for entry in script.entries if not usage_log.decode_entry(entry.data).openings], clock.real_clock()
    step("rollup_decode", lambda: plain_usage.read(steady, now))
    effects = step("rollup_effects", lambda: aggregate.effects(steady, now))
    found["rollup_aggregate"] = found.pop("rollup_effects") - found["rollup_decode"]
    for name in ("rollup_decode", "rollup_aggregate"):
        found[name] *= _EVENTS / effects.events  # those of a customer's first call are not among them
    copied = await stores.run_copy(installation, effects.event_rows, effects.events, _REPEATS)
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


class _Undone(Exception):
    """Ends a transaction whose effects are not wanted."""


async def _upserts(installation: Installation, effects: Effects) -> float:
    """Postgres' CPU time for hourly totals, pools and ledger of these events, on rows that are there already."""
    sums, spent = dataclasses.replace(effects, events=0, event_rows=b""), 0.0
    with contextlib.suppress(_Undone):
        async with postgres.transaction(installation.services.database) as connection:
            await store.write(connection, sums)
            before = cpu_s(installation.postgres_pid)
            for _ in range(_UPSERTS):
                await store.write(connection, sums)
            spent = cpu_s(installation.postgres_pid) - before
            raise _Undone
    return spent / _UPSERTS / effects.events * 1e6

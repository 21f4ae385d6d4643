"""Postgres down for minutes while usage goes on: nothing is lost, what grows is only the log, and it is drained after.

Usage is of customers that are never refused, so that what is sent is what waits.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tallybook.rollup import log_reader
from tallybook.storage import redis
from tests.crash import ground as grounds
from tests.crash import setting
from tests.crash.ground import Ground, Result, Tell
from tests.crash.load import Load

_WARM_UP_S = 4.0
"""Until every process has met every customer: strangers need Postgres."""
_SAMPLE_S = 1.0
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory in bytes: resident of the API processes together, used by Redis, by its logs alone; their entries; accepted events so far."""

    api: int
    till: int
    log: int
    entries: int
    accepted: int


async def run(folder: Path, *, outage_s: float, rate: float, seed: int, progress: Tell) -> Result:
    """Do this on servers of its own."""
    async with grounds.prepared(folder, seed=seed, apis=2) as ground:
        return await on(ground, outage_s=outage_s, rate=rate, progress=progress)


async def on(ground: Ground, *, outage_s: float, rate: float, progress: Tell) -> Result:
    """Take Postgres away for `outage_s` seconds under `rate` events a second, give it back, and judge."""
    paying = [customer for customer in ground.customers if customer.reference.startswith(setting.NEVER_REFUSED)]
    load = ground.loading(rate=rate, customers=paying)
    async with grounds.loaded(ground):
        await asyncio.sleep(_WARM_UP_S)
        samples = await _without_postgres(ground, load, outage_s, progress)
        failed = load.requests_failed
    began = time.monotonic()
    report = await grounds.judge(ground)
    drained_s = time.monotonic() - began
    notes = [*_memory(samples, await _sample(ground, load)), f"drained_s={drained_s:.1f} requests_failed={failed}"]
    taken = samples[-1].accepted - samples[0].accepted
    problems = [] if taken else ["no event was taken in the outage"]
    return grounds.result(ground, report, problems, notes=notes, outage_s=int(outage_s), rate=int(rate), accepted_in_outage=taken)


async def _without_postgres(ground: Ground, load: Load, outage_s: float, progress: Tell) -> list[Sample]:
    """Kill it, look once a second, start it again. Returns what was seen: the first before, the last at the end of it."""
    samples = [await _sample(ground, load)]
    back = threading.Event()
    target = ground.field.target("postgres")
    target.kill(ground.field.starters, back.wait)
    ends_at = time.monotonic() + outage_s
    while time.monotonic() < ends_at:
        await asyncio.sleep(_SAMPLE_S)
        samples.append(await _sample(ground, load))
        if len(samples) % 60 == 0:
            progress(f"{len(samples)} s: {samples[-1].accepted} accepted, Redis {samples[-1].till / _MB:.0f} MB")
    back.set()
    return samples


async def _sample(ground: Ground, load: Load) -> Sample:
    client = redis.connect(ground.field.settings.redis_url)
    info: bytes = await client.execute_command("INFO", "memory")
    logs = [log_reader.key(partition) for partition in range(ground.field.settings.partitions)]
    sizes = await client.pipeline(*(("MEMORY", "USAGE", log) for log in logs), *(("XLEN", log) for log in logs), atomic=False)
    await client.close()
    used = int(info.partition(b"used_memory:")[2].partition(b"\r")[0])
    resident = sum(_resident(target.child.pid) for target in ground.field.targets if target.kind == "api")
    log, entries = (sum(size or 0 for size in part) for part in (sizes[: len(logs)], sizes[len(logs) :]))
    return Sample(resident, used, log, entries, load.accepted)


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _memory(samples: list[Sample], after: Sample) -> list[str]:
    """Memory before, at its peak and after, in MB; what an event that waits costs Redis, and its log; and how many share an entry."""

    def told(name: str, of: Callable[[Sample], int]) -> str:
        return f"{name}_mb={of(samples[0]) / _MB:.0f}/{max(map(of, samples)) / _MB:.0f}/{of(after) / _MB:.0f}"

    first, last = samples[0], samples[-1]
    waiting = max(1, last.accepted - first.accepted)
    return [
        "before/peak/after: " + told("api", lambda sample: sample.api) + " " + told("redis", lambda sample: sample.till),
        f"redis_bytes_per_waiting_event={(last.till - first.till) / waiting:.0f}"
        f" log_bytes={(last.log - first.log) / waiting:.0f} events_per_entry={waiting / max(1, last.entries - first.entries):.1f}",
    ]

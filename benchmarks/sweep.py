"""`python -m benchmarks.sweep`: how long it takes to find, among a million events of one customer, those that were counted twice.

The events go through pricing, till and rollup of the service itself. Then the till's memory is emptied, as two hot windows empty it, and
the first of them are sent again; nobody but the book can tell. Prints how long the search took, how long search and taking back took, and
exits non-zero unless as many were taken back as were sent again and everything reconciles.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import book, installation, machine, traffic
from benchmarks.installation import Installation, Size
from tallybook.flows import old_ids, reconcile, repeats, usage
from tallybook.flows.usage import Settled, Source
from tallybook.receive import events as receive
from tallybook.rollup import events

_BODIES_AT_ONCE = 5
_PROGRESS_BODIES = 1000


def main() -> int:
    """Measure on stores of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep")
    parser.add_argument("--events", type=int, default=1_000_000, help="in hundreds")
    parser.add_argument("--repeats", type=int, default=1000, help="in hundreds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallybook-sweep-") as name:
        return asyncio.run(_measure(Path(name), given.events // 100, given.repeats // 100))


async def _measure(folder: Path, bodies: int, again: int) -> int:
    async with installation.installed(folder, Size(customers=1)) as made:
        accepted = await _send(made, range(bodies))
        await book.until_level(made.services)
        await _forget_ids(made)
        accepted += await _send(made, range(again))
        await book.until_level(made.services)
        await made.services.database.execute("VACUUM ANALYZE usage_events", timeout=600.0)
        search_s, found = await _search(made)
        began = time.perf_counter()
        await made.services.database.execute("DELETE FROM usage_sweeps")
        swept = await repeats.sweep_if_due(made.services)
        sweep_s = time.perf_counter() - began
        await book.until_level(made.services)
        report = await reconcile.reconcile(made.services.database, made.services.redis, made.services.settings.partitions)
        voided = 0 if swept is None else swept.voided
        print(machine.describe())
        print(
            f"events={accepted} repeated={again * 100} found={found} voided={voided} search_s={search_s:.2f} sweep_s={sweep_s:.2f} "
            f"reconciled={report.is_clean}"
        )
        return 0 if found == voided == again * 100 and report.is_clean else 1


async def _send(made: Installation, numbers: range) -> int:
    """Requests of 100 events of the one customer, by their numbers. Returns how many events were accepted."""
    templates = traffic.templates(traffic.Spec("W4", "sweep", made.account.customers))
    source, accepted = Source(made.account.tenant, is_batch=True), 0
    for start in range(0, len(numbers), _BODIES_AT_ONCE):
        chosen = numbers[start : start + _BODIES_AT_ONCE]
        parsed = [receive.parse_batch(templates[number % len(templates)].next_body(number)) for number in chosen]
        for results in await asyncio.gather(*(usage.track(made.services, source, batch) for batch in parsed)):
            accepted += sum(isinstance(result, Settled) and usage.refusal(result) is None for result in results)
        if start % _PROGRESS_BODIES == 0:
            print(f"{accepted} events", file=sys.stderr, flush=True)
    return accepted


async def _forget_ids(made: Installation) -> None:
    keys = await made.services.redis.execute_command("KEYS", "{p*}:d:*")
    if keys:
        await made.services.redis.execute_command("DEL", *keys)


async def _search(made: Installation) -> tuple[float, int]:
    """Seconds that the database searches for, and how many it finds; nothing is taken back."""
    services = made.services
    since = services.clock() - old_ids.retention(services.settings)
    async with services.database.acquire() as connection:
        [(customer_id, *_rest)] = await events.customers_with_usage(connection, since)
        began = time.perf_counter()
        found = await events.repeats(connection, [customer_id], since)
        return time.perf_counter() - began, len(found)


if __name__ == "__main__":
    sys.exit(main())

"""Whether an event costs the same however many customers are known and however many events are stored.

The traffic never changes: a thousand customers, taken evenly from all that are known, send W2. What changes is what lies around them.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks import book, known, workloads
from benchmarks.book import Acknowledged
from benchmarks.installation import Installation
from benchmarks.workloads import Phase

_ACTIVE = 1000
_WARM_S = 3.0
_BYTES_AN_EVENT = 600
"""Of disk, with its indexes and while the month is made anew."""
_ROLES = ("api", "redis", "worker", "postgres")


class Step(msgspec.Struct, frozen=True):
    """CPU microseconds an event, in all and by process, with so many customers known and events stored."""

    customers: int
    stored: int
    us: float
    by_role: Mapping[str, float]
    eps: float
    others_cores: float


class FlatRun(msgspec.Struct, frozen=True):
    """The steps, and how far apart the dearest and the cheapest of them are; 1.15 is 15 percent."""

    by_customers: list[Step]
    by_events: list[Step]
    skipped: list[int]
    """Numbers of stored events that the disk has no room for."""
    problems: list[str]

    @property
    def customers_ratio(self) -> float:
        """By number of customers."""
        return _ratio(self.by_customers)

    @property
    def events_ratio(self) -> float:
        """By number of stored events."""
        return _ratio(self.by_events)


def _ratio(steps: Sequence[Step]) -> float:
    costs = [step.us for step in steps]
    return max(costs) / min(costs)


@dataclasses.dataclass(frozen=True, slots=True)
class Steps:
    """What is stepped through, and how long each step is loaded, how often; the cheapest repeat counts, the others were disturbed."""

    customers: Sequence[int]
    events: Sequence[int]
    phase_s: float
    repeats: int


LONG = Steps((1_000, 100_000, 1_000_000), (1_000_000, 10_000_000, 50_000_000), phase_s=6.0, repeats=2)
SHORT = Steps((1_000, 5_000), (50_000, 200_000), phase_s=2.0, repeats=1)


async def measure(installation: Installation, plan: Steps, folder: Path, tell: Callable[[str], None]) -> FlatRun:
    """All steps, one after the other on one installation. It reconciles before events are written straight into the book."""
    told = Acknowledged()
    by_customers: list[Step] = []
    for wanted in plan.customers:
        tell(f"flat: {wanted:,} customers")
        made = wanted - (by_customers[-1].customers if by_customers else len(installation.account.customers))
        await known.customers(installation, wanted)
        told.events += max(made, 0)
        by_customers.append(await _step(installation, plan, told, f"c{wanted}"))
    tell("flat: comparing everything with everything")
    problems = await book.judge(installation.services, installation.account.tenant, told)
    by_events: list[Step] = []
    skipped: list[int] = []
    for wanted in plan.events:
        if shutil.disk_usage(folder).free < wanted * _BYTES_AN_EVENT:
            skipped.append(wanted)
            continue
        tell(f"flat: {wanted:,} events")
        await known.events(installation, wanted)
        by_events.append(await _step(installation, plan, told, f"e{wanted}"))
    return FlatRun(by_customers, by_events, skipped, problems)


async def _step(installation: Installation, plan: Steps, told: Acknowledged, run: str) -> Step:
    services, tenant = installation.services, installation.account.tenant
    account = dataclasses.replace(installation.account, customers=await known.active(installation, _ACTIVE))
    loaded = dataclasses.replace(installation, account=account)
    await services.database.execute("CHECKPOINT", timeout=600.0)
    async with workloads.loaded(loaded, "W2", run, told) as load:
        await load.run(min(_WARM_S, plan.phase_s))
        await book.until_level(services)
        stored = await known.stored(installation)
        phases = [await workloads.end_to_end(load, plan.phase_s) for _ in range(plan.repeats)]
    count = await services.database.fetchval("SELECT count(*) FROM customers WHERE tenant_id = $1", tenant.id)
    best = min(phases, key=_us)
    return Step(count, stored, _us(best), best.cpu_s_per_million, best.eps, best.others_cores)


def _us(phase: Phase) -> float:
    return sum(phase.cpu_s_per_million[role] for role in _ROLES)

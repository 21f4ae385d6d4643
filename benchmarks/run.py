"""One run: the workloads in order, each on an installation that is judged in the end."""

import asyncio
import importlib
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from typing import Any

from benchmarks import book, close, export, flat, machine, processes, reports, stages, stores, workloads
from benchmarks.book import Acknowledged
from benchmarks.installation import Installation, Size, installed
from benchmarks.workloads import Loaded, Phase

WORKLOADS = ("W2", "W4", "W1", "W3", "single", "stages", "reports", "pricing")
ON_REQUEST = ("export", "close", "flat")
"""Those that take long and that nothing is compared by: run when asked for."""
_UNJUDGED = frozenset({"reports", "export", "close", "flat", "pricing"})
_PRICING = "benchmarks.pricing"
_LOGGED_S, _TRIMMED_S = 3.0, 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how often and how much. Each figure is the median of its repeats."""

    phase_s: float = 60.0
    bare_s: float = 20.0
    repeats: int = 3
    script_rounds: int = 20
    report_events: int = 5_000_000
    export_events: int = 10_000_000
    close_events: int = 1_000_000
    close_customers: int = 500
    steps: flat.Steps = flat.LONG
    together: bool = False
    """All workloads on one installation, one after the other, instead of each on its own."""


QUICK = Plan(
    phase_s=3.0,
    bare_s=1.5,
    repeats=1,
    script_rounds=3,
    report_events=200_000,
    export_events=100_000,
    close_events=5_000,
    close_customers=30,
    steps=flat.SHORT,
    together=True,
)


@dataclass(slots=True)
class Found:
    """What a run found: figures by workload, and why it is void, if it is."""

    about: dict[str, Any] = field(default_factory=dict[str, Any])
    workloads: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    ceilings: dict[str, Any] = field(default_factory=dict[str, Any])
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    void: list[str] = field(default_factory=list[str])

    @property
    def reconciled(self) -> bool:
        """Whether everything that was acknowledged is in the book, and every sum agrees."""
        return not self.void


async def run(plan: Plan, size: Size, only: Sequence[str]) -> Found:
    """Measure these workloads."""
    wanted = [name for name in (*WORKLOADS, *ON_REQUEST) if name in only]
    found = Found({"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine.describe()})
    if "pricing" in wanted:
        wanted.remove("pricing")
        _price(found)
    for group in [wanted] if plan.together else [[name] for name in wanted]:
        if group:
            await _measure(found, plan, size, group)
    return found


async def _measure(found: Found, plan: Plan, size: Size, names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="tallybook-benchmark-") as folder:
        tell(f"starting an installation for {', '.join(names)}")
        async with installed(Path(folder), size, reconciles=_UNJUDGED.isdisjoint(names)) as installation:
            found.about["durability"] = await machine.durability(installation.services)
            acknowledged = Acknowledged()
            for name in (name for name in names if name not in _UNJUDGED):
                tell(name)
                await _MEASURES[name](_Measuring(found, plan, installation, acknowledged, name))
            tell(f"comparing {acknowledged.events} acknowledged events with the book")
            rss_mb = max(processes.rss_mb(child.pid) for child in installation.running.apis)
            found.more["api_rss_mb"] = max(found.more.get("api_rss_mb", 0.0), rss_mb)
            found.void += await book.judge(installation.services, installation.account.tenant, acknowledged)
            for name in (name for name in _WRITERS if name in names):
                await _WRITERS[name](found, installation, plan, Path(folder))


@dataclass(frozen=True, slots=True)
class _Measuring:
    """What the measurement of one workload works with."""

    found: Found
    plan: Plan
    installation: Installation
    acknowledged: Acknowledged
    name: str

    async def load(self, phases: Mapping[str, Callable[[Loaded, float], Awaitable[Phase]]]) -> None:
        """The median of each phase, in turns."""
        runs: dict[str, list[Phase]] = {phase: [] for phase in phases}
        async with workloads.loaded(self.installation, self.name, self.name, self.acknowledged) as load:
            for _ in range(self.plan.repeats):
                for phase, measure in phases.items():
                    runs[phase].append(await measure(load, self.plan.phase_s))
            if "acknowledged" in phases:
                await self._memory(load)
        self.found.workloads[self.name] = {phase: median(some) for phase, some in runs.items()}

    async def bare(self) -> Phase:
        """The bare HTTP ceiling of this workload."""
        tell(f"{self.name}: bare HTTP")
        runs = [
            await workloads.bare(self.installation, self.name, self.acknowledged, self.plan.bare_s)
            for _ in range(self.plan.repeats)
        ]
        return median(runs)

    async def _memory(self, load: Loaded) -> None:
        """Bytes of Redis for each remembered identity and each event in the log: what Redis gets back when the book has it."""
        self.installation.running.rest_workers(on=True)
        try:
            outcome = await load.run(_LOGGED_S)
            full = await stores.bytes_used(self.installation)
        finally:
            self.installation.running.rest_workers(on=False)
        await book.until_level(self.installation.services)
        await asyncio.sleep(_TRIMMED_S)
        size, count = await stores.bytes_of_ids(self.installation)
        self.found.more |= {
            "redis_bytes_per_event": (full - await stores.bytes_used(self.installation)) / outcome.accepted,
            "redis_bytes_per_id": size / count,
            "redis_ids": count,
        }


def median(runs: Sequence[Phase]) -> Phase:
    """The run in the middle by events per second, as a whole: its percentiles belong to its rate."""
    return sorted(runs, key=lambda run: run.eps)[len(runs) // 2]


async def _ceiling(this: _Measuring) -> None:
    """W2, and beside it every ceiling of batches."""
    await this.load({"acknowledged": workloads.acknowledge, "end_to_end": workloads.end_to_end})
    this.found.ceilings["bare_http_batch"] = await this.bare()
    tell(f"{this.name}: bare script, bare COPY")
    script = await stores.one_script(this.installation, this.name, 20_000, this.plan.script_rounds)
    this.found.ceilings["bare_script"] = {"eps": script.eps, "cpu_s_per_million": script.cpu_us}
    copied = await stores.one_copy(this.installation, script.entries, this.plan.script_rounds)
    this.found.ceilings["bare_copy"] = {"eps": copied.eps, "cpu_s_per_million": copied.cpu_us}


async def _single(this: _Measuring) -> None:
    await this.load({"end_to_end": workloads.end_to_end})
    this.found.ceilings["bare_http_single"] = await this.bare()


async def _end_to_end(this: _Measuring) -> None:
    await this.load({"end_to_end": workloads.end_to_end})


async def _stages(this: _Measuring) -> None:
    this.found.workloads[this.name] = dict(await stages.measure(this.installation))


_MEASURES: Mapping[str, Callable[[_Measuring], Awaitable[None]]] = {
    "W1": _end_to_end,
    "W2": _ceiling,
    "W3": _end_to_end,
    "W4": _end_to_end,
    "single": _single,
    "stages": _stages,
}


async def _close(found: Found, installation: Installation, plan: Plan, folder: Path) -> None:
    tell(f"close: a month of {plan.close_events} events of {plan.close_customers} customers")
    closed = await close.measure(installation, plan.close_events, plan.close_customers, folder, tell)
    found.workloads["close"] = {"run": closed}
    found.void += closed.problems


async def _report(found: Found, installation: Installation, plan: Plan, _folder: Path) -> None:
    tell(f"reports: writing {plan.report_events} events")
    measured = await reports.measure(installation, plan.report_events, tell)
    found.workloads["reports"] = {"run": measured}
    if not measured.agrees:
        found.void.append("the reports from hourly totals differ from what the raw events say")


async def _export(found: Found, installation: Installation, plan: Plan, folder: Path) -> None:
    tell(f"export: writing {plan.export_events} events")
    written = await export.measure(installation, plan.export_events, folder, tell)
    found.workloads["export"] = {"run": written}
    if not written.complete:
        found.void.append("an exported file does not have all events")


async def _flat(found: Found, installation: Installation, plan: Plan, folder: Path) -> None:
    measured = await flat.measure(installation, plan.steps, folder, tell)
    found.workloads["flat"] = {"run": measured}
    found.more |= {"flat_customers_ratio": measured.customers_ratio, "flat_events_ratio": measured.events_ratio}
    found.void += measured.problems


_WRITERS: Mapping[str, Callable[[Found, Installation, Plan, Path], Awaitable[None]]] = {
    "close": _close,
    "flat": _flat,
    "reports": _report,
    "export": _export,
}
"""Workloads that write the book themselves. The first two reconcile, and after what the others write nothing does."""


def _price(found: Found) -> None:
    """Pricing against other libraries, where they are installed."""
    if util.find_spec(_PRICING) is None:
        tell("pricing: not in this version")
        return
    tell("pricing")
    found.more |= importlib.import_module(_PRICING).measure()


def tell(message: str) -> None:
    """A line on stderr."""
    print(f"benchmarks: {message}", file=sys.stderr, flush=True)

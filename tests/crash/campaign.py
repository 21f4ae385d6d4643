"""One campaign: load, kills, periods that end in the middle of it all, and the verdict."""

import asyncio
from collections import Counter
from pathlib import Path

from tests.crash import ground as grounds
from tests.crash.ground import Ground, Result, Tell
from tests.crash.load import Load

EVENTS_PER_KILL = 1000
"""A kill that hits an idle system proves nothing: this many more events are accepted before the next one."""
_PAUSE_S_MAX = 0.3
_LOOK_S = 0.01
_WEIGHTS = {"api": 2, "worker": 2, "redis": 3, "postgres": 2}
"""How often each kind of process is chosen."""
_PERIODS = 3
"""How often a period ends while processes are killed."""


async def run(
    folder: Path, *, kills: int, seed: int, events_per_kill: int = EVENTS_PER_KILL, clustered: bool = False, progress: Tell
) -> Result:
    """Start everything, kill `kills` times under load, wait until the book is level, close the period, judge."""
    async with grounds.prepared(folder, seed=seed, clustered=clustered) as ground:
        load = ground.loading()
        async with grounds.loaded(ground):
            killed = await _kill(ground, load, kills, events_per_kill, progress)
        before = await grounds.judge(ground)
        progress("load verified; closing the period")
        await grounds.end_period(ground)
        report = await grounds.judge(ground)
        kinds = " ".join(f"{kind}={count}" for kind, count in sorted(killed.items()))
        notes = [f"{kinds}; requests without an answer: {load.requests_failed}", bound(killed.total())]
        return grounds.result(ground, report, before.problems(), notes=notes, kills=killed.total())


def bound(trials: int) -> str:
    """What no failure in so many independent trials says: the rule of three."""
    return f"none in {trials} bounds the chance of one at a kill by 3/{trials} = {300 / trials:.2g} % with 95 % confidence"


async def _kill(ground: Ground, load: Load, kills: int, events_per_kill: int, progress: Tell) -> Counter[str]:
    """Kill under load, and end some periods meanwhile. Returns when those are over."""
    killed: Counter[str] = Counter()
    ends = {kills * part // (_PERIODS + 1) for part in range(1, _PERIODS + 1)}
    async with asyncio.TaskGroup() as periods:
        while killed.total() < kills:
            await _accept_more(ground, load, events_per_kill)
            if killed.total() in ends:
                ends.remove(killed.total())
                periods.create_task(grounds.end_period(ground))
            name = _kill_one(ground)
            killed[name] += name != ""
            if killed.total() % 10 == 0 and name:
                progress(f"{killed.total()} kills, {load.accepted} accepted, {len(load.pending)} unknown")
    return killed


async def _accept_more(ground: Ground, load: Load, events: int) -> None:
    """Wait until this many more events are accepted, and then for a moment that the dice choose."""
    goal = load.accepted + events
    while load.accepted < goal:
        ground.field.check()
        await asyncio.sleep(_LOOK_S)
    await asyncio.sleep(ground.dice.uniform(0, _PAUSE_S_MAX))


def _kill_one(ground: Ground) -> str:
    """Kill one of those that stand. Returns its kind, "" when nobody stands."""
    standing = [target for target in ground.field.targets if target.is_up]
    if not standing:
        return ""
    [target] = ground.dice.choices(standing, [_WEIGHTS[target.kind] for target in standing])
    target.kill(ground.field.starters)
    return target.kind

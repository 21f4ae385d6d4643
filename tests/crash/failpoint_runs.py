"""Every failpoint under load: the processes that pass it are armed, one of them dies there, and is started again without it.

That it died there is proved by its exit (SIGKILL, and nobody else sent one) and by the line that it left in its log. The places
in the closing of a period follow each other in one and the same closing: whoever carries it on dies a step further.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tallybook.core import failpoints
from tests.crash import ground as grounds
from tests.crash.field import Target
from tests.crash.ground import Ground, Result, Tell
from tests.crash.load import Load

_KINDS = {"usage": "api", "charge": "api", "rollup": "worker", "period": "worker"}
"""Which processes pass a failpoint, by the first word of its name."""
_NTH_MAX = 4
_NTH_MAX_LATER = 2
"""A closing passes its later places once for each period, and those that died there before have left fewer."""
_LATER = ("period.before_settling", "period.settled", "period.expired", "period.noted")
_CUSTOMERS_EACH = 2
_RATE = 800.0
"""Events a second: what dies must have something to do, and the rest must come to its turn."""
_EVENTS_MAX = 30_000
"""Whoever has not come to an armed place while this many more events were accepted never will."""
_LOOK_S = 0.01


async def run(folder: Path, *, rounds: int, seed: int, progress: Tell) -> Result:
    """Do this on servers of its own."""
    async with grounds.prepared(folder, seed=seed, apis=2, customers_each=_CUSTOMERS_EACH) as ground:
        return await on(ground, folder, rounds=rounds, progress=progress)


async def on(ground: Ground, folder: Path, *, rounds: int, progress: Tell) -> Result:
    """Have processes die at every failpoint, `rounds` times, and judge after each round."""
    hit: Counter[str] = Counter()
    problems: list[str] = []
    load = ground.loading(rate=_RATE)
    for number in range(1, rounds + 1):
        async with grounds.loaded(ground):
            hit += await _die_everywhere(ground, load, folder)
        problems += (await grounds.judge(ground)).problems()
        progress(f"round {number}: {hit.total()} deaths at {len(hit)} failpoints, {load.accepted} accepted")
    problems += [f"nobody died at {name}" for name in failpoints.NAMES if hit[name] < rounds]
    report = await grounds.judge(ground)
    return grounds.result(ground, report, problems, failpoints=len(failpoints.NAMES), deaths=hit.total())


async def _die_everywhere(ground: Ground, load: Load, folder: Path) -> Counter[str]:
    """One death at each place, then everybody is started again unarmed."""
    hit: Counter[str] = Counter()
    closing: asyncio.Task[None] | None = None
    for name in failpoints.NAMES:
        armed = _those_who_pass(ground, name)
        nth = _nth(ground, name)
        log = folder / "armed.log"
        log.unlink(missing_ok=True)
        _disarm(ground, armed)
        for target in armed:
            target.arm(f"{name}:{nth}", log)
        if name.startswith("period.") and closing is None:
            closing = asyncio.create_task(grounds.end_period(ground))
        if not await _one_dies(armed, load) or f"failpoint {name}:{nth}\n" not in log.read_text():
            break
        hit[name] += 1
    _disarm(ground)
    if closing is not None:
        await closing
    return hit


def _disarm(ground: Ground, but: Sequence[Target] = ()) -> None:
    """Start all that are armed, or have died of it, again without."""
    for target in ground.field.targets:
        if target.is_armed and target not in but:
            target.kill(ground.field.starters)


def _those_who_pass(ground: Ground, name: str) -> list[Target]:
    kind = _KINDS[name.partition(".")[0]]
    return [target for target in ground.field.targets if target.kind == kind]


def _nth(ground: Ground, name: str) -> int:
    if name.startswith("period."):
        return ground.dice.randint(1, _NTH_MAX_LATER) if name in _LATER else 1
    return ground.dice.randint(1, _NTH_MAX)


async def _one_dies(armed: Sequence[Target], load: Load) -> bool:
    """Wait until one of them is dead. False when it was not SIGKILL, or nobody dies."""
    goal = load.accepted + _EVENTS_MAX
    while load.accepted < goal:
        codes = {target.child.exit_code for target in armed} - {None}
        if codes:
            return codes == {-signal.SIGKILL}
        await asyncio.sleep(_LOOK_S)
    return False

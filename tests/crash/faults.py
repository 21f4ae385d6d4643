"""Faults that are no deaths: processes that stand still for a while, responses that are lost, a Redis that is not the one it was."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

from tests.crash import ground as grounds
from tests.crash import lost_till, proxy
from tests.crash.field import Target
from tests.crash.ground import Ground, Result, Tell

_CUSTOMERS_EACH = 2
_RATE = 1500.0
_DROP_SHARE = 0.1
_STILL_S = {"api": 1.0, "worker": 1.0, "redis": 6.0, "postgres": 1.5}
"""How long each kind of process stands still. Redis longer than the clients' patience (5 s): what waited in its socket is carried out
after they have given up."""
_BETWEEN_S = 0.3


async def run(folder: Path, *, rounds: int, seed: int, progress: Tell) -> Result:
    """Do this on servers of its own."""
    async with grounds.prepared(folder, seed=seed, apis=2, customers_each=_CUSTOMERS_EACH) as ground:
        return await on(ground, rounds=rounds, progress=progress)


async def on(ground: Ground, *, rounds: int, progress: Tell) -> Result:
    """Every fault under load, `rounds` times; the oracle after each of them."""
    problems: list[str] = []
    async with _proxies(ground) as proxies:
        load = ground.loading(rate=_RATE, urls=[one.url for one in proxies])
        for number in range(1, rounds + 1):
            async with grounds.loaded(ground):
                for target in _one_of_each_kind(ground, number):
                    await _stand_still(target)
                    await asyncio.sleep(_BETWEEN_S)
            problems += (await grounds.judge(ground)).problems()
            problems += await lost_till.lose(ground)
            progress(f"round {number}: {load.accepted} accepted, {_dropped(proxies)} responses dropped")
        if not _dropped(proxies) or not load.duplicates:
            problems.append("no response was lost, so nothing was shown about that")
        report = await grounds.judge(ground)
        return grounds.result(ground, report, problems, rounds=rounds, dropped=_dropped(proxies))


def _one_of_each_kind(ground: Ground, number: int) -> Iterator[Target]:
    for kind in _STILL_S:
        every = [target for target in ground.field.targets if target.kind == kind]
        yield every[number % len(every)]


@contextlib.asynccontextmanager
async def _proxies(ground: Ground) -> AsyncGenerator[list[proxy.Proxy]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(proxy.in_front_of(url, ground.dice, _DROP_SHARE)) for url in ground.field.urls]


def _dropped(proxies: Sequence[proxy.Proxy]) -> int:
    return sum(one.dropped for one in proxies)


async def _stand_still(target: Target) -> None:
    """SIGSTOP a process with all that it has started, and SIGCONT them later."""
    family = [target.child.pid, *_children(target.child.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(_STILL_S[target.kind])
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _children(parent: int) -> Iterator[int]:
    """Processes that this one has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent:
                yield int(folder.name)

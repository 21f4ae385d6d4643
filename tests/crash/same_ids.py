"""The same id, sent one to five times at the same moment through several API processes: one of them takes it, once."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp

from tests.crash import ground as grounds
from tests.crash.ground import Ground, Result, Tell
from tests.crash.load import Customer, Json

COPIES_MAX = 5
_AT_ONCE = 50
_APIS = 3
_UNLIMITED = ("open", "flex")
"""Plans that refuse nothing, so that each id has one good answer."""
_HEADERS = {"commet-version": "2026-08-27"}


@dataclass(slots=True)
class _Counts:
    sent: int = 0
    accepted: int = 0
    conflicts: int = 0


async def run(folder: Path, *, ids: int, seed: int, progress: Tell) -> Result:
    """Do this on servers of its own."""
    async with grounds.prepared(folder, seed=seed, apis=_APIS, workers=1) as ground:
        return await on(ground, ids=ids, progress=progress)


async def on(ground: Ground, *, ids: int, progress: Tell) -> Result:
    """Send `ids` ids, then each of them again with another payload to every process, and judge."""
    problems: list[str] = []
    counts = _Counts()
    load = ground.loading(customers=[one for one in ground.customers if one.reference.startswith(_UNLIMITED)])
    async with aiohttp.ClientSession(headers={"x-api-key": ground.account.key, **_HEADERS}) as session:
        for done in range(0, ids, _AT_ONCE):
            events = [load.event() for _ in range(min(_AT_ONCE, ids - done))]
            problems += await _send_all(session, ground, events, counts)
    progress(f"{ids} ids, {counts.sent} sent")
    report = await grounds.judge(ground)
    return grounds.result(
        ground, report, problems, ids=ids, sent=counts.sent, accepted=counts.accepted, conflicts=counts.conflicts
    )


async def _send_all(
    session: aiohttp.ClientSession, ground: Ground, events: Sequence[tuple[Customer, Json]], counts: _Counts
) -> list[str]:
    """Copies of these events, then changed ones. Returns what is wrong with the answers."""
    copies = await _send_copies(session, ground, events)
    changed = await _send_changed(session, ground, events)
    for (customer, event), answers in zip(events, copies, strict=True):
        for answer in answers:
            ground.load.note(customer, event, answer)
    counts.sent += sum(map(len, copies)) + len(changed)
    counts.accepted += sum(answer["status"] == "accepted" for answers in copies for answer in answers)
    counts.conflicts += sum(answer["status"] == "conflict" for answer in changed)
    problems = [problem for answers in copies for problem in _not_one(answers)]
    return problems + [f"changed, and not a conflict: {answer}" for answer in changed if answer["status"] != "conflict"]


async def _send_copies(
    session: aiohttp.ClientSession, ground: Ground, events: Sequence[tuple[Customer, Json]]
) -> list[list[Json]]:
    """Each event one to five times, at once, in batches and alone. Returns the answers to each."""
    answers: list[list[Json]] = [[] for _ in events]
    copies = [ground.dice.randint(1, COPIES_MAX) for _ in events]
    urls = itertools.cycle(ground.dice.sample(ground.field.urls, _APIS))
    requests: list[list[int]] = []
    for nth in range(COPIES_MAX):
        places = [place for place, count in enumerate(copies) if count > nth]
        ground.dice.shuffle(places)
        requests += [[place] for place in places] if nth == 0 else [places]

    async def send(places: list[int], url: str) -> None:
        for place, answer in zip(places, await _send(session, url, [events[place][1] for place in places]), strict=True):
            answers[place].append(answer)

    await asyncio.gather(*(send(places, next(urls)) for places in requests if places))
    return answers


async def _send_changed(session: aiohttp.ClientSession, ground: Ground, events: Sequence[tuple[Customer, Json]]) -> list[Json]:
    """Each event with another payload, to every process."""
    changed = [
        {**event, **({"outputTokens": event["outputTokens"] + 1} if "model" in event else {"value": 3})} for _, event in events
    ]
    return [
        answer
        for answers in await asyncio.gather(*(_send(session, url, changed) for url in ground.field.urls))
        for answer in answers
    ]


async def _send(session: aiohttp.ClientSession, url: str, events: Sequence[Json]) -> list[Json]:
    body = json.dumps({"events": list(events)})
    async with session.post(f"{url}/api/v1/usage/events/batch", data=body) as response:
        assert response.status == 200, await response.text()
        return json.loads(await response.read(), parse_float=Decimal)["results"]


def _not_one(answers: Sequence[Json]) -> list[str]:
    """What is wrong when not exactly one copy was taken, or they do not all tell of the same event."""
    statuses = sorted(answer["status"] for answer in answers)
    problems: list[str] = []
    if statuses != ["accepted", *["duplicate"] * (len(answers) - 1)]:
        problems.append(f"copies of one event were answered {statuses}")
    elif any(answer["event"] != answers[0]["event"] for answer in answers):
        problems.append(f"copies of one event were told apart: {answers}")
    return problems

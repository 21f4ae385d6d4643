"""Two generated months of three plans over HTTP, as their customers' backends would send them, up to the end of the second.

In the first month customers come day by day; in the second all of them are there and renew. Some events come late, some ids are sent
twice, some usage is taken back or corrected. What was acknowledged is counted, so that the book can be held against it.
"""

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson

from benchmarks.traffic import MODELS
from tallybook.core import clock

Json = dict[str, Any]
Say = Callable[[str], None]
_PLANS: Sequence[tuple[Json, Json, dict[str, Json]]] = (
    (
        {"code": "calls", "name": "Calls", "consumptionModel": "metered"},
        {"price": 9900},
        {"api_calls": {"includedAmount": 3000, "overage": {"enabled": True, "unitPrice": 33}}},
    ),
    (
        {"code": "tokens", "name": "Tokens", "consumptionModel": "balance", "blockOnExhaustion": False},
        {"price": 5000, "includedBalance": 150_000},
        {"chat": {"pricingMode": "ai_model", "margin": 20}, "api_calls": {"overage": {"unitPrice": 7}}},
    ),
    (
        {"code": "credits", "name": "Credits", "consumptionModel": "credits"},
        {"price": 2900, "includedCredits": 3000},
        {"renders": {"creditsPerUnit": 2}, "api_calls": {"creditsPerUnit": 1}},
    ),
)
_FEATURES = ("api_calls", "chat", "renders")
_BATCH = 100
_CONNECTIONS = 6
_LATE, _AGAIN = 0.01, 0.01
_VOIDS, _SETS = 2, 1
"""After each step of the clock, at most."""
_LATE_MAX = timedelta(days=20)
_FIRST_SHARE = 0.2
"""Events of the first month, as a share of the second's."""
_POLL_S = 0.05
_LOOKS_MAX, _TRIES_MAX = 1200, 300
_COME_BACK = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Size:
    """How much: events of the second month, customers, and by how many days the clock is turned at once."""

    events: int
    customers: int
    step_days: int = 1
    seed: int = 1


@dataclass(slots=True)
class Sent:
    """What was acknowledged, by what became of it."""

    ids: set[str] = field(default_factory=set[str])
    duplicates: int = 0
    rejected: int = 0
    voids: int = 0
    sets: int = 0
    strange: list[str] = field(default_factory=list[str])

    @property
    def accepted(self) -> int:
        """Events that were acknowledged, each once however often it was sent."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class _Customer:
    id: str
    plan: str
    since: datetime


class Month:
    """Plays the months on a sandbox. `month` is the second one, `2026-10`."""

    def __init__(self, http: aiohttp.ClientSession, size: Size, say: Say) -> None:
        """`http` has the address and the key."""
        self._http, self._size, self._say = http, size, say
        self._dice = random.Random(size.seed)
        self._customers: list[_Customer] = []
        self._numbers = itertools.count()
        self._voidable: list[str] = []
        self.sent = Sent()
        self.month = ""

    async def play(self) -> Sent:
        """Everything. Raises aiohttp.ClientError for what is refused and should not be."""
        await self._make_plans()
        now = datetime.fromisoformat((await self._ask("GET", "/test-clock"))["now"])
        first = _first_of_next(now)
        second = _first_of_next(first)
        self.month = f"{second:%Y-%m}"
        await self._turn(first)
        await self._live(first, second, round(self._size.events * _FIRST_SHARE), self._size.customers)
        await self._live(second, _first_of_next(second), self._size.events, 0)
        await self._turn(_first_of_next(second) + timedelta(hours=1))
        return self.sent

    async def _live(self, starts: datetime, ends: datetime, events: int, newcomers: int) -> None:
        """From one moment to another, some days at a time: newcomers subscribe, time passes, and its events are sent."""
        step = timedelta(days=self._size.step_days)
        steps = -(-(ends - starts) // step)
        for number in range(steps):
            here, there = starts + number * step, min(starts + (number + 1) * step, ends)
            coming = newcomers * (number + 1) // steps - newcomers * number // steps
            for _ in range(coming):
                await self._come(here)
            await self._turn(there - timedelta(seconds=1))
            await self._send(here, there - timedelta(seconds=1), events * (number + 1) // steps - events * number // steps)
            await self._correct()
        self._say(f"{ends:%Y-%m-%d}: {self.sent.accepted:,} events")

    async def _come(self, now: datetime) -> None:
        number = len(self._customers)
        one = _Customer(f"customer_{number:05d}", _PLANS[number % len(_PLANS)][0]["code"], now)
        await self._ask("POST", "/customers", {"id": one.id, "email": f"{one.id}@example.com"})
        await self._ask("POST", "/subscriptions", {"customerId": one.id, "planCode": one.plan})
        self._customers.append(one)

    async def _make_plans(self) -> None:
        for code in _FEATURES:
            await self._ask("POST", "/features", {"code": code, "name": code.title(), "type": "usage"})
        for plan, price, features in _PLANS:
            await self._ask("POST", "/plans", plan)
            path = f"/plans/{plan['code']}"
            await self._ask("POST", f"{path}/prices", {"billingInterval": "monthly", "isDefault": True, **price})
            for code, terms in features.items():
                await self._ask("POST", f"{path}/features", {"featureId": code, **terms})

    async def _send(self, starts: datetime, ends: datetime, count: int) -> None:
        batches = iter(list(self._batches(starts, ends, count)))

        async def sender() -> None:
            for batch in batches:
                self._count(batch, await self._ask("POST", "/usage/events/batch", {"events": batch}))

        await asyncio.gather(*(sender() for _ in range(_CONNECTIONS)))

    def _batches(self, starts: datetime, ends: datetime, count: int) -> Iterator[list[Json]]:
        weights = [1 / (place + 10) for place in range(len(self._customers))]
        chosen = self._dice.choices(self._customers, weights, k=count) if self._customers else []
        for first in range(0, len(chosen), _BATCH):
            events = [self._event(one, starts, ends) for one in chosen[first : first + _BATCH]]
            yield [*events[:-1], events[0]] if len(events) > 1 and self._dice.random() < _AGAIN * _BATCH / 2 else events

    def _event(self, one: _Customer, starts: datetime, ends: datetime) -> Json:
        dice, moment = self._dice, starts + (ends - starts) * self._dice.random()
        if dice.random() < _LATE:
            moment = max(one.since, moment - _LATE_MAX * dice.random())
        moment = max(one.since, moment)
        event: Json = {"customerId": one.id, "eventId": f"e{next(self._numbers)}", "timestamp": clock.iso(moment)}
        if one.plan == "tokens" and dice.random() < 0.8:
            tokens = {"inputTokens": dice.randrange(1, 9000), "outputTokens": dice.randrange(700)}
            return event | {"featureCode": "chat", "model": dice.choice(MODELS), **tokens}
        if one.plan == "credits" and dice.random() < 0.5:
            return event | {"featureCode": "renders", "value": 1}
        return event | {"featureCode": "api_calls", "value": dice.choice((1, 1, 2, 0.5))}

    def _count(self, batch: Sequence[Json], answer: Json) -> None:
        for event, result in zip(batch, answer["results"], strict=True):
            status = result["status"]
            if status in ("accepted", "duplicate"):
                self.sent.ids.add(event["eventId"])
            if status == "accepted":
                if len(self._voidable) < _VOIDS and self._dice.random() < _AGAIN:
                    self._voidable.append(result["event"]["id"])
            elif status == "duplicate":
                self.sent.duplicates += 1
            elif status == "rejected":
                self.sent.rejected += 1
            elif len(self.sent.strange) < _BATCH:
                self.sent.strange.append(orjson.dumps(result).decode())

    async def _correct(self) -> None:
        """Take some usage back once the book has it, and set some totals."""
        for event in self._voidable:
            await self._void(event)
        self._voidable.clear()
        metered = [one for one in self._customers if one.plan == _PLANS[0][0]["code"]]
        for one in self._dice.choices(metered, k=_SETS if metered else 0):
            total = {"customerId": one.id, "featureCode": "api_calls", "value": self._dice.randrange(5000), "reason": "recount"}
            await self._ask("PUT", "/usage", total)
            self.sent.sets += 1

    async def _void(self, event: str) -> None:
        """An event can be taken back as soon as the book has it."""
        body = ""
        for _ in range(_LOOKS_MAX):
            async with self._http.post(f"/api/v1/usage/events/{event}/void", json={"reason": "by mistake"}) as answer:
                if answer.ok:
                    self.sent.voids += 1
                    return
                body = await answer.text()
                if answer.status != 404:
                    break
            await asyncio.sleep(_POLL_S)
        self.sent.strange.append(body)

    async def _turn(self, moment: datetime) -> None:
        await self._ask("POST", "/test-clock", {"frozenTime": clock.iso(moment)})
        while (run := (await self._ask("GET", "/test-clock"))["latestRun"])["status"] in ("pending", "running"):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        if run["status"] == "failed":
            raise RuntimeError(f"the clock could not be turned: {run}")

    async def _ask(self, method: str, path: str, body: object = None) -> Json:
        """The answer. What is told to come back does, with the same ids."""
        headers = {"Idempotency-Key": str(uuid.UUID(int=self._dice.getrandbits(128)))} if method != "GET" else {}
        for _ in range(_TRIES_MAX):
            async with self._http.request(method, f"/api/v1{path}", json=body, headers=headers) as answer:
                content = await answer.read()
                if answer.ok:
                    found: Json = orjson.loads(content)
                    return found
                if answer.status not in _COME_BACK:
                    raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
        raise RuntimeError(f"{method} {path} was told to come back {_TRIES_MAX} times")


def _first_of_next(moment: datetime) -> datetime:
    return (moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)

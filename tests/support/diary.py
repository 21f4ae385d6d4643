"""Two months of business, written down as they are lived: what reports must say follows from the diary by plain arithmetic.

Nothing here asks the book. Customers of several plans start at odd hours, near nights in which clocks are set; events come late, are
taken back and corrected; prices change in the middle. Amounts are integers in 1e-9 of a dollar, credit or unit.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from tallybook.core import clock
from tests.support.billing import Json, World, at

NANO, NANO_PER_CENT, NANO_PER_RATE = 10**9, 10**7, 10**5
MODEL = "anthropic/claude-sonnet-4.6"
PRICE_CHANGE = at("2026-10-22")
"""From then on the model costs twice as much."""
TOKEN_NANO = {"inputTokens": 3_000, "outputTokens": 15_000, "cacheReadTokens": 300, "cacheWriteTokens": 3_750}
MARGIN = Fraction(12, 10)
EXPORT_NANO, CREDITS_PER_RENDER = 33_300_000, 2
_LAST = "2026-11-20T09:00:00"
LAST = at(_LAST)
_CHECKPOINTS = tuple(
    at(text)
    for text in (
        *("2026-09-26T10:00:00", "2026-10-02T00:00:00", "2026-10-04T20:00:00", "2026-10-10T12:00:00", "2026-10-15T00:00:00"),
        *("2026-10-22T00:00:00", "2026-10-24T23:40:00", "2026-10-25T00:50:00", "2026-10-25T12:00:00", "2026-10-31T12:00:00"),
        *("2026-11-01T12:00:00", "2026-11-10T00:00:00", "2026-11-16T12:00:00"),
        _LAST,
    )
)
_EVENTS_AT_ONCE = 60
_NIGHTS = (at("2026-10-03T15:00:00"), at("2026-10-24T23:30:00"), at("2026-11-01T04:30:00"))
_LATE = timedelta(days=25)


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who has what since when. `days`: the length of a usage period, None for a month."""

    customer: str
    customer_id: str
    id: str
    plan: str
    start: datetime
    days: int | None = None
    trial_ends: datetime | None = None

    def period(self, moment: datetime) -> tuple[datetime, datetime]:
        """The usage period that a moment lies in."""
        if self.trial_ends is not None and moment < self.trial_ends:
            return self.start, self.trial_ends
        bounds = list(self.boundaries(moment + timedelta(days=32)))
        place = bisect_right(bounds, moment) - 1
        return bounds[place], bounds[place + 1]

    def boundaries(self, until: datetime) -> Iterator[datetime]:
        """Where paid periods begin, up to a time."""
        anchor = self.trial_ends or self.start
        here, number = anchor, 0
        while here <= until:
            yield here
            number += 1
            here = _months_after(anchor, number) if self.days is None else anchor + number * timedelta(days=self.days)


@dataclass(frozen=True, slots=True)
class Use:
    """Usage, or with sign -1 what took it back. `at` is when it occurred."""

    subscription: Subscription
    feature: str
    at: datetime
    quantity: int
    charge: int
    credits: int
    cost: int
    tokens: Mapping[str, int]
    model: str | None
    sign: int = 1


@dataclass(slots=True)
class Pool:
    """What was used of a period's allowance, and corrections of it."""

    used: int = 0
    added: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an invoice at the boundary where it is billed."""

    subscription: Subscription
    billed_at: datetime
    line_type: str
    feature: str | None
    cents: int


PoolKey = tuple[Subscription, str, datetime]
"""Whose, what it holds (`balance`, `credits` or a feature), and the start of its period."""


@dataclass(slots=True)
class Diary:
    """All that happened, in order. `prices` are revisions: (from, amount) by what they are of."""

    subscriptions: list[Subscription] = field(default_factory=list[Subscription])
    uses: list[Use] = field(default_factory=list[Use])
    pools: dict[PoolKey, Pool] = field(default_factory=dict[PoolKey, Pool])
    base_cents: dict[str, list[tuple[datetime, int]]] = field(default_factory=dict[str, list[tuple[datetime, int]]])
    overage_nano: dict[str, list[tuple[datetime, int]]] = field(default_factory=dict[str, list[tuple[datetime, int]]])

    def pool(self, subscription: Subscription, what: str, start: datetime) -> Pool:
        """The pool of a period."""
        return self.pools.setdefault((subscription, what, start), Pool())

    def lines(self) -> list[Line]:
        """All lines of all invoices, by the plans' terms alone."""
        return [line for subscription in self.subscriptions for line in self._lines_of(subscription)]

    def _lines_of(self, subscription: Subscription) -> Iterator[Line]:
        for boundary in subscription.boundaries(LAST):
            yield Line(subscription, boundary, "plan_base", None, _latest(self.base_cents[subscription.plan], boundary))
        for (owner, what, start), pool in self.pools.items():
            end = subscription.period(start)[1]
            if owner != subscription or end > LAST or start < (subscription.trial_ends or start):
                continue
            nano = self.overage(subscription, what, start, pool)
            if nano > 0:
                line_type = "balance_overage" if what == "balance" else "feature_overage"
                yield Line(subscription, end, line_type, None if what == "balance" else what, nano // NANO_PER_CENT)

    def overage(self, subscription: Subscription, what: str, start: datetime, pool: Pool) -> int:
        """What usage beyond a pool's allowance costs, nano-USD, in whole cents."""
        if what == "credits":
            return 0
        beyond = pool.used - included(subscription, what) - pool.added
        if what == "balance":
            return _to_cents(Fraction(max(0, min(beyond, pool.used)))) * NANO_PER_CENT
        price = self.overage_price(subscription.plan, start, subscription.period(start)[1])
        return _to_cents(Fraction(max(0, beyond) * price, NANO)) * NANO_PER_CENT

    def overage_price(self, plan: str, start: datetime, end: datetime) -> int:
        """What was in force when the period began, or what came later in it and is better for the customer."""
        revisions = self.overage_nano[plan]
        later = [price for since, price in revisions if start < since < end]
        return min([_latest(revisions, start), *later])


def included(subscription: Subscription, what: str) -> int:
    """What a period of a plan holds."""
    allowances = {("pro", "api_calls"): 1000, ("weekly", "api_calls"): 20, ("trial", "api_calls"): 45, ("packs", "credits"): 40}
    return NANO // 10 if what == "balance" else allowances[subscription.plan, what] * NANO


def round_half_even(value: Fraction) -> int:
    """Python rounds fractions that way."""
    return round(value)


def _to_cents(nano: Fraction) -> int:
    return round_half_even(nano / NANO_PER_CENT)


def _latest(revisions: Sequence[tuple[datetime, int]], moment: datetime) -> int:
    return [amount for since, amount in revisions if since <= moment][-1]


def _months_after(anchor: datetime, months: int) -> datetime:
    """Anchors lie before the 29th, so that every month has their day, or on the 30th of months that no February follows."""
    year, month = divmod(anchor.month - 1 + months, 12)
    return anchor.replace(year=anchor.year + year, month=month + 1)


class Author:
    """Lives the months in a world and writes them down."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._dice = world, random.Random(seed)
        self._now = at("2026-09-24T00:00:00")
        self._number = 0
        self._voidable: list[tuple[str, Use, datetime]] = []
        self.diary = Diary()

    async def live(self) -> Diary:
        """Everything up to `LAST`."""
        await self._world.stand_at(self._now.isoformat())
        await self._make_plans()
        starts = (
            ("pro", "2026-09-25T00:30:00"),  # its next boundary is the first 2:30 of that night in Berlin, …
            ("pro", "2026-09-25T01:30:00"),  # … and this one's the second
            ("ai", "2026-09-30T22:15:00"),
            ("ai", "2026-10-01T00:00:00"),
            ("packs", "2026-10-03T16:00:00"),
            ("weekly", "2026-10-04T15:45:00"),
            ("trial", "2026-10-30T18:20:00"),
            ("trial", "2026-11-15T00:10:00"),
        )
        events = sorted([(at(start), plan) for plan, start in starts] + [(moment, "") for moment in _CHECKPOINTS])
        for moment, plan in events:
            await self._advance(moment)
            if plan:
                await self._subscribe(plan)
            else:
                await self._use()
                await self._correct()
        await self._world.caught_up()
        return self.diary

    async def _advance(self, moment: datetime) -> None:
        for when, change in ((at("2026-10-14T06:00:00"), self._raise_prices), (at("2026-10-29T06:00:00"), self._lower_prices)):
            if self._now < when <= moment:
                await self._world.advance_to(when.isoformat())
                await change(when)
        await self._world.advance_to(moment.isoformat())
        self._now = moment

    async def _make_plans(self) -> None:
        world, since = self._world, self._now
        await world.metered()
        await world.plan("weekly", 1000, "weekly")
        await world.feature("weekly", "api_calls", includedAmount=20, overage={"enabled": True, "unitPrice": 777})
        await world.plan("trial", 4900, price_trialDays=14)
        await world.feature("trial", "api_calls", includedAmount=45, overage={"enabled": True, "unitPrice": 100})
        await world.plan("ai", 5000, consumptionModel="balance", price_includedBalance=1000)
        await world.feature("ai", "ai_chat", pricingMode="ai_model", margin=20)
        await world.feature("ai", "exports", overage={"unitPrice": 333})
        await world.plan("packs", 2900, consumptionModel="credits", price_includedCredits=40)
        await world.feature("packs", "renders", creditsPerUnit=CREDITS_PER_RENDER)
        base = {"pro": 9900, "weekly": 1000, "trial": 4900, "ai": 5000, "packs": 2900}
        self.diary.base_cents = {plan: [(since, cents)] for plan, cents in base.items()}
        self.diary.overage_nano = {
            plan: [(since, rate * NANO_PER_RATE)] for plan, rate in (("pro", 100), ("weekly", 777), ("trial", 100))
        }

    async def _raise_prices(self, now: datetime) -> None:
        """What harms waits for the renewal."""
        await self._set_price("pro", 12_900, now)
        await self._world.ask("PATCH", "/plans/pro/features/api_calls", {"overage": {"enabled": True, "unitPrice": 150}})
        self.diary.overage_nano["pro"].append((now, 150 * NANO_PER_RATE))

    async def _lower_prices(self, now: datetime) -> None:
        """What benefits holds at once."""
        await self._set_price("weekly", 900, now)
        for plan, rate in (("pro", 80), ("weekly", 501)):
            await self._world.ask("PATCH", f"/plans/{plan}/features/api_calls", {"overage": {"enabled": True, "unitPrice": rate}})
            self.diary.overage_nano[plan].append((now, rate * NANO_PER_RATE))

    async def _set_price(self, plan: str, cents: int, now: datetime) -> None:
        [price] = (await self._world.ask("GET", f"/plans/{plan}"))["prices"]
        await self._world.ask("PATCH", f"/plans/{plan}/prices/{price['id']}", {"price": cents})
        self.diary.base_cents[plan].append((now, cents))

    async def _subscribe(self, plan: str) -> None:
        made = await self._world.subscribe(plan)
        trial_ends = self._now + timedelta(days=14) if plan == "trial" else None
        shown = await self._world.ask("GET", f"/customers/{made['customer']}")
        days = 7 if plan == "weekly" else None
        one = Subscription(made["customer"], shown["id"], made["id"], plan, self._now, days, trial_ends)
        self.diary.subscriptions.append(one)
        if plan == "packs":
            await self._adjust(one, 400)

    async def _use(self) -> None:
        made = [self._event() for _ in range(_EVENTS_AT_ONCE)]
        answer = await self._world.ask("POST", "/usage/events/batch", {"events": [event for event, _ in made]})
        for (_, use), result in zip(made, answer["results"], strict=True):
            assert result["status"] == "accepted", result
            start = self._book(use)
            self._voidable.append((result["event"]["id"], use, start))

    def _event(self) -> tuple[Json, Use]:
        dice = self._dice
        owner = dice.choice(self.diary.subscriptions)
        moment = self._moment(owner)
        self._number += 1
        event: Json = {"customerId": owner.customer, "eventId": f"d{self._number}", "timestamp": clock.iso(moment)}
        if owner.plan == "ai" and dice.random() < 0.8:
            tokens = {name: dice.randrange(1, 900) for name in TOKEN_NANO}
            whole = tokens["inputTokens"] + tokens["cacheReadTokens"] + tokens["cacheWriteTokens"]
            event |= {"featureCode": "ai_chat", "model": "claude-sonnet-4-6", **tokens, "inputTokens": whole}
            cost = sum(count * TOKEN_NANO[name] for name, count in tokens.items()) * (2 if moment >= PRICE_CHANGE else 1)
            charge = round_half_even(cost * MARGIN)
            units = (whole + tokens["outputTokens"]) * NANO  # a token is a unit
            return event, Use(owner, "ai_chat", moment, units, charge, 0, cost, {**tokens, "inputTokens": whole}, MODEL)
        feature, tenths = {"ai": "exports", "packs": "renders"}.get(owner.plan, "api_calls"), dice.randrange(1, 30)
        quantity = tenths * NANO // 10 * (30 if owner.plan == "pro" else 1)
        event |= {"featureCode": feature, "value": quantity / NANO}
        charge = quantity * EXPORT_NANO // NANO if owner.plan == "ai" else 0
        taken = quantity * CREDITS_PER_RENDER if owner.plan == "packs" else 0
        return event, Use(owner, feature, moment, quantity, charge, taken, 0, {}, None)

    def _moment(self, owner: Subscription) -> datetime:
        """Since the owner came; often in a night in which clocks are set, sometimes long ago."""
        dice, earliest = self._dice, max(owner.start, self._now - _LATE)
        night = dice.choice(_NIGHTS) + timedelta(minutes=dice.randrange(180))
        if dice.random() < 0.3 and earliest <= night <= self._now:
            return night
        recent = max(earliest, self._now - timedelta(days=3)) if dice.random() < 0.8 else earliest
        return recent + (self._now - recent) * dice.randrange(1000) / 1000

    def _book(self, use: Use, paid: datetime | None = None) -> datetime:
        """Write usage down, with the period that pays: its own (a void: the event's), unless that is closed. Returns its start."""
        owner = use.subscription
        start, end = owner.period(paid or use.at)
        if end <= self._now:
            start, end = owner.period(self._now)
        self.diary.uses.append(use)
        what = {"ai": "balance", "packs": "credits"}.get(owner.plan, use.feature)
        taken = {"ai": use.charge, "packs": use.credits}.get(owner.plan, use.quantity)
        self.diary.pool(owner, what, start).used += taken
        return start

    async def _correct(self) -> None:
        """Take some back, set a total, add to a balance."""
        await self._world.caught_up()
        dice = self._dice
        for _ in range(4):
            event, use, paid = self._voidable.pop(dice.randrange(len(self._voidable)))
            await self._world.ask("POST", f"/usage/events/{event}/void", {"reason": "by mistake"})
            tokens = {name: -count for name, count in use.tokens.items()}
            amounts = (-use.quantity, -use.charge, -use.credits, -use.cost)
            self._book(Use(use.subscription, use.feature, use.at, *amounts, tokens, use.model, -1), paid)
        metered = [one for one in self.diary.subscriptions if one.plan in ("pro", "weekly")]
        one = dice.choice(metered)
        total = dice.randrange(10, 25) if one.plan == "weekly" else dice.randrange(950, 1500)
        body = {"customerId": one.customer, "featureCode": "api_calls", "value": total, "reason": "recount"}
        await self._world.ask("PUT", "/usage", body)
        self.diary.pool(one, "api_calls", one.period(self._now)[0]).used = total * NANO
        for one in self.diary.subscriptions:
            if one.plan == "ai" and dice.random() < 0.3:
                amount = dice.choice((150, -70, 33))
                await self._adjust(one, amount)
                self.diary.pool(one, "balance", one.period(self._now)[0]).added += amount * NANO_PER_RATE

    async def _adjust(self, one: Subscription, amount: int) -> None:
        await self._world.ask("POST", f"/subscriptions/{one.id}/balance/adjust", {"amount": amount, "reason": "goodwill"})

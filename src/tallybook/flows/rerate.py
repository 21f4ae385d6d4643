"""Pricing past usage again: what the price book says now about the time when each event happened, against what was taken.

An event's own row never changes. What it should have taken differs from what it took when a price with an earlier date was set
since (a negotiated price of the organization, `models override set --from`), or when it was priced before a list had reached the
process. The difference is written as adjustments of the customer's balance, one for each hour of usage, with an id each.

1. `survey`: wait until the book has read the till's log, then compare hour by hour: should take - took - adjusted before.
2. `write`: send the differences to the till. What it has taken counts as "adjusted before" from then on, so doing it twice, or over
   windows that overlap, or after a crash half way, adjusts once. One re-rating runs at a time.

Margins are those the events were priced with, and models those that their ids meant then. A closed period is not opened: the period
that runs pays, and the adjustment says which hour it belongs to. Usage that the plan includes without limit took nothing and still
does: an event that took nothing although it had a price says so itself; for one whose price was 0 the terms of its period decide.
What was taken back counts no more; what re-ratings had taken for it went back with it (`rerated`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tallybook.ai_models import locks
from tallybook.charge import commands
from tallybook.charge.commands import Charge, Outcome
from tallybook.core import clock, errors, ids, partitions, pools, usage_log
from tallybook.flows import adjustment, current_book, period, rerated
from tallybook.flows.access import Standing
from tallybook.flows.services import Services
from tallybook.pricing import cost
from tallybook.pricing.price_book import PriceBook
from tallybook.rollup import model_usage, retention
from tallybook.rollup import store as rollup
from tallybook.rollup.model_usage import ModelCustomer, ModelUsage, Prices
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection
from tallybook.subscriptions.terms import ConsumptionModel

HOUR = timedelta(hours=1)
_STEP = timedelta(days=1)
"""How much usage of one customer is read at once."""
_ATTEMPTS = 5
_AT_ONCE = 200
_LOCK_TRIES, _LOCK_PAUSE_S = 40, 0.05


@dataclass(frozen=True, slots=True)
class Window:
    """The usage to look at: from an hour on, up to another one (exclusive); of one tenant, of one of its customers."""

    starts_at: datetime
    ends_at: datetime
    tenant_id: int | None = None
    customer_id: int | None = None

    def __post_init__(self) -> None:
        """Raises ValidationError unless both are whole hours and there is something between them."""
        for name, moment in (("from", self.starts_at), ("to", self.ends_at)):
            if clock.to_ms(moment) % (HOUR.total_seconds() * 1000):
                raise errors.invalid(name, f"{clock.iso(moment)} is no whole hour; differences are kept hour by hour")
        if self.starts_at >= self.ends_at:
            raise errors.invalid("to", f"{clock.iso(self.ends_at)} is not after {clock.iso(self.starts_at)}")


@dataclass(slots=True)
class HourTotal:
    """One hour of one customer's usage, in nano-USD: what it took, what it should have, and what re-ratings took before.

    `adjustments` is how many those were. `prices` are the price rows that say what it should have, and `through` is the place in the
    customer's log up to which this knows of usage; both are kept with the adjustment.
    """

    took: int = 0
    should: int = 0
    rerated: int = 0
    adjustments: int = 0
    prices: Prices = field(default_factory=dict[str, list[tuple[int, int]]])
    through: int = 0

    @property
    def owed(self) -> int:
        """What is still to be taken; negative: given back."""
        return self.should - self.took - self.rerated


@dataclass(slots=True)
class Difference:
    """One customer's usage, priced again. `unpriced` counts events that the book has no price for now; they stay as they are."""

    customer: ModelCustomer
    events: int = 0
    changed: int = 0
    unpriced: int = 0
    hours: dict[datetime, HourTotal] = field(default_factory=dict[datetime, HourTotal])

    @property
    def total(self) -> HourTotal:
        """All hours together."""
        hours = self.hours.values()
        return HourTotal(sum(one.took for one in hours), sum(one.should for one in hours), sum(one.rerated for one in hours))

    @property
    def open_hours(self) -> Sequence[datetime]:
        """Hours that are to be adjusted, in order."""
        return sorted(hour for hour, one in self.hours.items() if one.owed)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What was taken (negative: given back) for one hour, and the id of the adjustment."""

    hour: datetime
    id: str
    nano: int


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one customer's differences. `refused` says why some or all of them could not be written."""

    adjusted: Sequence[Adjusted]
    refused: str | None = None


@contextlib.asynccontextmanager
async def alone(services: Services) -> AsyncGenerator[None]:
    """Hold the right to re-rate for the block, and until the book knows what it did. Raises Conflict while another process has it.

    Voids of AI usage are refused meanwhile: they give back what re-ratings took, which is not known before the end.
    """
    async with services.database.acquire() as holder:
        if not await _take_lock(holder):
            raise errors.Conflict("rerate_in_progress", "another re-rating is running; wait until it is done")
        try:
            yield
            await _behind(services)
        finally:
            await locks.release_rerate_lock(holder)


async def _take_lock(holder: Connection) -> bool:
    """Take the right to re-rate; voids under way, which keep it for moments, are waited for."""
    for _ in range(_LOCK_TRIES):
        if await locks.try_rerate_lock(holder):
            return True
        await asyncio.sleep(_LOCK_PAUSE_S)
    return False


async def _behind(services: Services) -> set[int]:
    """Wait until the book has read the log as it is now. Returns the partitions that it has not read in time."""
    marks = {partition: await services.till.tick(partition) for partition in range(services.settings.partitions)}
    return await period.catch_up(services, marks)


async def survey(services: Services, window: Window) -> AsyncGenerator[Difference]:
    """Price the window's usage again, customer by customer; those without any difference too. Writes nothing to any pool.

    Raises Unavailable (`book_behind`) when no worker brings the book up to the log, ValidationError when some of this usage was
    dropped, also while it is read.
    """
    if await _behind(services):
        raise errors.Unavailable("book_behind", "The book has not read the log far enough; is a worker running?")
    await current_book.refresh(services)
    async with services.database.acquire() as connection:
        await _check_whole(connection, window, window.customer_id)
        found = await model_usage.customers(connection, window.starts_at, window.ends_at, window.tenant_id, window.customer_id)
    for customer in found:
        difference = await _difference(services, customer, window)
        async with services.database.acquire() as connection:
            await _check_whole(connection, window, customer.customer_id)
        yield difference


async def _check_whole(connection: Connection, window: Window, customer_id: int | None) -> None:
    """Of an hour that lost events nobody can say what it should take."""
    lost = await retention.lost_model_usage(connection, window.starts_at, window.ends_at, window.tenant_id, customer_id)
    if lost is not None:
        raise errors.invalid("from", retention.why_unknown(lost))


async def _difference(services: Services, customer: ModelCustomer, window: Window) -> Difference:
    difference, book, inclusion = Difference(customer), services.book, rerated.Inclusion()
    partition = partitions.of(customer.tenant.id, customer.customer_id, services.settings.partitions)
    starts_at = window.starts_at
    while starts_at < window.ends_at:
        ends_at = min(starts_at + _STEP, window.ends_at)
        async with postgres.snapshot(services.database) as connection:
            events = await model_usage.of_customer(connection, customer.customer_id, starts_at, ends_at)
            earlier = await model_usage.rerated(connection, customer.customer_id, starts_at, ends_at)
            through = (await rollup.offsets(connection, [partition]))[partition]
            included = await _included(connection, events, inclusion)
        for event in events:
            _add(difference, event, book, is_included=_place(event) in included)
        for hour, before in earlier.items():
            total = difference.hours.setdefault(hour, HourTotal())
            total.rerated, total.adjustments = before.nano, before.adjustments
        _note_prices(difference, events, book, through)
        starts_at = ends_at
    return difference


_Place = tuple[str, datetime, int]


def _place(event: ModelUsage) -> _Place:
    return event.pool, event.period_start, event.feature_id


async def _included(connection: Connection, events: Iterable[ModelUsage], inclusion: rerated.Inclusion) -> set[_Place]:
    """Where usage that took nothing at a price of 0 was included without limit."""
    unsaid = {_place(event) for event in events if event.amount == 0 and event.charge_nano == 0}
    return {place for place in unsaid if await inclusion.holds(connection, *place)}


def _add(difference: Difference, event: ModelUsage, book: PriceBook, *, is_included: bool) -> None:
    total = difference.hours.setdefault(event.hour, HourTotal())
    took_nothing = event.amount == 0 and (event.charge_nano != 0 or is_included)
    should = 0 if took_nothing else _priced_again(event, difference.customer.tenant.id, book)
    difference.events += 1
    difference.unpriced += should is None
    total.took += event.amount
    total.should += event.amount if should is None else should
    difference.changed += should not in (None, event.amount)


def _priced_again(event: ModelUsage, tenant_id: int, book: PriceBook) -> int | None:
    """What the event should have taken by the book of now; None where the book has no price for it any more."""
    entry = book.entry_of(tenant_id, event.model)
    if entry is None:
        return None
    try:
        row = entry.row_at(clock.to_ms(event.occurred_at))
        return cost.price(row, rerated.tokens(event), event.margin_bps).charge_nano
    except errors.TallybookError:
        return None


def _note_prices(difference: Difference, events: Iterable[ModelUsage], book: PriceBook, through: int) -> None:
    """Keep with each hour that is to be adjusted by which price rows, and for which usage."""
    models: dict[datetime, set[str]] = {}
    for event in events:
        models.setdefault(event.hour, set()).add(event.model)
    for hour, names in models.items():
        total = difference.hours[hour]
        if total.owed:
            total.prices = {each: _rows_of(difference.customer.tenant.id, each, hour, book) for each in sorted(names)}
            total.through = through


def _rows_of(tenant_id: int, model: str, hour: datetime, book: PriceBook) -> list[tuple[int, int]]:
    entry, start_ms = book.entry_of(tenant_id, model), clock.to_ms(hour)
    rows = [] if entry is None else entry.rows_between(start_ms, start_ms + rerated.HOUR_MS)
    return [(from_ms, row.id) for from_ms, row in rows]


async def write(services: Services, difference: Difference) -> Written:
    """Adjust a customer's balance by what is owed, hour by hour. Raises what the till raises; then run it all again."""
    adjusted: list[Adjusted] = []
    waiting = list(difference.open_hours)
    refused: str | None = None
    attempts = 0
    while waiting and refused is None:
        standing = await _standing(services, difference)
        refused = _no_balance(standing)
        if standing is None or refused is not None:
            break
        now, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        charges = [_charge(standing, hour, difference.hours[hour]) for hour in now]
        for hour, charge, receipt in zip(now, charges, await services.till.charge(charges), strict=True):
            if receipt.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE):
                adjusted.append(Adjusted(hour, ids.event_public_id(charge.record.digest), -charge.amount))
            elif receipt.outcome is Outcome.STALE and attempts < _ATTEMPTS * _AT_ONCE:
                attempts += 1
                waiting.append(hour)
            else:
                refused = refused or _REASONS[receipt.outcome]
    return Written(adjusted, refused)


async def _standing(services: Services, difference: Difference) -> Standing | None:
    customer = difference.customer
    async with postgres.snapshot(services.database) as connection:
        return await adjustment.standing_of(services, connection, customer.tenant, customer.public_id, services.clock())


def _no_balance(standing: Standing | None) -> str | None:
    if standing is None:
        return "the customer has no subscription that runs"
    if standing.subscription.consumption_model is not ConsumptionModel.BALANCE:
        return "the customer's plan holds no balance now"
    return None


_REASONS = {
    Outcome.REFUSED: "the balance does not cover it, and the plan blocks",
    Outcome.STALE: "the customer's terms keep changing",
    Outcome.LIMIT: "the balance would leave the range in which it is exact",
    Outcome.FROZEN: "the customer's pools are frozen because they did not reconcile",
    Outcome.CONFLICT: "an adjustment with this id holds another amount",
}


def _charge(standing: Standing, hour: datetime, total: HourTotal) -> Charge:
    terms, paying = standing.terms, standing.period
    hour_s = clock.to_ms(hour) // 1000
    pool = pools.balance(standing.subscription.subscription_id, paying.grant_start_s)
    # How often it was adjusted before is part of the identity: the same step taken twice is one, a later step is another.
    identity = f"\x01rerate\x01{hour_s}\x01{total.adjustments}\x01{total.rerated}\x01{total.owed}"
    record = usage_log.Record(
        kind=usage_log.Kind.ADJUSTMENT,
        tenant_id=terms.tenant.id,
        customer_id=terms.customer_id,
        digest=ids.event_digest(terms.tenant.id, terms.customer_id, identity),
        pool=pool,
        amount=-total.owed,
        period_start_s=paying.start_s,
        belongs_to_s=hour_s if hour_s < paying.start_s else 0,
        occurred_at_ms=hour_s * 1000,
        properties=model_usage.rerate_properties(hour, total.prices, total.through),
        reason="rerate",
        fingerprint=commands.fingerprint(f"{pool}\0{total.owed}"),
    )
    return Charge(
        partition=terms.partition,
        record=record,
        amount=-total.owed,
        opening=paying.balance_opening,
        blocks=standing.subscription.blocks_on_exhaustion or not paying.overage_allowed,
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
    )

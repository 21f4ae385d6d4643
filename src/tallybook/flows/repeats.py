"""The sweep: what was counted twice because only the book still knew of the first time is found, taken back, and told.

The till forgets an id after the hot window at the earliest, and `old_ids` asks the book about events that are dated before that. What
is left is an event without a date that is sent again days later, or with a date that is not true. It is looked for daily among all
customers, and for each customer before its period is billed, so that no invoice has it. The database looks, with one aggregate
over the customers' events; only what it finds is touched one by one.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from tallybook.charge.commands import FINGERPRINT_BYTES, IDEMPOTENCY_BYTES, Outcome
from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.customers import store as customers
from tallybook.flows import old_ids, rerated, void
from tallybook.flows.services import Services
from tallybook.flows.void import Refund
from tallybook.rollup import events
from tallybook.rollup.events import Booked
from tallybook.storage import postgres
from tallybook.subscriptions import terms_loader
from tallybook.subscriptions.model import UsagePeriod
from tallybook.subscriptions.terms import Terms

_LOG = logging.getLogger(__name__)
EVERY = timedelta(days=1)
REASON = "counted before under the same event id"
_CUSTOMERS_AT_ONCE = 200
_CHARGES_AT_ONCE = 500
_ATTEMPTS = 5
_OVERLAP = timedelta(days=1)
"""How far a search reaches back behind the one before: for what the book got late."""
_FINGERPRINT = bytes(FINGERPRINT_BYTES + IDEMPOTENCY_BYTES)
_TAKEN_BACK = (Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a search did: events taken back by it, and customers with repeats that could not be taken back."""

    customers: int
    voided: int
    stuck: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Owner:
    """A customer, and where its period that is being closed starts (Unix seconds), if one is."""

    tenant: Tenant
    customer_id: int
    closing_s: int | None = None


async def sweep_if_due(services: Services) -> Sweep | None:
    """Search among all customers with usage since the last time, once a day, one worker at a time. None when it is not due."""
    async with services.database.acquire() as claim:
        if not await events.try_claim_sweep(claim):
            return None
        try:
            now, last = services.clock(), await events.swept_until(claim)
            if last is not None and now - last < EVERY:
                return None
            since = now - old_ids.retention(services.settings) if last is None else last - _OVERLAP
            owners = [
                _Owner(Tenant(tenant_id, organization_id, livemode), customer_id)
                for customer_id, tenant_id, organization_id, livemode in await events.customers_with_usage(claim, since)
            ]
            swept = await _sweep(services, owners, now)
            await events.note_swept(claim, now)
            return swept
        finally:
            await events.release_sweep(claim)


async def before_billing(services: Services, periods: Sequence[UsagePeriod]) -> Sweep:
    """Take back what customers were charged twice before these periods, which the book has read to the end, are billed.

    When any was found, the book has to read what this wrote to the log before it is billed.
    """
    owners = [_Owner(period.tenant, period.customer_id, period.span.key_s) for period in periods]
    return await _sweep(services, owners, services.clock())


async def _sweep(services: Services, owners: Sequence[_Owner], now: datetime) -> Sweep:
    voided, with_repeats, stuck = 0, 0, set[int]()
    since = now - old_ids.retention(services.settings)
    for start in range(0, len(owners), _CUSTOMERS_AT_ONCE):
        chunk = {owner.customer_id: owner for owner in owners[start : start + _CUSTOMERS_AT_ONCE]}
        async with services.database.acquire() as connection:
            found = await events.repeats(connection, chunk, since)
        for customer_id, repeats in groupby(found, lambda booked: booked.record.customer_id):
            with_repeats += 1
            taken, left_over = await _take_back(services, chunk[customer_id], list(repeats))
            voided += taken
            if left_over:
                stuck.add(customer_id)
    if voided:
        services.observe_repeats(voided)
        _LOG.warning("repeats: took back %d events of %d customers that were counted before", voided, with_repeats)
    return Sweep(with_repeats, voided, frozenset(stuck))


async def _take_back(services: Services, owner: _Owner, repeats: Sequence[Booked]) -> tuple[int, int]:
    """Take events of one customer back. Returns how many this did, and how many nobody could.

    While a re-rating runs nobody knows yet what it takes for them: then they stay before a period is billed, which waits for them, and
    the daily search raises Unavailable, to be begun anew.
    """
    async with postgres.transaction(services.database) as connection:
        if any(event.record.price_id for event in repeats):
            try:
                await rerated.wait_for_no_rerate(connection)
            except errors.Unavailable:
                if owner.closing_s is None:
                    raise
                return 0, len(repeats)
        voided, left_over = await _take_back_charged(services, owner, repeats, await rerated.shares(connection, repeats))
    if left_over:
        _LOG.critical(
            "repeats: %d events of customer %d were counted twice and can't be taken back", left_over, owner.customer_id
        )
    return voided, left_over


async def _take_back_charged(
    services: Services, owner: _Owner, repeats: Sequence[Booked], shares: Mapping[str, int]
) -> tuple[int, int]:
    """The same, by what re-ratings took for each event beside its own amount."""
    voided, homeless, pending = 0, 0, list(repeats)
    for _ in range(_ATTEMPTS):
        refunds = await _refunds(services, owner, pending)
        stale: list[Booked] = []
        for start in range(0, len(refunds), _CHARGES_AT_ONCE):
            part = refunds[start : start + _CHARGES_AT_ONCE]
            charges = [void.charge(event, refund, REASON, _FINGERPRINT, services.settings.partitions) for event, refund in part]
            beside = [
                rerated.taken_back(charge, shares[event.place])
                for charge, (event, _) in zip(charges, part, strict=True)
                if event.place in shares
            ]
            receipts = (await services.till.charge([*charges, *beside]))[: len(charges)]
            voided += sum(receipt.outcome is Outcome.ACCEPTED for receipt in receipts)
            stale += [event for (event, _), receipt in zip(part, receipts, strict=True) if receipt.outcome not in _TAKEN_BACK]
        homeless = len(pending) - len(refunds)
        pending = stale
        if not stale:
            break
    return voided, len(pending) + homeless


async def _refunds(services: Services, owner: _Owner, repeats: Iterable[Booked]) -> list[tuple[Booked, Refund]]:
    """Each event with where it goes back to; those without such a place are left out."""
    view = await services.till.read(owner.tenant.id, owner.customer_id)
    terms = await _terms(services, owner)
    found: list[tuple[Booked, Refund]] = []
    for event in repeats:
        in_closing = event.record.period_start_s == owner.closing_s
        refund = void.refund_to_own_pool(event, view) if in_closing else None
        if refund is None and terms is not None:
            refund = void.refund_by_terms(event, terms)
        if refund is not None:
            found.append((event, refund))
    return found


async def _terms(services: Services, owner: _Owner) -> Terms | None:
    async with postgres.snapshot(services.database) as connection:
        customer = await customers.by_id(connection, owner.tenant, owner.customer_id)
        if customer is None:
            return None
        return await terms_loader.load(
            connection, owner.tenant, customer.public_id, services.clock(), services.settings.partitions
        )

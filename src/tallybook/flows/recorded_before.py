"""What is refused now may have been recorded before: then it is a repeat, whatever has changed since.

A subscription that has ended, a feature that left the plan, a model that nobody knows any more: usage that fails on these never
reaches the till, which would know it. So the till is asked which identities of refused events it remembers, and the book what
they were. Nothing of it costs events that are taken.
"""

from collections.abc import Mapping

import msgspec

from tallybook.catalog import store as catalog
from tallybook.catalog.model import FeatureTerms
from tallybook.charge import recall
from tallybook.charge.commands import Charge, Receipt
from tallybook.core import clock, errors, ids, pools
from tallybook.core.pools import PoolKind, PoolName
from tallybook.flows import booked_events, old_ids
from tallybook.flows.price_event import PricedEvent
from tallybook.flows.services import Services
from tallybook.receive.model import Event
from tallybook.rollup.events import Booked
from tallybook.storage import postgres
from tallybook.subscriptions import rules, store
from tallybook.subscriptions.terms import ConsumptionModel, Tariff, Terms

_PAID_FROM = {
    PoolKind.BALANCE: ConsumptionModel.BALANCE,
    PoolKind.CREDITS: ConsumptionModel.CREDITS,
    PoolKind.PURCHASED: ConsumptionModel.CREDITS,
    PoolKind.FEATURE: ConsumptionModel.METERED,
}
_MAY_PASS = (errors.Unavailable, errors.RateLimited)
"""Errors that say nothing about the event itself."""

Known = tuple[PricedEvent, Receipt] | errors.TallybookError


class Refused(msgspec.Struct, frozen=True, gc=False):
    """An event that was not priced, with the customer's terms; `fingerprint` ends with the hash of the request's key."""

    event: Event
    terms: Terms
    digest: bytes
    fingerprint: bytes


def refused(event: Event, why: errors.TallybookError, terms: Terms | None, identity: str, idempotency: bytes) -> Refused | None:
    """The event as one to ask about; None when it was not refused for good, or nobody knows its customer."""
    if terms is None or isinstance(why, _MAY_PASS):
        return None
    digest = ids.event_digest(terms.tenant.id, terms.customer_id, identity)
    return Refused(event, terms, digest, event.fingerprint + idempotency)


async def look_up(services: Services, asked: Mapping[int, Refused]) -> Mapping[int, Known]:
    """By place: what was recorded, and Unavailable where that can't be said yet. What is not in it was never taken.

    Raises Unavailable when the till can't be asked.
    """
    if not asked:
        return {}
    known = await recall.remembered(services.redis, {one.digest: one.terms.partition for one in asked.values()})
    if not known:
        return {}
    booked = await booked_events.originals(services, known)
    return {
        place: await _as_recorded(services, one, booked.get(one.digest)) for place, one in asked.items() if one.digest in known
    }


async def _as_recorded(services: Services, one: Refused, booked: Booked | None) -> Known:
    if booked is None:
        return booked_events.not_read_yet()
    try:
        tariff = await _tariff(services, one, booked)
    except postgres.TRANSIENT_ERRORS:
        return booked_events.not_read_yet()
    charge = Charge(one.terms.partition, booked.record, -booked.record.amount, blocks=tariff.blocks)
    return PricedEvent(one.event, tariff, charge), old_ids.receipt(booked, one.fingerprint)


async def _tariff(services: Services, one: Refused, booked: Booked) -> Tariff:
    """What the event went by, as far as its answer tells of it; the terms of then are gone."""
    record, terms, pool = booked.record, one.terms, pools.parse(booked.record.pool)
    return Tariff(
        from_ms=0,
        until_ms=0,
        tenant_id=record.tenant_id,
        customer_id=record.customer_id,
        customer_public_id=terms.customer_public_id,
        livemode=terms.tenant.livemode,
        partition=terms.partition,
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
        simulated_at=terms.simulated_at,
        consumption_model=_PAID_FROM[pool.kind],
        period_start_s=record.period_start_s,
        feature=_feature(one, booked),
        pool=record.pool,
        opening=0,
        blocks=pool.kind is not PoolKind.BALANCE or await _balance_blocks(services, pool),
        spare_pool="",
        by_model=record.model is not None,
        margin_bps=record.margin_bps,
    )


def _feature(one: Refused, booked: Booked) -> FeatureTerms:
    code = one.event.feature_code
    return FeatureTerms(
        feature_id=booked.record.feature_id,
        code=code,
        name=code,
        unit_name=None,
        type="usage",
        enabled=False,
        included_nano=0,
        unlimited=False,
        overage_enabled=False,
        unit_price_nano=0,
        credits_per_unit=None,
        pricing_mode="fixed" if booked.record.model is None else "ai_model",
        margin_bps=booked.record.margin_bps,
    )


async def _balance_blocks(services: Services, pool: PoolName) -> bool:
    """Whether usage stops when a subscription's balance is used up."""
    async with services.database.acquire() as connection:
        subscription = await store.by_id(connection, pool.subscription_id)
        plan = await catalog.plan_by_id(connection, subscription.plan_id)
    is_trial = rules.in_trial(subscription.trial_ends_at, clock.from_ms(pool.period_start_s * 1000))
    return is_trial or (plan is not None and (plan.is_free or bool(plan.block_on_exhaustion)))

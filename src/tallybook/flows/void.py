"""Taking back a usage event: one record with all of its measures in the negative, and what it took given back in the same step.

The event's row is never changed. What its period's pools gave goes back to them while that period is open. An issued invoice is
never changed either, so for an event of a closed period the open one gets it back, and the record names where it belongs, as late
usage does. A void belongs to a place in the log, so each row is taken back once, however often that is asked for. What re-ratings
took for the event goes back in the same step (`rerated`).
"""

from dataclasses import dataclass

import msgspec

from tallybook.charge import commands
from tallybook.charge.commands import FINGERPRINT_BYTES, Charge, Outcome, Receipt
from tallybook.charge.till import CustomerView
from tallybook.core import errors, ids, partitions, pools, usage_log
from tallybook.core.pools import PoolKind
from tallybook.core.tenant import Tenant
from tallybook.flows import freezing, rerated
from tallybook.flows.services import Services
from tallybook.rollup import events
from tallybook.rollup.events import Booked
from tallybook.storage.postgres import Connection
from tallybook.subscriptions import terms_loader
from tallybook.subscriptions.terms import ConsumptionModel, PeriodTerms, Terms

_ATTEMPTS = 5
_NEGATED = (
    *("amount", "quantity_nano", "cost_nano", "input_tokens", "output_tokens"),
    *("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "web_searches"),
)


@dataclass(frozen=True, slots=True)
class Refund:
    """The pool that gets an event's amount back, what its terms grant it, and which period counts that."""

    pool: str
    opening: int
    period_start_s: int
    tenant_version: int
    customer_version: int


@dataclass(frozen=True, slots=True)
class Voided:
    """An event, why it was taken back, and when, in Unix milliseconds."""

    event: Booked
    reason: str | None
    at_ms: int


async def void(
    services: Services, connection: Connection, tenant: Tenant, event: Booked, customer: str, reason: str, key: str | None
) -> Voided:
    """Take an event back; `key`, the request's idempotency key, makes a repeat the same void. `customer` is its `cus_…` id.

    Raises Conflict (`already_voided`, `no_open_period` when there is no open period with such a pool), ValidationError and Unavailable.
    """
    fingerprint = bytes(FINGERPRINT_BYTES) + commands.idempotency_hash(key)
    before = await events.void_of(connection, event)
    if before is not None:
        if not commands.is_same_request(before.record.fingerprint, fingerprint):
            raise _already(event)
        return Voided(event, before.record.reason, int(before.accepted_at.timestamp() * 1000))
    share = await _rerated_share(connection, event)
    for _ in range(_ATTEMPTS):
        terms = await terms_loader.load(connection, tenant, customer, services.clock(), services.settings.partitions)
        refund = None if terms is None else refund_by_terms(event, terms)
        if refund is None:
            raise errors.Conflict(
                "no_open_period", "The customer has no open period with a pool that could take back what the event took."
            )
        charges = charge_all(event, refund, reason, fingerprint, services.settings.partitions, share)
        receipt, *_ = await services.till.charge(charges)
        if receipt.outcome is not Outcome.STALE:
            return _voided(event, reason, receipt)
    raise errors.Unavailable("terms_changing", "The customer's terms keep changing; send the same request again.")


async def _rerated_share(connection: Connection, event: Booked) -> int:
    if not event.record.price_id:
        return 0
    await rerated.wait_for_no_rerate(connection)
    return await rerated.share(connection, event)


def _voided(event: Booked, reason: str, receipt: Receipt) -> Voided:
    if receipt.outcome in (Outcome.DUPLICATE, Outcome.CONFLICT) and not receipt.same_request:
        raise _already(event)
    if receipt.outcome is Outcome.LIMIT:
        raise errors.invalid("id", "The pool would leave the range in which it is exact (4e18 of its smallest unit).")
    if receipt.outcome is Outcome.FROZEN:
        raise freezing.refusal(receipt)
    return Voided(event, reason, receipt.accepted_at_ms)


def _already(event: Booked) -> errors.Conflict:
    return errors.Conflict(
        "already_voided", f"Event {ids.event_public_id(event.record.digest)} was taken back before.", param="id"
    )


def refund_by_terms(event: Booked, terms: Terms) -> Refund | None:
    """Where an event's amount goes back to by the customer's terms: its own pool, or the open period's of the same kind."""
    subscription = terms.subscription
    if subscription is None or not subscription.periods:
        return None
    paid_by = pools.parse(event.record.pool)
    first = subscription.periods[0]
    period = next((one for one in subscription.periods if one.start_s == event.record.period_start_s), first)
    found = _pool_of(paid_by.kind, paid_by.feature_id, subscription.consumption_model, subscription.subscription_id, period)
    if found is None:
        return None
    return Refund(*found, period.start_s, terms.tenant_version, terms.customer_version)


def _pool_of(
    kind: PoolKind, feature_id: int, model: ConsumptionModel, subscription_id: int, period: PeriodTerms
) -> tuple[str, int] | None:
    """A period's pool of a kind and what its terms grant it; None when the plan has none."""
    if kind is PoolKind.BALANCE and model is ConsumptionModel.BALANCE:
        return pools.balance(subscription_id, period.grant_start_s), period.balance_opening
    if kind is PoolKind.CREDITS and model is ConsumptionModel.CREDITS:
        return pools.credits(subscription_id, period.grant_start_s), period.credits_opening
    feature = next((one for one in period.features.values() if one.feature_id == feature_id), None)
    if kind is PoolKind.FEATURE and model is ConsumptionModel.METERED and feature is not None:
        return pools.feature(subscription_id, feature_id, period.start_s), feature.included_nano
    return None


def refund_to_own_pool(event: Booked, view: CustomerView) -> Refund | None:
    """Back to the very pool that paid, in a period that is being closed; None once the till has dropped it."""
    state = view.pools.get(event.record.pool)
    if state is None:
        return None
    record = event.record
    return Refund(record.pool, state.opening, record.period_start_s, view.tenant_version, view.customer_version)


def charge_all(event: Booked, refund: Refund, reason: str, fingerprint: bytes, partition_count: int, share: int) -> list[Charge]:
    """`charge`, and beside it what gives back what re-ratings took for the event (`share`), if they took anything."""
    void_charge = charge(event, refund, reason, fingerprint, partition_count)
    return [void_charge, rerated.taken_back(void_charge, share)] if share else [void_charge]


def charge(event: Booked, refund: Refund, reason: str, fingerprint: bytes, partition_count: int) -> Charge:
    """What asks the till to take an event back."""
    record, stays = event.record, refund.period_start_s == event.record.period_start_s
    void_record = msgspec.structs.replace(
        record,
        kind=usage_log.Kind.VOID,
        digest=ids.event_digest(record.tenant_id, record.customer_id, f"\x01void\x01{event.place}"),
        pool=refund.pool,
        period_start_s=refund.period_start_s,
        belongs_to_s=record.belongs_to_s if stays else record.belongs_to_s or record.occurred_at_ms // 1000,
        reason=reason,
        fingerprint=fingerprint,
        voids=event.place,
        **{name: -getattr(record, name) for name in _NEGATED},
    )
    return Charge(
        partition=partitions.of(record.tenant_id, record.customer_id, partition_count),
        record=void_record,
        amount=record.amount - event.spare_amount,
        opening=refund.opening,
        spare_pool=pools.PURCHASED_CREDITS if event.spare_amount else "",
        tenant_version=refund.tenant_version,
        customer_version=refund.customer_version,
        for_spare=event.spare_amount,
    )

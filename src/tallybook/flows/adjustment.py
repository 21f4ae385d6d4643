"""A balance or credits corrected by hand, without charging anybody: through the till, like every other change of a pool."""

import secrets
from dataclasses import dataclass
from datetime import datetime

from tallybook.charge import commands
from tallybook.charge.commands import Charge, Outcome, Receipt
from tallybook.core import clock, errors, ids, money, pools, usage_log
from tallybook.core.tenant import Tenant
from tallybook.flows import freezing
from tallybook.flows.access import Standing
from tallybook.flows.services import Services
from tallybook.storage.postgres import Connection
from tallybook.subscriptions import terms_loader
from tallybook.subscriptions.model import Subscription
from tallybook.subscriptions.terms import ConsumptionModel

_ATTEMPTS = 5
CREDITS_MAX = money.AMOUNT_MAX // money.NANO
RATE_MAX = money.AMOUNT_MAX // money.NANO_PER_RATE


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What is asked for: a signed amount in whole credits or rate scale. `kind` None: what the plan holds."""

    amount: int
    kind: str | None
    reason: str | None
    key: str | None


async def standing_of(
    services: Services, connection: Connection, tenant: Tenant, reference: str, real_now: datetime
) -> Standing | None:
    """Where a customer stands, read over the caller's own connection; None without an open subscription or usage period."""
    terms = await terms_loader.load(connection, tenant, reference, real_now, services.settings.partitions)
    if terms is None or terms.subscription is None:
        return None
    now = terms.now(real_now)
    period = terms.subscription.period_at(clock.to_ms(now) // 1000)
    if period is None or terms.subscription.has_ended_at(clock.to_ms(now) // 1000):
        return None
    return Standing(terms, terms.subscription, period, await services.till.read(tenant.id, terms.customer_id), now)


async def adjust(
    services: Services, connection: Connection, subscription: Subscription, tenant: Tenant, wanted: Adjustment, real_now: datetime
) -> int | float:
    """Add to (or take from) credits or the running period's balance. Returns what there is after it, same unit.

    Credits that are added last until they are used, like purchased ones, and are the first to be taken; after them the plan's are.
    `wanted.key` makes a repeat the same adjustment. Raises Conflict (`subscription_not_active`, `idempotency_key_mismatch`),
    BillingError (`insufficient_credits`, `insufficient_balance`) when a blocking pool would go below zero, ValidationError
    and Unavailable.
    """
    identity = f"\x01adjust\x01{wanted.key or secrets.token_hex(16)}"
    for _ in range(_ATTEMPTS):
        standing = await standing_of(services, connection, tenant, subscription.customer_public_id, real_now)
        if standing is None or standing.subscription.subscription_id != subscription.id:
            raise errors.Conflict(
                "subscription_not_active", f"Subscription {subscription.public_id} has ended; there is nothing to adjust."
            )
        charge = _charge(standing, wanted, identity)
        [receipt] = await services.till.charge([charge])
        if receipt.outcome is not Outcome.STALE:
            return _left(standing, charge, receipt)
    raise errors.Unavailable("terms_changing", "The customer's terms keep changing; send the same request again.")


def _charge(standing: Standing, wanted: Adjustment, identity: str) -> Charge:
    holds_credits = _check(standing, wanted)
    terms, period = standing.terms, standing.period
    nano = wanted.amount * (money.NANO if holds_credits else money.NANO_PER_RATE)
    pool, opening, spare_pool = _pools(standing, holds_credits=holds_credits, takes=nano < 0)
    record = usage_log.Record(
        kind=usage_log.Kind.ADJUSTMENT,
        tenant_id=terms.tenant.id,
        customer_id=terms.customer_id,
        digest=ids.event_digest(terms.tenant.id, terms.customer_id, identity),
        pool=pool,
        amount=nano,
        period_start_s=period.start_s,
        occurred_at_ms=clock.to_ms(standing.now),
        reason=wanted.reason,
        fingerprint=commands.fingerprint(f"{standing.subscription.public_id}\0{standing.subscription.consumption_model}\0{nano}"),
    )
    return Charge(
        partition=terms.partition,
        record=record,
        amount=nano,
        opening=opening,
        blocks=holds_credits or standing.subscription.blocks_on_exhaustion or not period.overage_allowed,
        spare_pool=spare_pool,
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
    )


def _pools(standing: Standing, *, holds_credits: bool, takes: bool) -> tuple[str, int, str]:
    """The pool that is adjusted, what the terms grant it, and the pool that is taken from before it."""
    subscription_id, period = standing.subscription.subscription_id, standing.period
    if not holds_credits:
        return pools.balance(subscription_id, period.grant_start_s), period.balance_opening, ""
    if takes:
        return pools.credits(subscription_id, period.grant_start_s), period.credits_opening, pools.PURCHASED_CREDITS
    return pools.PURCHASED_CREDITS, 0, ""


def _check(standing: Standing, wanted: Adjustment) -> bool:
    """Whether credits are adjusted, else the balance. Raises ValidationError for what the plan lacks or the bounds exclude."""
    model = standing.subscription.consumption_model
    if model is ConsumptionModel.METERED:
        raise errors.invalid("type", "The plan is metered: it holds neither a balance nor credits. Set usage with PUT /usage.")
    if wanted.kind is not None and wanted.kind != model.value:
        raise errors.invalid("type", f"type is {wanted.kind}, and the plan holds {model.value}.")
    most = CREDITS_MAX if model is ConsumptionModel.CREDITS else RATE_MAX
    if wanted.amount == 0 or abs(wanted.amount) > most:
        raise errors.invalid("amount", f"amount is {wanted.amount}; it must not be 0, nor beyond ±{most}.")
    return model is ConsumptionModel.CREDITS


def _left(standing: Standing, charge: Charge, receipt: Receipt) -> int | float:
    holds_credits = standing.subscription.consumption_model is ConsumptionModel.CREDITS
    if receipt.outcome is Outcome.REFUSED:
        code = "insufficient_credits" if holds_credits else "insufficient_balance"
        raise errors.BillingError(code, "There is not as much left as is to be taken away. Nothing was changed.", param="amount")
    if receipt.outcome is Outcome.CONFLICT:
        raise errors.Conflict("idempotency_key_mismatch", "This Idempotency-Key was used for another adjustment.")
    if receipt.outcome is Outcome.LIMIT:
        raise errors.invalid("amount", "The pool would leave the range in which it is exact (4e18 of its smallest unit).")
    if receipt.outcome is Outcome.FROZEN:
        raise freezing.refusal(receipt)
    if not holds_credits:
        return money.rate(receipt.left)
    return money.units(receipt.left + (receipt.spare_left if charge.spare_pool else standing.credits_left()))

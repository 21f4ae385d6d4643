"""Corrections of what has been counted: the period's total of a metered feature, set to what the caller's own source says."""

import secrets
from dataclasses import dataclass
from datetime import datetime

from tallybook.catalog.model import FeatureTerms
from tallybook.charge import commands
from tallybook.charge.commands import Charge, Outcome
from tallybook.core import clock, errors, ids, pools, usage_log
from tallybook.core.tenant import Tenant
from tallybook.flows import access, freezing
from tallybook.flows.access import Standing
from tallybook.flows.services import Services
from tallybook.receive.model import PeriodTotal
from tallybook.subscriptions.terms import ConsumptionModel

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Correction:
    """A total that was set. Quantities in nano-units."""

    id: str
    customer_id: str
    previous_nano: int
    total_nano: int
    at: datetime


async def set_period_total(services: Services, tenant: Tenant, wanted: PeriodTotal, key: str | None) -> Correction:
    """Set the running period's total; the till does it in one step, whatever arrives meanwhile.

    `key` makes a repeat the same correction. Raises BillingError for a plan that is not metered or a total over a hard limit,
    and as `access.standing` and `access.usable_feature` do.
    """
    identity = f"\x01set\x01{key or secrets.token_hex(16)}"
    for _ in range(_ATTEMPTS):
        standing = await access.standing(services, tenant, wanted.customer_id)
        feature = await access.usable_feature(services, standing, wanted.feature_code)
        charge = _charge(standing, feature, wanted, identity)
        [receipt] = await services.till.charge([charge])
        if receipt.outcome is not Outcome.STALE:
            break
        await services.terms.load(tenant, wanted.customer_id)
    else:
        raise errors.Unavailable("terms_changing", "The customer's terms keep changing; send the same request again.")
    if receipt.outcome is Outcome.REFUSED:
        raise errors.BillingError(
            "included_limit_reached", f"Feature {wanted.feature_code} stops at what the plan includes.", param="value"
        )
    if receipt.outcome is Outcome.CONFLICT:
        raise errors.Conflict("idempotency_key_mismatch", "This Idempotency-Key was used with another body before.")
    if receipt.outcome in (Outcome.FROZEN, Outcome.LIMIT):
        raise freezing.refusal(receipt)
    opening = receipt.amount + wanted.quantity_nano  # of the time it was set, also for a repeat
    return Correction(
        id=ids.event_public_id(charge.record.digest),
        customer_id=standing.terms.customer_public_id,
        previous_nano=opening - receipt.found,
        total_nano=wanted.quantity_nano,
        at=clock.from_ms(receipt.accepted_at_ms),
    )


def _charge(standing: Standing, feature: FeatureTerms, wanted: PeriodTotal, identity: str) -> Charge:
    if standing.subscription.consumption_model is not ConsumptionModel.METERED:
        message = f"Only metered features have a total to set; this plan's usage is paid from {standing.subscription.consumption_model}."
        raise errors.BillingError("pricing_mode_mismatch", message, param="featureCode")
    terms, period = standing.terms, standing.period
    left = feature.included_nano - wanted.quantity_nano
    record = usage_log.Record(
        kind=usage_log.Kind.SET,
        tenant_id=terms.tenant.id,
        customer_id=terms.customer_id,
        digest=ids.event_digest(terms.tenant.id, terms.customer_id, identity),
        pool=pools.feature(standing.subscription.subscription_id, feature.feature_id, period.start_s),
        amount=left,
        feature_id=feature.feature_id,
        period_start_s=period.start_s,
        occurred_at_ms=clock.to_ms(standing.now),
        reason=wanted.reason,
        fingerprint=commands.fingerprint(f"{wanted.feature_code}\0{wanted.quantity_nano}\0{wanted.reason or ''}"),
    )
    return Charge(
        partition=terms.partition,
        record=record,
        amount=left,
        opening=feature.included_nano,
        blocks=standing.blocks(feature),
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
    )

"""What a customer has now: one feature or all of them."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from tallybook.catalog.model import FeatureTerms
from tallybook.core import clock, money
from tallybook.entrypoints.http.routing import Call, Operation, Page
from tallybook.flows import access
from tallybook.flows.access import Standing
from tallybook.rollup import totals
from tallybook.rollup.totals import FeatureTotal
from tallybook.subscriptions.terms import ConsumptionModel

Json = dict[str, object]
_NOTHING = FeatureTotal(0, 0)


class AccessQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Whose access."""

    customer_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128, description="`cus_…` or your own id")]


class FeatureAccess(msgspec.Struct, rename="camel", kw_only=True):
    """A feature as a customer has it now. `consumption` is there for usage features, `enabled` for boolean ones."""

    code: str
    name: str
    unit_name: str | None
    allowed: bool
    type: str
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    consumption: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    object: str = "feature_access"


async def get(call: Call) -> FeatureAccess:
    """GET /feature-access/{code}."""
    standing = await access.standing(call.services, call.tenant, call.query.customer_id)
    feature = await access.feature(call.services, standing, call.path["code"])
    return _shown(feature, standing, await _used(call, standing))


async def list_all(call: Call) -> Page:
    """GET /feature-access. All features of the plan on one page."""
    standing = await access.standing(call.services, call.tenant, call.query.customer_id)
    used = await _used(call, standing)
    return Page([_shown(feature, standing, used) for feature in access.features(standing)], None)


async def _used(call: Call, standing: Standing) -> Mapping[int, FeatureTotal]:
    start = clock.from_ms(standing.period.start_s * 1000)
    subscription_id = standing.subscription.subscription_id
    return await totals.of_period(call.connection, call.tenant, standing.terms.customer_id, subscription_id, start)


def _shown(feature: FeatureTerms, standing: Standing, used: Mapping[int, FeatureTotal]) -> FeatureAccess:
    shown = FeatureAccess(
        code=feature.code,
        name=feature.name,
        unit_name=feature.unit_name,
        allowed=feature.enabled if feature.type == "boolean" else standing.may_use_more(feature),
        type=feature.type,
    )
    if feature.type == "boolean":
        shown.enabled = feature.enabled
    elif feature.type == "usage":
        model = standing.subscription.consumption_model
        shown.consumption = {
            "model": model.value,
            "period": _period(standing),
            **_CONSUMPTION[model](feature, standing, used.get(feature.feature_id, _NOTHING)),
        }
    return shown


def _period(standing: Standing) -> Json:
    bounds = (standing.period.start_s, standing.period.end_s)
    start, end = (clock.iso(clock.from_ms(second * 1000)) for second in bounds)
    return {"start": start, "end": end}


def _metered(feature: FeatureTerms, standing: Standing, _used: FeatureTotal) -> Json:
    left = standing.feature_left(feature)
    overage: Json = {
        "enabled": feature.overage_enabled and standing.period.overage_allowed,
        "units": 0 if feature.unlimited else money.units(max(-left, 0)),
    }
    if feature.overage_enabled:
        overage["unitPrice"] = _unit_price(feature)
    consumption: Json = {
        "unitsUsed": money.units(standing.feature_used(feature)),
        "includedUnits": money.units(feature.included_nano),
        "unlimited": feature.unlimited,
        "overage": overage,
    }
    if not feature.unlimited:
        consumption["remainingUnits"] = money.units(max(left, 0))
    return consumption


def _credits(feature: FeatureTerms, standing: Standing, used: FeatureTotal) -> Json:
    per_unit = feature.credits_per_unit or 0
    left = max(standing.credits_left(), 0) + standing.purchased_credits_left()
    return {
        "unitsUsed": money.units(used.quantity_nano),
        "creditsPerUnit": per_unit,
        "creditsConsumed": money.units(used.amount),
        "availableUnits": left // (per_unit * money.NANO) if per_unit else 0,
    }


def _balance(feature: FeatureTerms, standing: Standing, used: FeatureTotal) -> Json:
    consumption: Json = {
        "unitsUsed": money.units(used.quantity_nano),
        "spent": {"amount": money.cents(used.amount), "currency": "usd"},
    }
    if feature.pricing_mode == "fixed":
        consumption["unitPrice"] = _unit_price(feature)
        if feature.unit_price_nano:
            consumption["availableUnits"] = max(standing.balance_left(), 0) // feature.unit_price_nano
    return consumption


def _unit_price(feature: FeatureTerms) -> Json:
    return {"amount": money.rate(feature.unit_price_nano), "currency": "usd", "scale": 10_000}


_CONSUMPTION = {ConsumptionModel.METERED: _metered, ConsumptionModel.CREDITS: _credits, ConsumptionModel.BALANCE: _balance}

OPERATIONS = (
    Operation(
        method="GET",
        path="/feature-access/{code}",
        id="get-feature-access",
        summary="One feature as a customer has it now: access, what was used and what is left.",
        permission="usage",
        handler=get,
        query=AccessQuery,
        returns=FeatureAccess,
        refusals=(402,),
    ),
    Operation(
        method="GET",
        path="/feature-access",
        id="list-feature-access",
        summary="All features of a customer's plan as it has them now.",
        permission="usage",
        handler=list_all,
        query=AccessQuery,
        returns=FeatureAccess,
        is_list=True,
    ),
)

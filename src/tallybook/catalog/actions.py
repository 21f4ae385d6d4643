"""What happens to the catalog. Each is called inside a transaction, and all of it raises the tenant's terms version there.

A plan is held first, then the feature it is about, then the tenant: always in this order, so two changes never block each other.
"""

import dataclasses
from datetime import datetime

from tallybook.catalog import rules, store
from tallybook.catalog.model import (
    Feature,
    FeatureChange,
    FeatureRevision,
    FeatureSettings,
    NewFeature,
    NewPlan,
    NewPrice,
    Plan,
    PlanChange,
    PlanFeature,
    Price,
    PriceChange,
    SettingsChange,
)
from tallybook.core import errors, ids
from tallybook.core.tenant import Tenant
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy

# ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def create_feature(connection: Connection, tenant: Tenant, now: datetime, new: NewFeature) -> Feature:
    """Add a feature to the catalog. Raises Conflict (`feature_already_exists`)."""
    created = await store.insert_feature(connection, tenant, ids.new("feat"), now, new)
    if created is None:
        raise errors.Conflict("feature_already_exists", f"There is a feature {new.code} already.", param="code")
    await tenancy.bump_tenant_terms(connection, tenant)
    return created


async def update_feature(connection: Connection, tenant: Tenant, now: datetime, reference: str, change: FeatureChange) -> Feature:
    """Change what is given and leave the rest. Raises NotFound (`feature_not_found`), ValidationError when nothing is given."""
    given = rules.given(change)
    if not given:
        raise errors.invalid("", "Give at least one of name, description and unitName.")
    feature = await _hold_feature(connection, tenant, reference)
    updated = await store.update_feature(connection, dataclasses.replace(feature, **given), now)
    await tenancy.bump_tenant_terms(connection, tenant)
    return updated


async def delete_feature(connection: Connection, tenant: Tenant, now: datetime, reference: str) -> Feature:
    """Take a feature out of the catalog.

    Raises NotFound (`feature_not_found`), Conflict (`feature_in_use`) while a plan on offer includes it.
    """
    feature = await _hold_feature(connection, tenant, reference)
    plan_codes = await store.plans_with_feature(connection, tenant, feature)
    if plan_codes:
        message = f"Feature {feature.code} is on plans {', '.join(plan_codes)}; remove it there first."
        raise errors.Conflict("feature_in_use", message, param="code", details={"plans": plan_codes})
    await store.delete_feature(connection, feature, now)
    await tenancy.bump_tenant_terms(connection, tenant)
    return feature


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def create_plan(connection: Connection, tenant: Tenant, now: datetime, new: NewPlan) -> Plan:
    """Add a plan. Raises Conflict (`duplicate`) when its code is taken, ValidationError."""
    rules.check_metadata(new.metadata)
    created = await store.insert_plan(connection, tenant, ids.new("plan"), now, new)
    if created is None:
        raise errors.Conflict("duplicate", f"There is a plan {new.code} already.", param="code")
    await tenancy.bump_tenant_terms(connection, tenant)
    return created


async def update_plan(connection: Connection, tenant: Tenant, now: datetime, reference: str, change: PlanChange) -> Plan:
    """Change what is given and leave the rest. Raises NotFound (`plan_not_found`), ValidationError."""
    plan = await _hold_plan(connection, tenant, reference)
    changed = dataclasses.replace(plan, **rules.given(change))
    if changed == plan:
        return plan
    rules.check_metadata(changed.metadata)
    updated = await store.update_plan(connection, changed, now)
    await tenancy.bump_tenant_terms(connection, tenant)
    return updated


async def delete_plan(connection: Connection, tenant: Tenant, now: datetime, reference: str) -> Plan:
    """Take a plan off offer; subscriptions keep it. Raises NotFound (`plan_not_found`)."""
    plan = await _hold_plan(connection, tenant, reference)
    await store.delete_plan(connection, plan, now)
    await tenancy.bump_tenant_terms(connection, tenant)
    return plan


# ── features of a plan ───────────────────────────────────────────────────────────────────────────────────────────────


async def add_plan_feature(
    connection: Connection, tenant: Tenant, now: datetime, plan_reference: str, feature_reference: str, change: SettingsChange
) -> tuple[Plan, PlanFeature]:
    """Include a feature in a plan, for running periods too.

    Raises NotFound (`plan_not_found`, `feature_not_found`), Conflict (`feature_already_exists`), ValidationError.
    """
    plan = await _hold_plan(connection, tenant, plan_reference)
    feature = await _hold_feature(connection, tenant, feature_reference)
    if await _included(connection, plan, feature) is not None:
        raise errors.Conflict("feature_already_exists", f"Plan {plan.code} includes {feature.code} already.", param="featureId")
    rules.check_room(plan, await store.count_other_features(connection, plan, feature, now - rules.FEATURE_TAKEN_OFF_FOR))
    settings = rules.settings(plan, feature, None, change)
    return plan, await _revise(connection, tenant, now, plan, feature, settings)


async def update_plan_feature(
    connection: Connection, tenant: Tenant, now: datetime, plan_reference: str, feature_reference: str, change: SettingsChange
) -> tuple[Plan, PlanFeature]:
    """Change what is given; a running period takes of it what benefits its customer, the next one all.

    Raises NotFound (`plan_not_found`, `feature_not_found` also for a feature that is not on the plan), ValidationError.
    """
    plan, included = await _hold_plan_feature(connection, tenant, plan_reference, feature_reference)
    settings = rules.settings(plan, included.feature, included.settings, change)
    if settings == included.settings:
        return plan, included
    return plan, await _revise(connection, tenant, now, plan, included.feature, settings)


async def remove_plan_feature(
    connection: Connection, tenant: Tenant, now: datetime, plan_reference: str, feature_reference: str
) -> PlanFeature:
    """Take a feature off a plan; running periods keep it. Raises NotFound as `update_plan_feature`."""
    plan, included = await _hold_plan_feature(connection, tenant, plan_reference, feature_reference)
    return await _revise(connection, tenant, now, plan, included.feature, included.settings, removed=True)


async def _hold_plan_feature(
    connection: Connection, tenant: Tenant, plan_reference: str, feature_reference: str
) -> tuple[Plan, PlanFeature]:
    plan = await _hold_plan(connection, tenant, plan_reference)
    feature = await _hold_feature(connection, tenant, feature_reference)
    included = await _included(connection, plan, feature)
    if included is None:
        message = f"Plan {plan.code} doesn't include feature {feature.code}."
        raise errors.NotFound("feature_not_found", message, param="featureId")
    return plan, included


async def _included(connection: Connection, plan: Plan, feature: Feature) -> PlanFeature | None:
    contents = (await store.contents(connection, [plan]))[plan.id]
    return next((included for included in contents.features if included.feature.id == feature.id), None)


async def _revise(
    connection: Connection,
    tenant: Tenant,
    now: datetime,
    plan: Plan,
    feature: Feature,
    settings: FeatureSettings,
    *,
    removed: bool = False,
) -> PlanFeature:
    await store.add_feature_revision(connection, plan, FeatureRevision(feature.id, now, removed, settings))
    await _plan_changed(connection, tenant, now, plan)
    return PlanFeature(plan.id, feature, settings)


# ── prices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def add_price(
    connection: Connection, tenant: Tenant, now: datetime, plan_reference: str, new: NewPrice
) -> tuple[Plan, Price]:
    """Add a price to a plan. The first one on offer is the plan's default, whatever it says.

    Raises NotFound (`plan_not_found`), ValidationError.
    """
    plan = await _hold_plan(connection, tenant, plan_reference)
    rules.check_amounts(plan, new.billing_interval, new.amounts)
    rules.check_metadata(new.metadata)
    is_first = not await store.prices(connection, plan)
    public_id = ids.new("price")
    price_id = await store.insert_price(connection, plan, public_id, now, new)
    if is_first or new.is_default:
        await store.set_default_price(connection, plan, price_id, now)
    await _plan_changed(connection, tenant, now, plan)
    return plan, await _price(connection, plan, public_id)


async def update_price(
    connection: Connection, tenant: Tenant, now: datetime, plan_reference: str, price_id: str, change: PriceChange
) -> tuple[Plan, Price]:
    """Change what is given: amounts hold from the next renewal of a subscription on, and at once for new ones.

    Raises NotFound (`plan_not_found`, `price_not_found`), ValidationError.
    """
    plan = await _hold_plan(connection, tenant, plan_reference)
    price = await _price(connection, plan, price_id)
    amounts = rules.changed_amounts(price.amounts, change)
    rules.check_amounts(plan, price.billing_interval, amounts)
    metadata = {**price.metadata, **rules.given(change).get("metadata", {})}
    rules.check_metadata(metadata)
    if change.is_default is False and price.is_default:
        raise errors.invalid("isDefault", "A plan has one default price: make another price the default instead.")
    if amounts != price.amounts:
        await store.add_price_revision(connection, price.id, now, amounts)
    if change.is_default is True:
        await store.set_default_price(connection, plan, price.id, now)
    await store.update_price(connection, price, metadata, now)
    await _plan_changed(connection, tenant, now, plan)
    return plan, await _price(connection, plan, price_id)


async def delete_price(connection: Connection, tenant: Tenant, now: datetime, plan_reference: str, price_id: str) -> Price:
    """Take a price off offer; subscriptions bound to it keep it. The oldest price left becomes the default if this was it.

    Raises NotFound (`plan_not_found`, `price_not_found`).
    """
    plan = await _hold_plan(connection, tenant, plan_reference)
    price = await _price(connection, plan, price_id)
    await store.archive_price(connection, price, now)
    left = await store.prices(connection, plan)
    if price.is_default and left:
        await store.set_default_price(connection, plan, left[0].id, now)
    await _plan_changed(connection, tenant, now, plan)
    return price


async def _price(connection: Connection, plan: Plan, price_id: str) -> Price:
    for price in await store.prices(connection, plan):
        if price.public_id == price_id:
            return price
    raise store.price_not_found(plan, price_id)


# ── shared by the above ──────────────────────────────────────────────────────────────────────────────────────────────


def plan_not_found(reference: str) -> errors.NotFound:
    """The error of a reference that names no plan on offer."""
    return errors.NotFound("plan_not_found", f"There is no plan {reference[:128]!r} here.", param="id")


def feature_not_found(reference: str) -> errors.NotFound:
    """The error of a reference that names no feature in the catalog."""
    return errors.NotFound("feature_not_found", f"There is no feature {reference[:128]!r} here.", param="code")


async def _hold_plan(connection: Connection, tenant: Tenant, reference: str) -> Plan:
    plan = await store.hold_plan(connection, tenant, reference)
    if plan is None:
        raise plan_not_found(reference)
    return plan


async def _hold_feature(connection: Connection, tenant: Tenant, reference: str) -> Feature:
    feature = await store.hold_feature(connection, tenant, reference)
    if feature is None:
        raise feature_not_found(reference)
    return feature


async def _plan_changed(connection: Connection, tenant: Tenant, now: datetime, plan: Plan) -> None:
    await store.touch_plan(connection, plan, now)
    await tenancy.bump_tenant_terms(connection, tenant)

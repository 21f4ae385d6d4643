"""The catalog in the book."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, TypeVar

from tallybook.catalog import rules
from tallybook.catalog.model import (
    BillingInterval,
    Contents,
    Edition,
    Feature,
    FeatureRevision,
    FeatureSettings,
    FeatureTerms,
    NewFeature,
    NewPlan,
    NewPrice,
    Plan,
    PlanFeature,
    Price,
    PriceAmounts,
    PriceTerms,
)
from tallybook.core import errors, money
from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row

_SQL = queries.load("tallybook.catalog")
_Kind = TypeVar("_Kind", Feature, Plan, FeatureSettings, PriceAmounts)


# ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def feature_by_reference(connection: Connection, tenant: Tenant, reference: str) -> Feature | None:
    """The feature in the catalog that `feat_…` or a code names."""
    return await _feature(connection, "feature_by_reference", tenant, reference)


async def known_codes(connection: Connection, tenant: Tenant, codes: Iterable[str]) -> frozenset[str]:
    """Those of the codes that a feature in the catalog has."""
    return frozenset(row["code"] for row in await connection.fetch(_SQL["known_feature_codes"], tenant.id, list(codes)))


async def hold_feature(connection: Connection, tenant: Tenant, reference: str) -> Feature | None:
    """`feature_by_reference`, and nobody else changes, attaches or deletes the feature until the transaction ends."""
    return await _feature(connection, "hold_feature", tenant, reference)


async def _feature(connection: Connection, query: str, tenant: Tenant, reference: str) -> Feature | None:
    row = await connection.fetchrow(_SQL[query], tenant.id, reference)
    return None if row is None else _read(Feature, row)


async def features_page(connection: Connection, tenant: Tenant, before_id: int | None, limit: int) -> list[Feature]:
    """Up to `limit` features, newest first."""
    return [_read(Feature, row) for row in await connection.fetch(_SQL["features_page"], tenant.id, before_id, limit)]


async def insert_feature(
    connection: Connection, tenant: Tenant, public_id: str, now: datetime, new: NewFeature
) -> Feature | None:
    """Add a feature; None when its code is taken."""
    row = await connection.fetchrow(
        _SQL["insert_feature"], tenant.id, public_id, new.code, new.name, new.type, new.description, new.unit_name, now
    )
    return None if row is None else _read(Feature, row)


async def update_feature(connection: Connection, feature: Feature, now: datetime) -> Feature:
    """Write the feature as it is given."""
    row = await connection.fetchrow(_SQL["update_feature"], feature.id, feature.name, feature.description, feature.unit_name, now)
    return _read(Feature, _there(row))


async def delete_feature(connection: Connection, feature: Feature, now: datetime) -> None:
    """Take a feature out of the catalog."""
    await connection.execute(_SQL["delete_feature"], feature.id, now)


async def plans_with_feature(connection: Connection, tenant: Tenant, feature: Feature) -> list[str]:
    """Codes of up to five plans on offer that include the feature."""
    return [row["code"] for row in await connection.fetch(_SQL["plans_with_feature"], tenant.id, feature.id)]


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def plan_by_id(connection: Connection, plan_id: int) -> Plan | None:
    """The plan with this row id, on offer or not."""
    row = await connection.fetchrow(_SQL["plan_by_id"], plan_id)
    return None if row is None else _read(Plan, row)


async def plan_by_reference(connection: Connection, tenant: Tenant, reference: str) -> Plan | None:
    """The plan on offer that `plan_…` or a code names."""
    return await _plan(connection, "plan_by_reference", tenant, reference)


async def hold_plan(connection: Connection, tenant: Tenant, reference: str) -> Plan | None:
    """`plan_by_reference`, and nobody else changes the plan, its features or prices until the transaction ends."""
    return await _plan(connection, "hold_plan", tenant, reference)


async def _plan(connection: Connection, query: str, tenant: Tenant, reference: str) -> Plan | None:
    row = await connection.fetchrow(_SQL[query], tenant.id, reference)
    return None if row is None else _read(Plan, row)


async def plans_page(
    connection: Connection, tenant: Tenant, before_id: int | None, limit: int, *, include_private: bool
) -> list[Plan]:
    """Up to `limit` plans on offer, newest first."""
    rows = await connection.fetch(_SQL["plans_page"], tenant.id, before_id, include_private, limit)
    return [_read(Plan, row) for row in rows]


async def contents(connection: Connection, plans: Sequence[Plan]) -> dict[int, Contents]:
    """What plans consist of now, by plan id."""
    plan_ids = [plan.id for plan in plans]
    features = [_plan_feature(row) for row in await connection.fetch(_SQL["features_of_plans"], plan_ids)]
    prices = await _prices(connection, plan_ids)
    return {
        plan_id: Contents(
            features=tuple(feature for feature in features if feature.plan_id == plan_id),
            prices=tuple(price for price in prices if price.plan_id == plan_id),
        )
        for plan_id in plan_ids
    }


async def insert_plan(connection: Connection, tenant: Tenant, public_id: str, now: datetime, new: NewPlan) -> Plan | None:
    """Add a plan; None when its code is taken."""
    row = await connection.fetchrow(
        _SQL["insert_plan"],
        tenant.id,
        public_id,
        new.code,
        new.name,
        new.description,
        new.consumption_model,
        new.is_public,
        new.is_free,
        new.block_on_exhaustion,
        new.metadata,
        now,
    )
    return None if row is None else _read(Plan, row)


async def update_plan(connection: Connection, plan: Plan, now: datetime) -> Plan:
    """Write the plan as it is given."""
    row = await connection.fetchrow(_SQL["update_plan"], plan.id, plan.name, plan.description, plan.metadata, plan.is_public, now)
    return _read(Plan, _there(row))


async def touch_plan(connection: Connection, plan: Plan, now: datetime) -> None:
    """Note that something in a plan changed."""
    await connection.execute(_SQL["touch_plan"], plan.id, now)


async def delete_plan(connection: Connection, plan: Plan, now: datetime) -> None:
    """Take a plan off offer."""
    await connection.execute(_SQL["delete_plan"], plan.id, now)


# ── features of a plan ───────────────────────────────────────────────────────────────────────────────────────────────


async def add_feature_revision(connection: Connection, plan: Plan, revision: FeatureRevision) -> None:
    """Append to the history of a feature on a plan."""
    settings = revision.settings
    await connection.execute(
        _SQL["insert_feature_revision"],
        plan.id,
        revision.feature_id,
        revision.effective_at,
        revision.removed,
        settings.enabled,
        settings.included_units,
        settings.unlimited,
        settings.overage_enabled,
        settings.unit_price_nano,
        settings.credits_per_unit,
        settings.pricing_mode,
        settings.margin_bps,
    )


async def count_other_features(connection: Connection, plan: Plan, feature: Feature, since: datetime) -> int:
    """How many features besides this one a plan includes, or has included after a time."""
    return await connection.fetchval(_SQL["count_other_features"], plan.id, feature.id, since)


async def edition(connection: Connection, plan_id: int, price_id: int | None, at: datetime | None = None) -> Edition:
    """What a period that begins at a moment begins with; without a moment, with what is there now."""
    row = _there(await connection.fetchrow(_SQL["edition"], plan_id, price_id, at))
    return Edition(row["features"], row["price"])


async def feature_terms(
    connection: Connection, plan_id: int, period_start: datetime, now: datetime, begun_with: int | None = None
) -> list[FeatureTerms]:
    """`features_of_period`, one entry a code: where a code was given to a new feature within the period, the new one has it."""
    found = await features_of_period(connection, plan_id, period_start, now, begun_with)
    return list({terms.code: terms for terms in found}.values())


async def features_of_period(
    connection: Connection, plan_id: int, period_start: datetime, now: datetime, begun_with: int | None = None
) -> list[FeatureTerms]:
    """What holds for every feature that a plan has had in a usage period that began at `period_start`, as of `now`; oldest first.

    That is the revision in force when the period began, with what later ones improve for the customer (`rules.fold_beneficial`).
    `begun_with` is the `Edition.features` of the period; None for one that has not begun.
    """
    plan = await plan_by_id(connection, plan_id)
    if plan is None:
        return []
    found: list[FeatureTerms] = []
    rows = await connection.fetch(_SQL["revisions_for_period"], plan_id, period_start, now, begun_with)
    for _, group in groupby(rows, key=_feature_id):
        history = list(group)
        model = rules.paid_by(plan, history[0]["type"])
        settings = rules.in_force([_revision(row) for row in history], period_start, model, begun_with)
        if settings is not None:
            found.append(_terms(history[0], settings))
    return found


# ── prices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def prices(connection: Connection, plan: Plan) -> list[Price]:
    """The prices on offer of a plan, oldest first."""
    return await _prices(connection, [plan.id])


async def price_for(connection: Connection, plan: Plan, interval: BillingInterval | None, price_id: str | None) -> Price | None:
    """The price on offer of a plan that a new subscription gets; None when the plan has none (for the interval).

    Raises NotFound (`price_not_found`) when `price_id` (`price_…`) is given and is not on offer on this plan and interval.
    """
    on_offer = await prices(connection, plan)
    if price_id is None:
        return rules.default_price(on_offer, interval)
    for price in on_offer:
        if price.public_id == price_id and interval in (None, price.billing_interval):
            return price
    raise price_not_found(plan, price_id, interval)


def price_not_found(plan: Plan, price_id: str, interval: BillingInterval | None = None) -> errors.NotFound:
    """The error of an id that names no price on offer of a plan."""
    which = "price" if interval is None else f"{interval} price"
    return errors.NotFound("price_not_found", f"Plan {plan.code} has no {which} {price_id[:128]!r} on offer.", param="priceId")


async def price_terms(
    connection: Connection, price_id: int, at: datetime | None = None, revision: int | None = None
) -> PriceTerms | None:
    """What a price charges and grants by a revision, else at a moment, else by its latest; None for a row id that is no price.

    A price that is younger than the moment counts with its first revision.
    """
    row = await connection.fetchrow(_SQL["price_at"], price_id, at, revision)
    if row is None:
        return None
    amounts = _read(PriceAmounts, row)
    model = row["consumption_model"] or "metered"
    return PriceTerms(
        price_id=row["price_id"],
        public_id=row["public_id"],
        billing_interval=row["billing_interval"],
        price_cents=amounts.price_cents,
        trial_days=amounts.trial_days,
        included_balance_nano=rules.granted_balance_nano(model, row["billing_interval"], amounts),
        included_credits=rules.granted_credits(model, amounts),
    )


async def insert_price(connection: Connection, plan: Plan, public_id: str, now: datetime, new: NewPrice) -> int:
    """Add a price that is not the default. Returns its row id."""
    price_id: int = await connection.fetchval(
        _SQL["insert_price"], plan.id, public_id, new.billing_interval, new.metadata or {}, now
    )
    await add_price_revision(connection, price_id, now, new.amounts)
    return price_id


async def add_price_revision(connection: Connection, price_id: int, now: datetime, amounts: PriceAmounts) -> None:
    """Append to the history of what a price charges and grants."""
    await connection.execute(
        _SQL["insert_price_revision"],
        price_id,
        now,
        amounts.price_cents,
        amounts.trial_days,
        amounts.included_balance_nano,
        amounts.included_credits,
    )


async def update_price(connection: Connection, price: Price, metadata: Mapping[str, Any], now: datetime) -> None:
    """Write the metadata of a price."""
    await connection.execute(_SQL["update_price"], price.id, metadata, now)


async def set_default_price(connection: Connection, plan: Plan, price_id: int, now: datetime) -> None:
    """Make a price the default of its plan."""
    await connection.execute(_SQL["set_default_price"], plan.id, price_id, now)


async def archive_price(connection: Connection, price: Price, now: datetime) -> None:
    """Take a price off offer."""
    await connection.execute(_SQL["archive_price"], price.id, now)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(kind: type[_Kind], row: Row) -> _Kind:
    return kind(**{field.name: row[field.name] for field in dataclasses.fields(kind)})


def _there(row: Row | None) -> Row:
    if row is None:
        message = "a row vanished inside the transaction that holds it"
        raise RuntimeError(message)
    return row


def _feature_id(row: Row) -> int:
    return row["feature_id"]


def _plan_feature(row: Row) -> PlanFeature:
    return PlanFeature(row["plan_id"], _read(Feature, row), _read(FeatureSettings, row))


async def tenants_pricing_by_model(connection: Connection) -> list[Tenant]:
    """Tenants that have a plan with a feature that is priced by AI model now."""
    rows = await connection.fetch(_SQL["tenants_pricing_by_model"])
    return [Tenant(row["id"], row["organization_id"], row["livemode"]) for row in rows]


def _revision(row: Row) -> FeatureRevision:
    return FeatureRevision(row["feature_id"], row["effective_at"], row["removed"], _read(FeatureSettings, row), row["id"])


async def _prices(connection: Connection, plan_ids: Sequence[int]) -> list[Price]:
    return [_price(row) for row in await connection.fetch(_SQL["prices_of_plans"], plan_ids)]


def _price(row: Row) -> Price:
    return Price(
        id=row["id"],
        plan_id=row["plan_id"],
        public_id=row["public_id"],
        billing_interval=row["billing_interval"],
        is_default=row["is_default"],
        metadata=row["metadata"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        amounts=_read(PriceAmounts, row),
    )


def _terms(row: Row, settings: FeatureSettings) -> FeatureTerms:
    return FeatureTerms(
        feature_id=row["feature_id"],
        code=row["code"],
        name=row["name"],
        unit_name=row["unit_name"],
        type=row["type"],
        enabled=settings.enabled,
        included_nano=settings.included_units * money.NANO,
        unlimited=settings.unlimited,
        overage_enabled=settings.overage_enabled,
        unit_price_nano=settings.unit_price_nano,
        credits_per_unit=settings.credits_per_unit,
        pricing_mode=settings.pricing_mode,
        margin_bps=settings.margin_bps,
    )

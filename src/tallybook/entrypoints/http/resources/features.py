"""Features of the catalog, and what plans say about them."""

from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.catalog import actions, model, store
from tallybook.core import clock, cursors, money
from tallybook.entrypoints.http.routing import Call, Operation, Page

LIST_MAX = 1000
BPS_PER_PERCENT = 100
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Description = Annotated[str, msgspec.Meta(max_length=2000)]
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[a-z0-9_]+(?!\n)$")]

Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Units = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
UnitPrice = Annotated[int, msgspec.Meta(ge=0, le=10_000_000_000, description="10000 = $1.00")]
CreditsPerUnit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Margin = Annotated[int, msgspec.Meta(ge=0, le=10_000, description="percent")]
_Nothing = TypeVar("_Nothing", None, UnsetType, UnsetType | None)


class CreateFeature(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A feature to create. Its code is what usage is sent for; lowercase letters, digits and underscores."""

    name: Name
    code: Code
    type: model.FeatureType
    description: Description | None = None
    unit_name: Name | None = None


class UpdateFeature(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to change of a feature, at least one; null removes."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    unit_name: Name | UnsetType | None = UNSET


class Overage(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Use beyond what is included. On a balance plan `unitPrice` is the fixed price of every unit."""

    enabled: bool | UnsetType = UNSET
    unit_price: UnitPrice | UnsetType = UNSET


class UpdatePlanFeature(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to change of a feature on a plan. `margin` is Tallybook's own."""

    enabled: bool | UnsetType = UNSET
    included_amount: Units | UnsetType = UNSET
    unlimited: bool | UnsetType = UNSET
    overage: Overage | UnsetType = UNSET
    credits_per_unit: CreditsPerUnit | UnsetType | None = UNSET
    margin: Margin | UnsetType | None = UNSET


class AddPlanFeature(UpdatePlanFeature, kw_only=True):
    """A feature to include in a plan: `feat_…` or its code."""

    feature_id: Reference
    pricing_mode: model.PricingMode | UnsetType = UNSET


class CatalogQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which part of the catalog: a list of it is whole unless a limit is given, up to a thousand entries."""

    cursor: Annotated[str, msgspec.Meta(max_length=128, description="nextCursor of the page before")] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_MAX, description="rows of a page")] = LIST_MAX


class Feature(msgspec.Struct, rename="camel", kw_only=True):
    """A capability that plans can include."""

    object: str = "feature"
    id: str
    name: str
    code: str
    type: model.FeatureType
    description: str | None
    unit_name: str | None
    created_at: str
    updated_at: str


class DeletedFeature(msgspec.Struct, rename="camel", kw_only=True):
    """A feature that is no longer in the catalog."""

    object: str = "feature"
    id: str
    deleted: bool = True


class PlanFeatureOverage(msgspec.Struct, rename="camel", kw_only=True):
    """Use beyond what is included."""

    enabled: bool
    unit_price: int | float


class PlanFeature(msgspec.Struct, rename="camel", kw_only=True):
    """What a plan says about a feature."""

    object: str = "plan_feature"
    plan_id: str
    feature_id: str
    enabled: bool
    included_amount: int
    unlimited: bool
    overage: PlanFeatureOverage
    credits_per_unit: int | None
    pricing_mode: model.PricingMode
    margin: int | None


class PlanFeatureItemOverage(msgspec.Struct, rename="camel", kw_only=True):
    """Use beyond what is included, as a plan shows it."""

    enabled: bool
    model: str | None
    unit_price: int | float | None


class PlanFeatureItem(msgspec.Struct, rename="camel", kw_only=True):
    """A feature as a plan shows it. `featureId`, `creditsPerUnit`, `pricingMode` and `margin` are Tallybook's own."""

    feature_id: str
    code: str
    name: str
    type: model.FeatureType
    unit_name: str | None
    enabled: bool
    included_amount: int | None
    unlimited: bool
    overage: PlanFeatureItemOverage | None
    credits_per_unit: int | None
    pricing_mode: model.PricingMode
    margin: int | None
    regional_prices: list[Any] = []


class RemovedPlanFeature(msgspec.Struct, rename="camel", kw_only=True):
    """A feature that is no longer on a plan."""

    object: str = "plan_feature"
    id: str
    removed: bool = True


async def create(call: Call) -> Feature:
    """Add a feature to the catalog."""
    body: CreateFeature = call.body
    new = model.NewFeature(code=body.code, name=body.name, type=body.type, description=body.description, unit_name=body.unit_name)
    return _shown(await actions.create_feature(call.connection, call.tenant, call.now, new))


async def get(call: Call) -> Feature:
    """The feature with this code (or `feat_…`)."""
    feature = await store.feature_by_reference(call.connection, call.tenant, call.path["code"])
    if feature is None:
        raise actions.feature_not_found(call.path["code"])
    return _shown(feature)


async def update(call: Call) -> Feature:
    """Change what is given and leave the rest."""
    body: UpdateFeature = call.body
    change = model.FeatureChange(name=body.name, description=body.description, unit_name=body.unit_name)
    return _shown(await actions.update_feature(call.connection, call.tenant, call.now, call.path["code"], change))


async def delete(call: Call) -> DeletedFeature:
    """Take a feature out of the catalog."""
    feature = await actions.delete_feature(call.connection, call.tenant, call.now, call.path["code"])
    return DeletedFeature(id=feature.public_id)


async def list_all(call: Call) -> Page:
    """Features, newest first."""
    query: CatalogQuery = call.query
    before_id = None if query.cursor is None else cursors.decode(query.cursor)
    found = await store.features_page(call.connection, call.tenant, before_id, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda feature: feature.id)
    return Page([_shown(feature) for feature in page], next_cursor)


async def add_to_plan(call: Call) -> PlanFeature:
    """Include a feature in a plan."""
    body: AddPlanFeature = call.body
    change = _change(body, body.pricing_mode)
    path = call.path["id"], body.feature_id
    return _plan_feature(*await actions.add_plan_feature(call.connection, call.tenant, call.now, *path, change))


async def update_on_plan(call: Call) -> PlanFeature:
    """Change what a plan says about a feature."""
    path = call.path["id"], call.path["featureId"]
    change = _change(call.body, UNSET)
    return _plan_feature(*await actions.update_plan_feature(call.connection, call.tenant, call.now, *path, change))


async def remove_from_plan(call: Call) -> RemovedPlanFeature:
    """Take a feature off a plan."""
    path = call.path["id"], call.path["featureId"]
    removed = await actions.remove_plan_feature(call.connection, call.tenant, call.now, *path)
    return RemovedPlanFeature(id=removed.feature.public_id)


def scaled(value: int | _Nothing, factor: int) -> int | _Nothing:
    """An amount of the wire in a finer unit; null and absent stay what they are."""
    return value * factor if isinstance(value, int) else value


def _change(body: UpdatePlanFeature, pricing_mode: model.PricingMode | UnsetType) -> model.SettingsChange:
    overage = body.overage if isinstance(body.overage, Overage) else Overage()
    return model.SettingsChange(
        enabled=body.enabled,
        included_units=body.included_amount,
        unlimited=body.unlimited,
        overage_enabled=overage.enabled,
        unit_price_nano=scaled(overage.unit_price, money.NANO_PER_RATE),
        credits_per_unit=body.credits_per_unit,
        pricing_mode=pricing_mode,
        margin_bps=scaled(body.margin, BPS_PER_PERCENT),
    )


def _plan_feature(plan: model.Plan, included: model.PlanFeature) -> PlanFeature:
    settings = included.settings
    return PlanFeature(
        plan_id=plan.public_id,
        feature_id=included.feature.public_id,
        enabled=settings.enabled,
        included_amount=settings.included_units,
        unlimited=settings.unlimited,
        overage=PlanFeatureOverage(enabled=settings.overage_enabled, unit_price=money.rate(settings.unit_price_nano)),
        credits_per_unit=settings.credits_per_unit,
        pricing_mode=settings.pricing_mode,
        margin=_percent(settings.margin_bps),
    )


def item_of_plan(included: model.PlanFeature) -> PlanFeatureItem:
    """A feature as its plan shows it."""
    feature, settings = included.feature, included.settings
    is_counted = feature.type != "boolean"
    return PlanFeatureItem(
        feature_id=feature.public_id,
        code=feature.code,
        name=feature.name,
        type=feature.type,
        unit_name=feature.unit_name,
        enabled=settings.enabled,
        included_amount=settings.included_units if is_counted else None,
        unlimited=settings.unlimited,
        overage=_item_overage(settings) if is_counted else None,
        credits_per_unit=settings.credits_per_unit,
        pricing_mode=settings.pricing_mode,
        margin=_percent(settings.margin_bps),
    )


def _item_overage(settings: model.FeatureSettings) -> PlanFeatureItemOverage:
    is_fixed = settings.pricing_mode == "fixed"
    return PlanFeatureItemOverage(
        enabled=settings.overage_enabled,
        model="per_unit" if is_fixed else None,
        unit_price=money.rate(settings.unit_price_nano) if is_fixed else None,
    )


def _percent(margin_bps: int | None) -> int | None:
    return None if margin_bps is None else margin_bps // BPS_PER_PERCENT


def _shown(feature: model.Feature) -> Feature:
    return Feature(
        id=feature.public_id,
        name=feature.name,
        code=feature.code,
        type=feature.type,
        description=feature.description,
        unit_name=feature.unit_name,
        created_at=clock.iso(feature.created_at),
        updated_at=clock.iso(feature.updated_at),
    )


_of_catalog = partial(Operation, permission="feature")
_of_plan = partial(Operation, permission="plan")

OPERATIONS = (
    _of_catalog(
        method="POST",
        path="/features",
        id="create-feature",
        summary="Add a feature to the catalog.",
        handler=create,
        body=CreateFeature,
        returns=Feature,
        example={"name": "AI chat", "code": "ai_chat", "type": "usage", "unitName": "token"},
    ),
    _of_catalog(
        method="GET",
        path="/features/{code}",
        id="get-feature",
        summary="Get a feature by its code.",
        handler=get,
        returns=Feature,
    ),
    _of_catalog(
        method="PATCH",
        path="/features/{code}",
        id="update-feature",
        summary="Change the name, description or unit name of a feature.",
        handler=update,
        body=UpdateFeature,
        returns=Feature,
        example={"name": "AI chat (all models)"},
    ),
    _of_catalog(
        method="DELETE",
        path="/features/{code}",
        id="delete-feature",
        summary="Delete a feature that no plan on offer includes.",
        handler=delete,
        returns=DeletedFeature,
    ),
    _of_catalog(
        method="GET",
        path="/features",
        id="list-features",
        summary="List the features of the catalog, newest first.",
        handler=list_all,
        query=CatalogQuery,
        returns=Feature,
        is_list=True,
    ),
    _of_plan(
        method="POST",
        path="/plans/{id}/features",
        id="add-plan-feature",
        summary="Include a feature in a plan, for running periods too.",
        handler=add_to_plan,
        body=AddPlanFeature,
        returns=PlanFeature,
        example={"featureId": "ai_chat", "pricingMode": "ai_model", "margin": 20},
    ),
    _of_plan(
        method="PATCH",
        path="/plans/{id}/features/{featureId}",
        id="update-plan-feature",
        summary="Change what a plan says about a feature; running periods take of it what benefits the customer.",
        handler=update_on_plan,
        body=UpdatePlanFeature,
        returns=PlanFeature,
        example={"includedAmount": 20000, "overage": {"enabled": True, "unitPrice": 50}},
    ),
    _of_plan(
        method="DELETE",
        path="/plans/{id}/features/{featureId}",
        id="remove-plan-feature",
        summary="Take a feature off a plan; running periods keep it.",
        handler=remove_from_plan,
        returns=RemovedPlanFeature,
    ),
)

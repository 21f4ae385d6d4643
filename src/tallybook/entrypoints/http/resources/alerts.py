"""Threshold alerts on balance, spend and usage, of one customer or of all: create, list, get, update, delete."""

import dataclasses
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.alerts import actions, model, rules, store
from tallybook.catalog import store as catalog
from tallybook.core import clock, cursors, errors, money
from tallybook.customers import store as customers
from tallybook.customers.rules import EXTERNAL_ID_BYTES_MAX
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page

_THRESHOLD_MAX = 4_000_000_000
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=rules.NAME_CHARACTERS_MAX)]
Threshold = Annotated[
    int,
    msgspec.Meta(ge=0, le=_THRESHOLD_MAX, description="rate scale (10000 = $1.00), credits, units or percent, as `unit` says"),
]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=EXTERNAL_ID_BYTES_MAX)]
Metric = Annotated[
    Literal["balance", "spend", "usage"],
    msgspec.Meta(description="what is left; what usage has cost in the period; what was used of a feature in the period"),
]
Unit = Literal["amount", "credits", "units", "percent"]


class CreateAlert(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A threshold. Without `customerId` it looks at every customer, each for itself."""

    metric: Metric
    threshold: Threshold
    unit: Unit
    name: Name | None = None
    customer_id: Reference | None = None
    feature_code: Reference | None = None


class UpdateAlert(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to change of an alert; what it looks at stays."""

    name: Name | UnsetType = UNSET
    threshold: Threshold | UnsetType = UNSET
    unit: Unit | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class Alert(msgspec.Struct, rename="camel", kw_only=True):
    """A threshold that is announced as `alert.triggered` when a customer crosses it."""

    object: str = "alert"
    id: str
    name: str
    metric: str
    threshold: int | float
    unit: str
    customer_id: str | None
    feature_code: str | None
    is_active: bool
    created_at: str
    updated_at: str


class DeletedAlert(msgspec.Struct, rename="camel", kw_only=True):
    """An alert that is gone."""

    object: str = "alert"
    id: str
    deleted: bool = True


class AlertsQuery(ListQuery, kw_only=True):
    """Which alerts to list: those that look at one customer alone."""

    customer_id: Reference | None = None


async def create(call: Call) -> Alert:
    """Set a threshold; the customer's next usage is judged by it."""
    body: CreateAlert = call.body
    customer_id = None if body.customer_id is None else await _customer(call, body.customer_id)
    feature_id = None if body.feature_code is None else await _feature(call, body.feature_code)
    wanted = model.AlertSettings(
        name=body.name or f"{body.metric} {body.threshold} {body.unit}",
        metric=body.metric,
        unit=body.unit,
        threshold_nano=_nano(body.threshold, body.unit),
        customer_id=customer_id,
        feature_id=feature_id,
    )
    return _shown(await actions.create(call.connection, call.tenant, call.real_now, wanted))


async def list_all(call: Call) -> Page:
    """The alerts of the caller's organization and mode, newest first."""
    query: AlertsQuery = call.query
    customer_id = None if query.customer_id is None else await _customer(call, query.customer_id)
    before = None if query.cursor is None else cursors.decode(query.cursor)
    found = await store.page(call.connection, call.tenant, customer_id, before, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda alert: alert.id)
    return Page([_shown(alert) for alert in page], next_cursor)


async def get(call: Call) -> Alert:
    """One alert."""
    return _shown(await actions.get(call.connection, call.tenant, call.path["id"]))


async def update(call: Call) -> Alert:
    """Change what is given; another threshold is announced anew."""
    body: UpdateAlert = call.body
    alert = await actions.hold(call.connection, call.tenant, call.path["id"])
    before = alert.settings
    unit = before.unit if body.unit is UNSET else body.unit
    if body.threshold is not UNSET:
        threshold_nano = _nano(body.threshold, unit)
    elif unit != before.unit:
        raise errors.invalid("threshold", "threshold must be given with another unit.")
    else:
        threshold_nano = before.threshold_nano
    wanted = dataclasses.replace(
        before,
        name=before.name if body.name is UNSET else body.name,
        unit=unit,
        threshold_nano=threshold_nano,
        is_active=before.is_active if body.is_active is UNSET else body.is_active,
    )
    return _shown(await actions.update(call.connection, call.tenant, alert, wanted, call.real_now))


async def delete(call: Call) -> DeletedAlert:
    """Drop an alert for good."""
    await actions.delete(call.connection, call.tenant, call.path["id"])
    return DeletedAlert(id=call.path["id"])


async def _customer(call: Call, reference: str) -> int:
    found = await customers.find(call.connection, call.tenant, reference)
    if found is None:
        raise errors.NotFound("customer_not_found", f"There is no customer {reference[:64]}.", param="customerId")
    return found.id


async def _feature(call: Call, code: str) -> int:
    found = await catalog.feature_by_reference(call.connection, call.tenant, code)
    if found is None:
        raise errors.NotFound("feature_not_found", f"There is no feature {code[:64]}.", param="featureCode")
    return found.id


def _nano(threshold: int, unit: str) -> int:
    return threshold * (money.NANO_PER_RATE if unit == "amount" else money.NANO)


def _shown(alert: model.Alert) -> Alert:
    settings = alert.settings
    return Alert(
        id=alert.public_id,
        name=settings.name,
        metric=settings.metric,
        threshold=rules.shown(settings, settings.threshold_nano),
        unit=settings.unit,
        customer_id=alert.customer,
        feature_code=alert.feature_code,
        is_active=settings.is_active,
        created_at=clock.iso(alert.created_at),
        updated_at=clock.iso(alert.updated_at),
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/alerts",
        id="create-alert",
        summary="Set a threshold on what customers have left, spend or use.",
        permission="alert",
        handler=create,
        body=CreateAlert,
        returns=Alert,
        example={"metric": "spend", "threshold": 500_000, "unit": "amount", "name": "Spent $50 in the period"},
    ),
    Operation(
        method="GET",
        path="/alerts",
        id="list-alerts",
        summary="List alerts, newest first.",
        permission="alert",
        handler=list_all,
        query=AlertsQuery,
        returns=Alert,
        is_list=True,
    ),
    Operation(
        method="GET",
        path="/alerts/{id}",
        id="get-alert",
        summary="Get an alert.",
        permission="alert",
        handler=get,
        returns=Alert,
    ),
    Operation(
        method="PATCH",
        path="/alerts/{id}",
        id="update-alert",
        summary="Change an alert's name or threshold, or switch it off and on.",
        permission="alert",
        handler=update,
        body=UpdateAlert,
        returns=Alert,
        example={"threshold": 750_000},
    ),
    Operation(
        method="DELETE",
        path="/alerts/{id}",
        id="delete-alert",
        summary="Drop an alert for good.",
        permission="alert",
        handler=delete,
        returns=DeletedAlert,
    ),
)

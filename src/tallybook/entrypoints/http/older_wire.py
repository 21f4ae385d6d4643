"""What only clients of the envelope use (`commet-version` before 2026-07-24, or none): their routes, and their names of fields. Pure.

Tables over today's operations: a request is renamed before it is read, and an answer gets the older names beside today's. What
today's operations can't do (offers, domains and languages of customers, …) is an unknown field for them too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec
import orjson

from tallybook.entrypoints.http import decoding

ROUTES: Final = (
    ("PUT", "/customers/{id}", "update-customer"),
    ("POST", "/features/manage", "create-feature"),
    ("PUT", "/features/{code}/manage", "update-feature"),
    ("DELETE", "/features/{code}/manage", "delete-feature"),
    ("POST", "/plans/manage", "create-plan"),
    ("PUT", "/plans/{id}/manage", "update-plan"),
    ("DELETE", "/plans/{id}/manage", "delete-plan"),
    ("PUT", "/plans/{id}/features/{featureId}", "update-plan-feature"),
    ("PUT", "/plans/{id}/prices/{priceId}", "update-plan-price"),
)
"""Method, path and operation of routes that have another method or path today."""
OF_A_CUSTOMER: Final = {"list-features": "list-feature-access", "get-feature": "get-feature-access"}
"""Operations that were another one when the query named a customer."""

_Names = Mapping[str, str]
"""Today's place of an older name; a dot leads into an object."""
_OVERAGE: Final = {"overageEnabled": "overage.enabled", "overageUnitPrice": "overage.unitPrice"}
_EMAIL: Final = {"billingEmail": "email"}
_SUBSCRIPTION: Final = {
    "planId": "plan.id",
    "planName": "plan.name",
    "currentPeriodStart": "currentPeriod.start",
    "currentPeriodEnd": "currentPeriod.end",
}
_ACCESS: Final = {
    "current": "consumption.unitsUsed",
    "included": "consumption.includedUnits",
    "remaining": "consumption.remainingUnits",
    "unlimited": "consumption.unlimited",
    "overage": "consumption.overage.units",
    "overageQuantity": "consumption.overage.units",
    "overageEnabled": "consumption.overage.enabled",
    "overageUnitPrice": "consumption.overage.unitPrice.amount",
}
_ASKED: Final[Mapping[str, _Names]] = {
    "create-customer": _EMAIL,
    "update-customer": _EMAIL,
    "add-plan-feature": _OVERAGE,
    "update-plan-feature": _OVERAGE,
}
_ASKED_OF_EACH: Final[Mapping[str, tuple[str, _Names]]] = {"batch-create-customers": ("customers", _EMAIL)}
_ANSWERED: Final[Mapping[str, _Names]] = {
    "create-customer": _EMAIL,
    "get-customer": _EMAIL,
    "update-customer": _EMAIL,
    "list-customers": _EMAIL,
    "add-plan-feature": _OVERAGE,
    "update-plan-feature": _OVERAGE,
    "create-subscription": _SUBSCRIPTION,
    "list-subscriptions": _SUBSCRIPTION,
    "list-feature-access": _ACCESS,
    "get-feature-access": _ACCESS,
    "track-usage": {"feature": "featureCode", "idempotencyKey": "eventId"},
    "check-usage-availability": {"feature": "featureCode"},
    "set-usage": {"feature": "featureCode"},
}
_ANSWERED_OF_EACH: Final[Mapping[str, tuple[str, _Names]]] = {"batch-create-customers": ("successful", _EMAIL)}
_KEY_IN_BODY: Final = "set-usage"
_KEY: Final = "idempotencyKey"
_MISSING: Final = object()


def body(operation_id: str, raw: bytes, key: str | None) -> tuple[bytes, str | None]:
    """A body with today's names, and the Idempotency-Key, which once could stand in it. Raises ValidationError for no strict JSON.

    Values are passed on as they were written. An older name beside today's stays, and is an unknown field then.
    """
    if operation_id not in _ASKED and operation_id not in _ASKED_OF_EACH and operation_id != _KEY_IN_BODY:
        return raw, key
    if not raw.strip() or not isinstance(decoding.strict_json(raw), dict):
        return raw, key
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    if operation_id == _KEY_IN_BODY:
        return _take_key(raw, fields, key)
    if operation_id in _ASKED:
        return msgspec.json.encode(_renamed(fields, _ASKED[operation_id])), key
    name, names = _ASKED_OF_EACH[operation_id]
    return msgspec.json.encode(_each_renamed(fields, name, names)), key


def query(operation_id: str, sent: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Query parameters without what only chose among forms of an answer."""
    return [item for item in sent if item[0] != "action"] if operation_id == "get-feature-access" else sent


def answer(operation_id: str, plain: bytes) -> bytes:
    """Plain JSON with the older names beside today's."""
    if operation_id not in _ANSWERED and operation_id not in _ANSWERED_OF_EACH:
        return plain
    tree: Any = orjson.loads(plain)
    if isinstance(tree, dict):
        found = cast("dict[str, object]", tree)
        items = found.get("data") if found.get("object") == "list" else None
        for one in cast("list[dict[str, object]]", items) if isinstance(items, list) else [found]:
            add_names(operation_id, one, None)
    return orjson.dumps(tree)


def named(operation_id: str, result: object, key: str | None) -> object:
    """A hot operation's result with the older names beside today's."""
    if operation_id not in _ANSWERED:
        return result
    shown = cast("dict[str, object]", msgspec.to_builtins(result))
    add_names(operation_id, shown, key)
    return shown


def add_names(operation_id: str, shown: dict[str, object], key: str | None) -> None:
    """Give an object that is answered its older names."""
    _add(shown, _ANSWERED.get(operation_id, {}))
    if operation_id == _KEY_IN_BODY:
        shown[_KEY] = key
    if operation_id == "get-feature-access":
        shown["willBeCharged"] = bool(shown["allowed"] and shown.get("overageEnabled") and shown.get("remaining") == 0)
    if operation_id in _ANSWERED_OF_EACH:
        name, names = _ANSWERED_OF_EACH[operation_id]
        for one in cast("list[dict[str, object]]", shown[name]):
            _add(one, names)


def _add(shown: dict[str, object], names: _Names) -> None:
    for older, place in names.items():
        value = _at(shown, place)
        if value is not _MISSING and older not in shown:
            shown[older] = value


def _at(shown: Mapping[str, object], place: str) -> object:
    name, _, inner = place.partition(".")
    value = shown.get(name, _MISSING)
    if not inner:
        return value
    return _at(cast("dict[str, object]", value), inner) if isinstance(value, dict) else _MISSING


def _take_key(raw: bytes, fields: dict[str, msgspec.Raw], key: str | None) -> tuple[bytes, str | None]:
    """A key in the body counts like one in the header; one that differs from the header's stays, and is an unknown field."""
    if _KEY not in fields:
        return raw, key
    written: object = orjson.loads(bytes(fields[_KEY]))
    if not isinstance(written, str) or key not in (None, written):
        return raw, key
    return msgspec.json.encode({name: value for name, value in fields.items() if name != _KEY}), written


def _renamed(fields: Mapping[str, msgspec.Raw], names: _Names) -> dict[str, object]:
    renamed: dict[str, object] = {}
    nested: dict[str, dict[str, object]] = {}
    for name, value in fields.items():
        outer, _, inner = names.get(name, name).partition(".")
        if name not in names or outer in fields:
            renamed[name] = value
        elif inner:
            nested.setdefault(outer, {})[inner] = value
        else:
            renamed[outer] = value
    return renamed | nested


def _each_renamed(fields: dict[str, msgspec.Raw], name: str, names: _Names) -> dict[str, object]:
    listed: object = orjson.loads(bytes(fields.get(name, b"null")))
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in cast("list[object]", listed)):
        return dict(fields)
    items = msgspec.json.decode(bytes(fields[name]), type=list[dict[str, msgspec.Raw]])
    return {**fields, name: [_renamed(item, names) for item in items]}

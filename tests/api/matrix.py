"""Every operation with every place in it that names something, made from the operations themselves.

An operation that names nothing must stand in `NAMELESS`, and a field that looks like a name but is none in `NO_NAMES`; so whatever is new
is either in the matrix or an error.
"""

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import msgspec

from tallybook.entrypoints.http import resources, routing
from tallybook.entrypoints.http.routing import Operation

Json: TypeAlias = dict[str, Any]
Part: TypeAlias = Literal["path", "query", "body"]
Nature: TypeAlias = Literal["list", "create", "clock", "shared"]

COLLECTIONS: Mapping[str, str] = {
    "customerId": "customers",
    "externalId": "customers",
    "featureCode": "features",
    "featureId": "features",
    "model": "aliases",
    "planCode": "plans",
    "planId": "plans",
    "priceId": "prices",
    "subscriptionId": "subscriptions",
}
"""What a field of a body or query names."""
_PATH_COLLECTIONS: Mapping[str, str] = {"ai-models": "aliases", "feature-access": "features"}
"""Where the segment before a parameter is not the collection's own name. The catalog is everybody's, names for its models are not."""
NO_NAMES: Mapping[str, str] = {
    "addressId": "there are no stored addresses: refused whatever it says",
    "cardPromotionId": "there are no promotions: refused whatever it says",
    "code": "gives a new thing its name",
    "eventId": "gives a new event its name",
    "externalId": "gives a customer its name (in a query it finds one by it)",
    "id": "gives a new customer its name",
    "inheritsFromPriceId": "prices inherit nothing: refused whatever it says",
    "offerId": "there are no offers: refused whatever it says",
    "planGroupId": "there are no groups: refused whatever it says",
    "promoCode": "there are no promotions: refused whatever it says",
}
NAMELESS: Mapping[str, Nature] = {
    "advance-test-clock": "clock",
    "batch-create-customers": "create",
    "create-api-key": "create",
    "create-customer": "create",
    "create-feature": "create",
    "create-plan": "create",
    "create-webhook-endpoint": "create",
    "get-ai-model-sync": "shared",
    "get-test-clock": "clock",
    "list-ai-model-aliases": "list",
    "list-ai-model-changes": "shared",
    "list-ai-model-overrides": "list",
    "list-ai-models": "shared",
    "list-api-keys": "list",
    "list-features": "list",
    "list-plans": "list",
    "list-webhook-endpoints": "list",
    "process-test-clock-billing": "clock",
    "set-ai-model-override": "create",
}
"""What an operation does that names nothing that exists."""
_EVENT: Json = {"customerId": "", "featureCode": ""}
_BODIES: Mapping[str, Json] = {
    "check-usage-availability": {**_EVENT, "quantity": 1},
    "end-ai-model-override": {},
    "set-usage": {**_EVENT, "value": 3, "reason": "counted again"},
    "track-usage-batch": {"events": [{**_EVENT, "value": 1}]},
    "track-usage": {**_EVENT, "value": 1},
}
"""Bodies of operations without an example, and of those whose example has a model's name in it that no organization made up."""
_OWN: Mapping[tuple[str, str], str] = {("create-subscription", "customerId"): "loners"}
"""Where not everything that the asker owns will do."""
_INVENTED = frozenset({("set-ai-model-override", "model")})
"""Fields that may say anything: a price may be set for a model that nobody has listed."""
_INSTEAD_OF: Mapping[str, str] = {"planId": "planCode"}
"""Fields of which one is sent or the other."""
_PARAMETER = re.compile(r"/([a-z-]+)/\{(\w+)\}")
_LOOKS_LIKE_A_NAME = re.compile(r"(^id|Id|^code|Code|^model|Ids|Codes)$")


@dataclass(frozen=True, slots=True)
class Place:
    """One place of an operation where the id of something stands. `steps` leads there in a body."""

    part: Part
    name: str
    collection: str
    steps: tuple[str | int, ...] = ()
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One operation, and the places in it."""

    operation: Operation
    places: tuple[Place, ...]

    def request(self, own: Mapping[str, Sequence[str]], at: Place | None, named: str) -> tuple[str, Json, object]:
        """Path, query and body that name own things, and at one place what is `named`."""

        def chosen(place: Place) -> str:
            collection = _OWN.get((self.operation.id, place.name), place.collection)
            return named if place == at else own[collection][-1]

        path, query, body = self.operation.template, dict[str, Any](), copy.deepcopy(body_of(self.operation))
        for place in self.places:
            if place.part == "path":
                path = path.replace(f"{{{place.name}}}", chosen(place))
            elif place.part == "query" and (place == at or place.is_needed):
                query[place.name] = chosen(place)
            elif place.part == "body" and (place == at or _stands(body, place.steps)):
                _put(body, place.steps, chosen(place))
        return path, query, body


def rows() -> list[Row]:
    """The matrix. Raises AssertionError for an operation or a field that nobody has thought of."""
    made = [Row(operation, tuple(_places(operation))) for operation in routing.collect(resources.MODULES)]
    for row in made:
        assert bool(row.places) != (row.operation.id in NAMELESS), (
            f"{row.operation.id} names nothing; say in NAMELESS what it does"
        )
    return made


def body_of(operation: Operation) -> Any:  # noqa: ANN401 - JSON
    """A body that the operation takes."""
    if operation.id in _BODIES:
        return _BODIES[operation.id]
    return None if operation.body is None else dict(operation.example or {})


def _places(operation: Operation) -> Iterator[Place]:
    for segment, name in _PARAMETER.findall(operation.template):
        yield Place("path", name, _PATH_COLLECTIONS.get(segment, segment))
    query = () if operation.query is None else msgspec.structs.fields(operation.query)
    needed = {field.encode_name for field in query if field.required}
    for name in _names(operation, [field.encode_name for field in query], finding={"externalId"}):
        yield Place("query", name, COLLECTIONS[name], is_needed=name in needed)
    fields = () if operation.body is None else operation.body.__struct_encode_fields__
    if "events" in fields and operation.hot:
        for name in ("customerId", "featureCode", "model"):
            yield Place("body", name, COLLECTIONS[name], ("events", 0, name))
    for name in _names(operation, fields):
        yield Place("body", name, COLLECTIONS[name], (name,))


def _names(operation: Operation, fields: Sequence[str], finding: Collection[str] = ()) -> Iterator[str]:
    for field in fields:
        if (operation.id, field) in _INVENTED:
            continue
        if field in COLLECTIONS and (field not in NO_NAMES or field in finding):
            yield field
        else:
            is_name = _LOOKS_LIKE_A_NAME.search(field) and field not in NO_NAMES
            assert not is_name, f"does {field} of {operation.id} name something? Add it to COLLECTIONS or to NO_NAMES"


def _stands(body: Any, steps: Sequence[str | int]) -> bool:  # noqa: ANN401 - JSON
    try:
        for step in steps:
            body = body[step]
    except (KeyError, IndexError):
        return False
    return True


def _put(body: Any, steps: Sequence[str | int], value: str) -> None:  # noqa: ANN401 - JSON
    for step in steps[:-1]:
        body = body[step]
    cast("Json", body)[str(steps[-1])] = value
    cast("Json", body).pop(_INSTEAD_OF.get(str(steps[-1]), ""), None)
    if steps[-1] == "model" and "featureCode" in body:
        for name in ("value", "quantity"):
            cast("Json", body).pop(name, None)
        cast("Json", body).update(inputTokens=10, outputTokens=1)

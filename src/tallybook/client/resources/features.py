"""Features: what plans include and usage is sent for."""

from typing import Literal

from tallybook.client.decoding import reader
from tallybook.client.models import Deleted, Feature, ListOf
from tallybook.client.requests import UNSET, Mode, Request, Resource, Unset, changes, operation, present, query
from tallybook.client.resources.pages import page


def create(
    *,
    name: str,
    code: str,
    type: Literal["boolean", "usage", "seats", "quota"],  # noqa: A002 - the API's word
    description: str | None = None,
    unit_name: str | None = None,
) -> Request[Feature]:
    """Create a feature."""
    body = present(name=name, code=code, type=type, description=description, unit_name=unit_name)
    return Request("POST", "/features", reader(Feature), body)


def get(code: str) -> Request[Feature]:
    """One feature."""
    return Request("GET", f"/features/{code}", reader(Feature))


def update(
    code: str, *, name: str | Unset = UNSET, description: str | Unset | None = UNSET, unit_name: str | Unset | None = UNSET
) -> Request[Feature]:
    """Change what is given; None removes."""
    return Request(
        "PATCH", f"/features/{code}", reader(Feature), changes(name=name, description=description, unit_name=unit_name)
    )


def delete(code: str) -> Request[Deleted]:
    """Take a feature out of the catalog."""
    return Request("DELETE", f"/features/{code}", reader(Deleted))


def list_(*, limit: int | None = None, cursor: str | None = None) -> Request[ListOf[Feature]]:
    """All features."""
    return Request("GET", "/features", page(Feature), query=query(limit=limit, cursor=cursor))


class Features(Resource[Mode]):
    """`tallybook.features`."""

    create = operation(create)
    get = operation(get)
    update = operation(update)
    delete = operation(delete)
    list = operation(list_)

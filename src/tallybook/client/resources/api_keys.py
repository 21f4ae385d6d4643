"""API keys."""

from collections.abc import Mapping, Sequence

from tallybook.client.decoding import reader
from tallybook.client.models import ApiKey, CreatedApiKey, Deleted, ListOf
from tallybook.client.requests import Mode, Request, Resource, operation, present, query
from tallybook.client.resources.pages import page


def create(
    *, name: str, expires_in_days: int | None = None, permissions: Mapping[str, Sequence[str]] | None = None
) -> Request[CreatedApiKey]:
    """Make a key; its text is in this answer only. Without permissions it has full access."""
    body = present(name=name, expires_in_days=expires_in_days, permissions=permissions)
    return Request("POST", "/api-keys", reader(CreatedApiKey), body)


def list_(*, limit: int | None = None, cursor: str | None = None) -> Request[ListOf[ApiKey]]:
    """Keys without their secrets."""
    return Request("GET", "/api-keys", page(ApiKey), query=query(limit=limit, cursor=cursor))


def delete(key_id: str) -> Request[Deleted]:
    """Revoke a key."""
    return Request("DELETE", f"/api-keys/{key_id}", reader(Deleted))


class ApiKeys(Resource[Mode]):
    """`tallybook.api_keys`."""

    create = operation(create)
    list = operation(list_)
    delete = operation(delete)

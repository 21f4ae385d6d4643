"""API keys: make, list, delete. A key's text is shown once, when it is made."""

from typing import Annotated, Literal

import msgspec

from tallybook.core import clock, cursors
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page
from tallybook.tenancy import actions, model, rules

Action = Literal["read", "write"]


class CreateApiKey(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What a new key is to be. Without `permissions` it has full access."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=rules.NAME_CHARACTERS_MAX)]
    expires_in_days: Annotated[int, msgspec.Meta(ge=1, le=rules.EXPIRES_IN_DAYS_MAX)] = rules.EXPIRES_IN_DAYS_DEFAULT
    permissions: dict[str, list[Action]] | None = None


class ApiKey(msgspec.Struct, rename="camel", kw_only=True):
    """A key without its secret; `prefix` tells keys apart."""

    object: str = "api_key"
    id: str
    name: str
    prefix: str
    permissions: dict[str, list[str]] | None
    expires_at: str | None
    last_used_at: str | None
    created_at: str


class CreatedApiKey(msgspec.Struct, rename="camel", kw_only=True):
    """A key just made; `apiKey` is the only copy of its text."""

    object: str = "api_key"
    id: str
    name: str
    api_key: str
    prefix: str
    permissions: dict[str, list[str]] | None
    expires_at: str | None
    created_at: str


class DeletedApiKey(msgspec.Struct, rename="camel", kw_only=True):
    """A key that no longer opens anything."""

    object: str = "api_key"
    id: str
    deleted: bool = True


async def create(call: Call) -> CreatedApiKey:
    """Make a key for the caller's organization and mode."""
    body: CreateApiKey = call.body
    permissions = None if body.permissions is None else rules.read_permissions(body.permissions)
    made = await actions.create_api_key(
        call.connection,
        call.tenant,
        call.real_now,
        body.name,
        expires_in_days=body.expires_in_days,
        permissions=permissions,
        creator=call.key,
    )
    key = made.key
    return CreatedApiKey(
        id=key.id,
        name=key.name,
        api_key=made.text,
        prefix=rules.prefix(key.public_part),
        permissions=_permissions(key),
        expires_at=None if key.expires_at is None else clock.iso(key.expires_at),
        created_at=clock.iso(key.created_at),
    )


async def list_all(call: Call) -> Page:
    """The keys of the caller's organization and mode, newest first."""
    query: ListQuery = call.query
    after = None if query.cursor is None else cursors.decode_text(query.cursor)
    keys = await actions.list_api_keys(call.connection, call.tenant, limit=query.limit + 1, after=after)
    page, next_cursor = cursors.cut(keys, query.limit, lambda key: key.id)
    return Page([_shown(key) for key in page], next_cursor)


async def delete(call: Call) -> DeletedApiKey:
    """Revoke a key for good."""
    await actions.revoke_api_key(call.connection, call.tenant, call.real_now, call.path["id"], creator=call.key)
    return DeletedApiKey(id=call.path["id"])


def _shown(key: model.ApiKey) -> ApiKey:
    return ApiKey(
        id=key.id,
        name=key.name,
        prefix=rules.prefix(key.public_part),
        permissions=_permissions(key),
        expires_at=None if key.expires_at is None else clock.iso(key.expires_at),
        last_used_at=None if key.last_used_at is None else clock.iso(key.last_used_at),
        created_at=clock.iso(key.created_at),
    )


def _permissions(key: model.ApiKey) -> dict[str, list[str]] | None:
    return None if key.permissions is None else {name: sorted(actions) for name, actions in key.permissions.items()}


OPERATIONS = (
    Operation(
        method="POST",
        path="/api-keys",
        id="create-api-key",
        summary="Make a key with full or restricted access; its text is shown once.",
        permission="api_key",
        handler=create,
        body=CreateApiKey,
        returns=CreatedApiKey,
        secret=True,
        example={"name": "Metering service", "expiresInDays": 90, "permissions": {"usage": ["read", "write"]}},
    ),
    Operation(
        method="GET",
        path="/api-keys",
        id="list-api-keys",
        summary="List keys without their secrets, newest first.",
        permission="api_key",
        handler=list_all,
        query=ListQuery,
        returns=ApiKey,
        is_list=True,
    ),
    Operation(
        method="DELETE",
        path="/api-keys/{id}",
        id="delete-api-key",
        summary="Revoke a key; it stops working everywhere within five seconds.",
        permission="api_key",
        handler=delete,
        returns=DeletedApiKey,
    ),
)

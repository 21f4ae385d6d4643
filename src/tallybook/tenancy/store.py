"""Reads and writes the rows of tenancy. Times are given by the caller."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row
from tallybook.tenancy.model import (
    Announcement,
    ApiKey,
    AuthenticatedKey,
    Installation,
    Permissions,
    StoredResponse,
    TermsBump,
)

_SQL = queries.load(__package__)


@dataclass(frozen=True, slots=True)
class KeyOnFile:
    """What is stored of a key, with its tenant: enough to decide whether it opens the door."""

    key: AuthenticatedKey
    secret_sha256: bytes
    revoked_at: datetime | None


async def add_organization(connection: Connection, organization_id: str, name: str) -> None:
    """Add an organization without modes."""
    await connection.execute(_SQL["add_organization"], organization_id, name)


async def add_tenant(connection: Connection, organization_id: str, *, livemode: bool) -> Tenant:
    """Add one mode of an organization."""
    return _tenant((await connection.fetch(_SQL["add_tenant"], organization_id, livemode))[0])


async def find_tenant(connection: Connection, organization_id: str, *, livemode: bool) -> Tenant | None:
    """One mode of an organization."""
    row = await connection.fetchrow(_SQL["tenant_of_organization"], organization_id, livemode)
    return None if row is None else _tenant(row)


async def organizations(connection: Connection, *, limit: int) -> list[str]:
    """Ids of organizations, oldest first."""
    return [row["id"] for row in await connection.fetch(_SQL["organizations"], limit)]


async def simulated_at(connection: Connection, tenant: Tenant) -> datetime | None:
    """The tenant's test clock; None means the real time."""
    return await connection.fetchval(_SQL["simulated_at"], tenant.id)


async def set_simulated_at(connection: Connection, tenant: Tenant, moment: datetime) -> int | None:
    """Move a sandbox clock forward. Returns the new terms version, None when the clock would go back."""
    return await connection.fetchval(_SQL["set_simulated_at"], tenant.id, moment)


async def bump_tenant_terms(connection: Connection, tenant: Tenant) -> int:
    """Raise the terms version of a tenant. Returns the new version."""
    return await connection.fetchval(_SQL["bump_tenant_terms"], tenant.id)


async def bump_customer_terms(connection: Connection, tenant: Tenant, customer_id: int) -> int:
    """Raise the terms version of a customer. Returns the new version."""
    return await connection.fetchval(_SQL["bump_customer_terms"], tenant.id, customer_id)


async def undelivered_bumps(connection: Connection, tenant: Tenant, limit: int, after: int) -> list[TermsBump]:
    """What the till may not know yet, oldest first, after a bump's id."""
    rows = await connection.fetch(_SQL["undelivered_bumps_of_tenant"], tenant.id, limit, after)
    return [TermsBump(row["id"], tenant, row["customer_id"], row["version"]) for row in rows]


async def tenants_with_undelivered_bumps(connection: Connection, limit: int, after: int) -> list[Tenant]:
    """Tenants of which the till may not know everything yet, by id, after a tenant's id."""
    return [_tenant(row) for row in await connection.fetch(_SQL["tenants_with_undelivered_bumps"], limit, after)]


async def mark_bumps_delivered(connection: Connection, bump_ids: Sequence[int], now: datetime) -> None:
    """Note that the till knows these changes."""
    await connection.execute(_SQL["mark_bumps_delivered"], bump_ids, now)


async def announce(connection: Connection, tenant: Tenant, topic: str, payload: Mapping[str, object]) -> int:
    """Queue a webhook. Returns its id."""
    return await connection.fetchval(_SQL["announce"], tenant.id, topic, dict(payload))


async def waiting_announcements(connection: Connection, limit: int) -> list[Announcement]:
    """Webhooks that wait, oldest first, but those that somebody else holds; they are held until the transaction ends."""
    rows = await connection.fetch(_SQL["waiting_announcements"], limit)
    return [
        Announcement(
            row["id"],
            Tenant(row["tenant_id"], row["organization_id"], row["livemode"]),
            row["topic"],
            row["payload"],
            row["created_at"],
        )
        for row in rows
    ]


async def mark_announced(connection: Connection, announcement_ids: Sequence[int], now: datetime) -> None:
    """Note that these webhooks are on their way."""
    await connection.execute(_SQL["mark_announced"], announcement_ids, now)


async def oldest_announcement(connection: Connection) -> datetime | None:
    """Since when the oldest webhook waits; None when none does."""
    return await connection.fetchval(_SQL["oldest_announcement"])


async def add_api_key(connection: Connection, key: ApiKey, secret_sha256: bytes) -> ApiKey:
    """Add a key. Returns it as stored."""
    permissions = None if key.permissions is None else {name: sorted(actions) for name, actions in key.permissions.items()}
    rows = await connection.fetch(
        _SQL["add_api_key"],
        key.id,
        key.tenant_id,
        key.name,
        key.public_part,
        secret_sha256,
        permissions,
        key.expires_at,
        key.created_at,
    )
    return _api_key(rows[0])


async def find_api_key(connection: Connection, public_part: str) -> KeyOnFile | None:
    """The key with this public part, whatever its state."""
    row = await connection.fetchrow(_SQL["api_key_by_public_part"], public_part)
    if row is None:
        return None
    tenant = Tenant(row["tenant_id"], row["organization_id"], row["livemode"])
    key = AuthenticatedKey(row["id"], tenant, _permissions(row["permissions"]), row["expires_at"])
    return KeyOnFile(key, row["secret_sha256"], row["revoked_at"])


async def list_api_keys(connection: Connection, tenant: Tenant, limit: int, after: str | None) -> list[ApiKey]:
    """Keys that were not revoked, newest first, after the key with id `after`."""
    if after is None:
        rows = await connection.fetch(_SQL["api_keys"], tenant.id, limit)
    else:
        rows = await connection.fetch(_SQL["api_keys_after"], tenant.id, limit, after)
    return [_api_key(row) for row in rows]


async def revoke_api_key(connection: Connection, tenant: Tenant, key_id: str, now: datetime) -> bool:
    """Revoke a key. False when the tenant has none such that is not revoked."""
    return await connection.fetchval(_SQL["revoke_api_key"], tenant.id, key_id, now) is not None


async def find_tenant_of_key(connection: Connection, key_id: str) -> Tenant | None:
    """The tenant that a key belongs to."""
    row = await connection.fetchrow(_SQL["tenant_of_api_key"], key_id)
    return None if row is None else _tenant(row)


async def touch_api_keys(connection: Connection, used: Mapping[str, datetime]) -> None:
    """Note when keys were last used, in one statement; sorted, so that two processes can't wait for each other."""
    ids = sorted(used)
    await connection.execute(_SQL["touch_api_keys"], ids, [used[key_id] for key_id in ids])


async def add_web_session(
    connection: Connection, digest: bytes, key_id: str, now: datetime, expires_at: datetime, sessions_max: int
) -> None:
    """Add a session of a key, which keeps its newest ones up to `sessions_max`."""
    await connection.execute(_SQL["add_web_session"], digest, key_id, now, expires_at, sessions_max)


async def key_of_web_session(connection: Connection, digest: bytes, now: datetime) -> AuthenticatedKey | None:
    """The key behind a session; None when either of them is gone or over."""
    row = await connection.fetchrow(_SQL["key_of_web_session"], digest, now)
    if row is None:
        return None
    tenant = Tenant(row["tenant_id"], row["organization_id"], row["livemode"])
    return AuthenticatedKey(row["id"], tenant, _permissions(row["permissions"]), row["expires_at"])


async def drop_web_session(connection: Connection, digest: bytes) -> None:
    """End a session."""
    await connection.execute(_SQL["drop_web_session"], digest)


async def organization_name(connection: Connection, tenant: Tenant) -> str:
    """What a tenant's organization is called."""
    return await connection.fetchval(_SQL["organization_name"], tenant.organization_id)


async def lock_idempotency_key(connection: Connection, tenant: Tenant, digest: bytes) -> bool:
    """Take the right to answer a key until the transaction ends; False while another request has it."""
    place = hashlib.blake2b(b"%d\0" % tenant.id + digest, digest_size=8).digest()
    return await connection.fetchval(_SQL["lock_idempotency_key"], int.from_bytes(place, "big", signed=True))


async def find_response(connection: Connection, tenant: Tenant, digest: bytes, since: datetime) -> StoredResponse | None:
    """What was answered to a key since a moment."""
    row = await connection.fetchrow(_SQL["stored_response"], tenant.id, digest, since)
    return None if row is None else StoredResponse(row["fingerprint"], row["status"], row["response"])


async def store_response(connection: Connection, tenant: Tenant, digest: bytes, response: StoredResponse, now: datetime) -> None:
    """Keep what is being answered to a key."""
    await connection.execute(_SQL["store_response"], tenant.id, digest, response.fingerprint, response.status, response.body, now)


async def forget_responses(connection: Connection, before: datetime, limit: int) -> int:
    """Drop at most `limit` stored responses that are too old to count. Returns how many."""
    return len(await connection.fetch(_SQL["forget_responses"], before, limit))


async def forget_bumps(connection: Connection, before: datetime, limit: int) -> int:
    """Drop at most `limit` changes of terms that the till was told of long ago. Returns how many."""
    return len(await connection.fetch(_SQL["forget_bumps"], before, limit))


async def forget_announcements(connection: Connection, before: datetime, limit: int) -> int:
    """Drop at most `limit` webhooks that were delivered long ago. Returns how many."""
    return len(await connection.fetch(_SQL["forget_announcements"], before, limit))


async def install(connection: Connection, epoch: str, partitions: int) -> None:
    """Fix what can't change later, unless it is fixed already."""
    await connection.execute(_SQL["install"], epoch, partitions)


async def find_installation(connection: Connection) -> Installation | None:
    """What is fixed, None before `install`."""
    row = await connection.fetchrow(_SQL["installation"])
    return None if row is None else _installation(row)


async def renew_epoch(connection: Connection, epoch: str) -> Installation:
    """Give the installation a new epoch."""
    return _installation((await connection.fetch(_SQL["renew_epoch"], epoch))[0])


async def tenant_terms_versions(connection: Connection) -> dict[int, int]:
    """By tenant."""
    return {row["id"]: row["terms_version"] for row in await connection.fetch(_SQL["tenant_terms_versions"])}


async def customer_terms_versions(connection: Connection, after: int, limit: int) -> list[tuple[int, int, int]]:
    """(tenant, customer, version) of customers with a row id beyond `after`, in order."""
    rows = await connection.fetch(_SQL["customer_terms_versions"], after, limit)
    return [(row["tenant_id"], row["customer_id"], row["version"]) for row in rows]


async def note_till_made(connection: Connection) -> None:
    """The till has the epoch."""
    await connection.execute(_SQL["note_till_made"])


def _installation(row: Row) -> Installation:
    return Installation(row["epoch"], row["partitions"], row["till_made"], row["former_epoch"])


def _tenant(row: Row) -> Tenant:
    return Tenant(row["id"], row["organization_id"], row["livemode"])


def _api_key(row: Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant_id=row["tenant_id"],
        name=row["name"],
        public_part=row["public_part"],
        permissions=_permissions(row["permissions"]),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        created_at=row["created_at"],
    )


def _permissions(stored: Mapping[str, Sequence[str]] | None) -> Permissions | None:
    return None if stored is None else {name: frozenset(actions) for name, actions in stored.items()}

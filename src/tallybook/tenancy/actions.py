"""What can be done with organizations, keys, clocks and terms versions: a verb a function, inside the caller's transaction."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from tallybook.core import errors, ids
from tallybook.core.tenant import Tenant
from tallybook.storage.postgres import Connection
from tallybook.tenancy import rules, store
from tallybook.tenancy.model import (
    Announcement,
    ApiKey,
    AuthenticatedKey,
    Installation,
    NewApiKey,
    Permissions,
    StoredResponse,
    TermsBump,
)

RESPONSES_KEPT = timedelta(hours=24)
"""How long the response to an Idempotency-Key is replayed."""
BUMPS_KEPT = timedelta(days=1)
"""How long it can be seen when the till was told of a change of terms."""
ANNOUNCEMENTS_KEPT = timedelta(days=30)
"""How long a delivered webhook can be seen."""
_BUMPS_AT_ONCE = 1000
_EPOCH_BYTES = 16


async def install(connection: Connection, partitions: int) -> Installation:
    """Fix the epoch and the number of partitions on first start; later starts get what was fixed.

    Raises Conflict when the installation was made with another number of partitions.
    """
    await store.install(connection, secrets.token_hex(_EPOCH_BYTES), partitions)
    installation = await store.find_installation(connection)
    if installation is None:
        raise errors.Unavailable("not_installed", "The installation row was written and can't be read.")
    if installation.partitions != partitions:
        message = f"This installation has {installation.partitions} partitions for good; the settings say {partitions}."
        raise errors.Conflict("partitions_fixed", message)
    return installation


async def note_till_made(connection: Connection) -> None:
    """Remember that the till was given the epoch: from now on one without it was lost, and is not made anew."""
    await store.note_till_made(connection)


async def renew_epoch(connection: Connection) -> Installation:
    """Give the installation a new, random epoch for a till that is made anew. Whoever has the old one is refused."""
    return await store.renew_epoch(connection, secrets.token_hex(_EPOCH_BYTES))


async def create_organization(connection: Connection, name: str) -> tuple[Tenant, Tenant]:
    """Make an organization. Returns its live and its sandbox tenant."""
    organization_id = ids.new("org")
    await store.add_organization(connection, organization_id, check_name(name))
    live = await store.add_tenant(connection, organization_id, livemode=True)
    return live, await store.add_tenant(connection, organization_id, livemode=False)


async def create_api_key(
    connection: Connection,
    tenant: Tenant,
    now: datetime,
    name: str,
    *,
    expires_in_days: int | None = rules.EXPIRES_IN_DAYS_DEFAULT,
    permissions: Permissions | None = None,
    creator: AuthenticatedKey | None = None,
) -> NewApiKey:
    """Make a key; the result holds the only copy of its text. `now` is the real time: keys don't follow a test clock.

    `creator` is the key that asks, None for the command line. A restricted one can only give away what it has, and no longer than
    it lives itself; raises Forbidden otherwise. Raises ValidationError for a name or number of days out of bounds.
    """
    if expires_in_days is not None and not 1 <= expires_in_days <= rules.EXPIRES_IN_DAYS_MAX:
        raise errors.invalid("expiresInDays", f"expiresInDays is {expires_in_days}; it must be 1 to {rules.EXPIRES_IN_DAYS_MAX}.")
    if creator is not None and not rules.covers(creator.permissions, permissions):
        raise errors.Forbidden(
            "forbidden", "A restricted key can only make keys with the same or fewer permissions.", param="permissions"
        )
    key = ApiKey(
        id=ids.new("key"),
        tenant_id=tenant.id,
        name=check_name(name),
        public_part=rules.new_public_part(),
        permissions=permissions,
        expires_at=rules.expiry(now, expires_in_days, creator),
        revoked_at=None,
        last_used_at=None,
        created_at=now,
    )
    secret = rules.new_secret()
    stored = await store.add_api_key(connection, key, rules.secret_sha256(secret))
    return NewApiKey(stored, rules.key_text(key.public_part, secret))


async def list_api_keys(connection: Connection, tenant: Tenant, *, limit: int, after: str | None = None) -> list[ApiKey]:
    """Keys that were not revoked, newest first, after the key with id `after`."""
    return await store.list_api_keys(connection, tenant, limit, after)


async def revoke_api_key(
    connection: Connection, tenant: Tenant, now: datetime, key_id: str, *, creator: AuthenticatedKey | None = None
) -> None:
    """Revoke a key for good. Raises NotFound, and Forbidden when a restricted key (`creator`) asks.

    The tenant's terms change with it, so that the till takes nothing more from a process that can't ask the book about its keys.
    """
    if creator is not None and creator.permissions is not None:
        raise errors.Forbidden("forbidden", "A restricted key can't delete API keys.")
    if not await store.revoke_api_key(connection, tenant, key_id, now):
        raise errors.NotFound("api_key_not_found", f"There is no API key {key_id}.", param="id")
    await bump_tenant_terms(connection, tenant)


async def authenticate(connection: Connection, text: str, now: datetime) -> AuthenticatedKey | None:
    """Who sent this key; None, without saying why, when it is malformed, unknown, wrong, revoked or expired at the real `now`."""
    parsed = rules.parse_key(text)
    on_file = None if parsed is None else await store.find_api_key(connection, parsed.public_part)
    if parsed is None or on_file is None:
        return None
    if not hmac.compare_digest(parsed.secret_sha256, on_file.secret_sha256) or on_file.revoked_at is not None:
        return None
    expires_at = on_file.key.expires_at
    return None if expires_at is not None and expires_at <= now else on_file.key


async def touch_api_keys(connection: Connection, used: Mapping[str, datetime]) -> None:
    """Note when keys (by id) were last used."""
    await store.touch_api_keys(connection, used)


async def clock_now(connection: Connection, tenant: Tenant, real_now: datetime) -> datetime:
    """What time it is for a tenant: the real time, unless a sandbox's test clock says otherwise."""
    if tenant.livemode:
        return real_now
    return await store.simulated_at(connection, tenant) or real_now


async def set_simulated_time(connection: Connection, tenant: Tenant, moment: datetime) -> int:
    """Set a sandbox's test clock and raise its terms version, which is returned.

    Raises Forbidden (`sandbox_only`) for a live tenant and ValidationError when the clock would go back.
    """
    if tenant.livemode:
        raise errors.Forbidden("sandbox_only", "Only a sandbox has a test clock.")
    version = await store.set_simulated_at(connection, tenant, moment)
    if version is None:
        raise errors.invalid("frozenTime", "The test clock only goes forward.")
    return version


async def bump_tenant_terms(connection: Connection, tenant: Tenant) -> int:
    """Note that terms of all customers of a tenant change in this transaction. Returns the new version."""
    return await store.bump_tenant_terms(connection, tenant)


async def bump_customer_terms(connection: Connection, tenant: Tenant, customer_id: int) -> int:
    """Note that one customer's terms change in this transaction. Returns the new version."""
    return await store.bump_customer_terms(connection, tenant, customer_id)


async def undelivered_bumps(connection: Connection, tenant: Tenant, *, after: int = 0) -> list[TermsBump]:
    """Changes of terms that the till may not know yet, oldest first, some at a time: after the id of the last one that is known."""
    return await store.undelivered_bumps(connection, tenant, _BUMPS_AT_ONCE, after)


async def tenants_with_undelivered_bumps(connection: Connection, *, after: int = 0) -> list[Tenant]:
    """Tenants for which `undelivered_bumps` has something, by id, some at a time: after the id of the last one that is known."""
    return await store.tenants_with_undelivered_bumps(connection, _BUMPS_AT_ONCE, after)


async def mark_delivered(connection: Connection, bump_ids: Sequence[int], now: datetime) -> None:
    """Note that the till knows these changes."""
    await store.mark_bumps_delivered(connection, bump_ids, now)


async def announce(connection: Connection, tenant: Tenant, topic: str, payload: Mapping[str, object]) -> int:
    """Queue a webhook in the transaction of what it tells of. Returns its id."""
    return await store.announce(connection, tenant, topic, payload)


async def waiting_announcements(connection: Connection, *, limit: int) -> list[Announcement]:
    """Webhooks that wait, oldest first. They are the caller's until its transaction ends; what somebody else holds is left out."""
    return await store.waiting_announcements(connection, limit)


async def mark_announced(connection: Connection, announcement_ids: Sequence[int], now: datetime) -> None:
    """Note that webhooks are on their way, in the transaction that sends them there."""
    await store.mark_announced(connection, announcement_ids, now)


async def announcements_wait_since(connection: Connection) -> datetime | None:
    """Since when the oldest webhook waits to be sent on its way; None when none does."""
    return await store.oldest_announcement(connection)


async def recall_response(
    connection: Connection, tenant: Tenant, now: datetime, idempotency_key: str, fingerprint: bytes
) -> StoredResponse | None:
    """Take the right to answer an Idempotency-Key, or find what was answered. `now` is the real time.

    Raises Conflict: `idempotency_in_progress` while another request with the key runs, `idempotency_key_mismatch` when it came
    with another operation or body.
    """
    digest = _digest(idempotency_key)
    if not await store.lock_idempotency_key(connection, tenant, digest):
        raise errors.Conflict(
            "idempotency_in_progress", "A request with this Idempotency-Key is still running; send it again shortly."
        )
    stored = await store.find_response(connection, tenant, digest, now - RESPONSES_KEPT)
    if stored is not None and stored.fingerprint != fingerprint:
        message = "This Idempotency-Key was used for another operation or body; use a new key for a new request."
        raise errors.Conflict("idempotency_key_mismatch", message)
    return stored


async def keep_response(
    connection: Connection, tenant: Tenant, now: datetime, idempotency_key: str, response: StoredResponse
) -> None:
    """Keep what is being answered to an Idempotency-Key, in the transaction of its effect. `now` is the real time."""
    await store.store_response(connection, tenant, _digest(idempotency_key), response, now)


async def forget_responses(connection: Connection, now: datetime, *, limit: int = 10_000) -> int:
    """Drop stored responses that are no longer replayed, a bounded number at once. Returns how many."""
    return await store.forget_responses(connection, now - RESPONSES_KEPT, limit)


async def forget_bumps(connection: Connection, now: datetime, *, limit: int = 10_000) -> int:
    """Drop changes of terms that the till has known for a day, a bounded number at once. Returns how many."""
    return await store.forget_bumps(connection, now - BUMPS_KEPT, limit)


async def forget_announcements(connection: Connection, now: datetime, *, limit: int = 10_000) -> int:
    """Drop webhooks that were delivered a month ago, a bounded number at once. Returns how many; those that wait are kept."""
    return await store.forget_announcements(connection, now - ANNOUNCEMENTS_KEPT, limit)


def check_name(name: str) -> str:
    """The name itself. Raises ValidationError unless it has 1 to 128 characters, not all of them blank."""
    if not name.strip() or len(name) > rules.NAME_CHARACTERS_MAX or not name.isprintable():
        raise errors.invalid("name", f"name must have 1 to {rules.NAME_CHARACTERS_MAX} printable characters.")
    return name


def _digest(idempotency_key: str) -> bytes:
    return hashlib.sha256(idempotency_key.encode()).digest()

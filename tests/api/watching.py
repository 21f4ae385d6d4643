"""What an organization owns, as a fingerprint of every row and pool, to see whether anything was changed."""

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence

from tallybook.storage import postgres, redis
from tests.support.service import Service

_PAUSE_S = 0.5
_TABLES = """
    SELECT c.relname AS name,
           EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') AS has_tenant
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
    ORDER BY c.relname
"""
_UNOWNED = frozenset({"ai_catalog_version", "ai_model_changes", "ai_model_prices", "ai_model_syncs", "ai_models"})
"""The catalog is everybody's."""
_BUSY = frozenset({"installation", "log_offsets", "schema_migrations", "web_sessions"})
"""What the processes write down about themselves."""
WITHOUT_TENANT = frozenset(
    {"organizations", "plan_feature_revisions", "plan_prices", "plan_price_revisions", "quarantine", "tenants", "till"}
)
"""What rows of theirs say to whom they belong only by way of others; here they are compared for everybody at once."""
_VOLATILE: Mapping[str, Sequence[str]] = {
    "api_keys": ["last_used_at"],
    "webhook_deliveries": ["attempts", "next_attempt_at", "attempted_at", "error", "state", "finished_at"],
    "webhook_endpoints": ["failures", "disabled_reason", "is_active", "updated_at"],
}
"""What the worker notes in rows of organizations."""


async def fingerprint(service: Service, tenant_ids: Collection[int]) -> dict[str, str]:
    """By table a digest of all rows of these tenants, or of all rows where they name no tenant; and the till's pools of everybody."""
    connection = await postgres.connect_one(service.postgres_url)
    try:
        tables = await connection.fetch(_TABLES)
        parts = [_digest(row["name"], row["has_tenant"]) for row in tables if row["name"] not in _UNOWNED | _BUSY]
        found = {row["name"]: row["digest"] for row in await connection.fetch(" UNION ALL ".join(parts), list(tenant_ids))}
    finally:
        await connection.close()
    return {**found, "till": await _till(service)}


def _digest(table: str, has_tenant: bool) -> str:  # noqa: FBT001 - read from a row
    row = " - ".join(["to_jsonb(t)", *(f"'{column}'::text" for column in _VOLATILE.get(table, ()))])
    which = "WHERE tenant_id = ANY($1::int[])" if has_tenant else ""
    rows = f"SELECT ({row})::text AS line FROM {table} t {which}"
    return (
        f"SELECT '{table}' AS name, md5(coalesce(string_agg(line, ',' ORDER BY line), '')) AS digest FROM ({rows}) AS every_row"
    )


async def _till(service: Service) -> str:
    client = redis.connect(service.redis_url)
    try:
        keys: list[bytes] = sorted(await client.execute_command("KEYS", "{p*}:c"))
        states = await client.pipeline(*[("HGETALL", key) for key in keys], atomic=False)
    finally:
        await client.close()
    pools = [(key, sorted(redis.pairs(state).items())) for key, state in zip(keys, states, strict=True)]
    return hashlib.sha256(repr(pools).encode()).hexdigest()


async def settled(service: Service, tenant_ids: Collection[int]) -> dict[str, str]:
    """The fingerprint, once two in a row are the same: workers have done what was left to do."""
    before: dict[str, str] = {}
    while (now := await fingerprint(service, tenant_ids)) != before:
        before = now
        await asyncio.sleep(_PAUSE_S)
    return now

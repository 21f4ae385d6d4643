"""Organizations, keys, clocks, terms versions and stored responses in a real database."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.tenancy import actions
from tallybook.tenancy.model import AuthenticatedKey, StoredResponse

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)


@pytest.fixture
async def tenants(database: Pool) -> tuple[Tenant, Tenant]:
    async with postgres.transaction(database) as connection:
        return await actions.create_organization(connection, "Acme")


async def test_an_organization_has_a_live_and_a_sandbox_mode(tenants: tuple[Tenant, Tenant]) -> None:
    live, sandbox = tenants
    assert live.organization_id == sandbox.organization_id
    assert (live.livemode, sandbox.livemode) == (True, False)
    assert live.id != sandbox.id


async def test_a_key_authenticates_as_its_tenant_until_it_expires(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    async with postgres.transaction(database) as connection:
        made = await actions.create_api_key(
            connection, tenants[0], NOW, "server", expires_in_days=1, permissions={"plan": frozenset({"read"})}
        )
        key = await actions.authenticate(connection, made.text, NOW)
        assert key == AuthenticatedKey(made.key.id, tenants[0], {"plan": frozenset({"read"})}, NOW + timedelta(days=1))
        assert await actions.authenticate(connection, made.text, NOW + timedelta(days=1)) is None


async def test_the_database_holds_no_secret(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    async with postgres.transaction(database) as connection:
        made = await actions.create_api_key(connection, tenants[0], NOW, "server")
        row = await connection.fetchrow("SELECT * FROM api_keys WHERE id = $1", made.key.id)
    assert row is not None
    assert made.text[20:] not in str(list(row.values()))
    assert len(row["secret_sha256"]) == 32


async def test_a_wrong_secret_an_unknown_key_and_a_revoked_one_are_nobody(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    async with postgres.transaction(database) as connection:
        made = await actions.create_api_key(connection, tenants[0], NOW, "server")
        other = await actions.create_api_key(connection, tenants[1], NOW, "server")
        assert await actions.authenticate(connection, made.text[:20] + other.text[20:], NOW) is None
        assert await actions.authenticate(connection, "ck_" + "0" * 16 + made.text[19:], NOW) is None
        await actions.revoke_api_key(connection, tenants[0], NOW, made.key.id)
        assert await actions.authenticate(connection, made.text, NOW) is None


async def test_a_key_of_another_tenant_can_not_be_revoked(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    async with postgres.transaction(database) as connection:
        made = await actions.create_api_key(connection, tenants[0], NOW, "server")
        with pytest.raises(errors.NotFound):
            await actions.revoke_api_key(connection, tenants[1], NOW, made.key.id)
        assert await actions.authenticate(connection, made.text, NOW) is not None


@pytest.mark.parametrize("days", [0, -1, 366])
async def test_a_lifetime_out_of_bounds_is_refused(database: Pool, tenants: tuple[Tenant, Tenant], days: int) -> None:
    async with database.acquire() as connection:
        with pytest.raises(errors.ValidationError):
            await actions.create_api_key(connection, tenants[0], NOW, "server", expires_in_days=days)


async def test_last_use_is_never_set_back(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    async with postgres.transaction(database) as connection:
        made = await actions.create_api_key(connection, tenants[0], NOW, "server")
        await actions.touch_api_keys(connection, {made.key.id: NOW})
        await actions.touch_api_keys(connection, {made.key.id: NOW - timedelta(hours=1), "key_none": NOW})
        [key] = await actions.list_api_keys(connection, tenants[0], limit=10)
    assert key.last_used_at == NOW


async def test_a_sandbox_clock_goes_forward_only_and_changes_the_terms(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    live, sandbox = tenants
    async with postgres.transaction(database) as connection:
        assert await actions.clock_now(connection, sandbox, NOW) == NOW
        assert await actions.set_simulated_time(connection, sandbox, NOW + timedelta(days=30)) == 2
        assert await actions.clock_now(connection, sandbox, NOW) == NOW + timedelta(days=30)
        assert [bump.version for bump in await actions.undelivered_bumps(connection, sandbox)] == [2]
        with pytest.raises(errors.ValidationError):
            await actions.set_simulated_time(connection, sandbox, NOW)
        with pytest.raises(errors.Forbidden):
            await actions.set_simulated_time(connection, live, NOW)
        assert await actions.clock_now(connection, live, NOW) == NOW


async def test_versions_rise_by_one_and_wait_for_delivery_in_order(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    tenant = tenants[0]
    async with postgres.transaction(database) as connection:
        assert [await actions.bump_tenant_terms(connection, tenant) for _ in range(2)] == [2, 3]
        assert [await actions.bump_customer_terms(connection, tenant, 7) for _ in range(2)] == [1, 2]
        bumps = await actions.undelivered_bumps(connection, tenant)
        assert [(bump.customer_id, bump.version) for bump in bumps] == [(None, 2), (None, 3), (7, 1), (7, 2)]
        assert tenant in await actions.tenants_with_undelivered_bumps(connection)
        await actions.mark_delivered(connection, [bump.id for bump in bumps[:3]], NOW)
        assert await actions.undelivered_bumps(connection, tenant) == bumps[3:]
        await actions.mark_delivered(connection, [bumps[3].id], NOW)
        assert tenant not in await actions.tenants_with_undelivered_bumps(connection)


async def bump_and_fail(database: Pool, tenant: Tenant) -> None:
    async with postgres.transaction(database) as connection:
        await actions.bump_tenant_terms(connection, tenant)
        raise ZeroDivisionError


async def test_a_change_that_is_rolled_back_leaves_no_version_behind(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    with pytest.raises(ZeroDivisionError):
        await bump_and_fail(database, tenants[0])
    async with postgres.transaction(database) as connection:
        assert await actions.undelivered_bumps(connection, tenants[0]) == []
        assert await actions.bump_tenant_terms(connection, tenants[0]) == 2


async def test_concurrent_changes_of_one_customer_get_different_versions(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    async def bump() -> int:
        async with postgres.transaction(database) as connection:
            return await actions.bump_customer_terms(connection, tenants[0], 8)

    assert sorted(await asyncio.gather(*(bump() for _ in range(8)))) == list(range(1, 9))


async def test_an_old_response_is_forgotten(database: Pool, tenants: tuple[Tenant, Tenant]) -> None:
    tenant = tenants[0]
    async with postgres.transaction(database) as connection:
        await actions.keep_response(connection, tenant, NOW, "k", StoredResponse(b"f", 200, b"{}"))
        assert await actions.recall_response(connection, tenant, NOW, "k", b"f") == StoredResponse(b"f", 200, b"{}")
        assert await actions.forget_responses(connection, NOW + timedelta(hours=23)) == 0
        assert await actions.forget_responses(connection, NOW + timedelta(hours=25)) == 1
        assert await actions.recall_response(connection, tenant, NOW, "k", b"other") is None


async def test_an_installation_is_fixed_at_its_first_start(database: Pool) -> None:
    async with postgres.transaction(database) as connection:
        first = await actions.install(connection, 16)
        assert await actions.install(connection, 16) == first
        with pytest.raises(errors.Conflict):
            await actions.install(connection, 8)

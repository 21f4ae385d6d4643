"""What an organization sets for itself, in a real book: its own words and its own prices for models."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import pytest

from tallybook.ai_models import actions
from tallybook.core import clock
from tallybook.core.errors import NotFound, ValidationError
from tallybook.core.tenant import Tenant
from tallybook.pricing.model_ids import MatchedBy
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.tenancy import actions as tenancy
from tests.support import model_lists
from tests.support.model_lists import IN_FORCE, LATER, NOW, PRICES, load_book, run_sync, version


@pytest.fixture(autouse=True)
async def _empty(database: Pool) -> AsyncGenerator[None]:
    yield
    await model_lists.forget(database)


@pytest.fixture
async def tenant(database: Pool) -> Tenant:
    async with postgres.transaction(database) as connection:
        live, _ = await tenancy.create_organization(connection, "Acme")
    return live


async def test_an_unknown_model_is_found_once_an_alias_is_added(database: Pool, tmp_path: Path, tenant: Tenant) -> None:
    await run_sync(database, tmp_path, PRICES)
    with pytest.raises(NotFound):
        (await load_book(database)).resolve(tenant.id, "our-best")
    before = await version(database)
    async with postgres.transaction(database) as connection:
        assert await actions.set_alias(connection, tenant, "our-best", "LAB/B", NOW) == "lab/b"
    assert await version(database) == before + 1
    resolved = (await load_book(database)).resolve(tenant.id, "our-best")
    assert (resolved.model_id, resolved.matched_by) == ("lab/b", MatchedBy.ALIAS)
    async with postgres.transaction(database) as connection:
        [only] = await actions.list_aliases(connection, tenant)
        assert (only.alias, only.model_id) == ("our-best", "lab/b")
        await actions.remove_alias(connection, tenant, "our-best", NOW)
    with pytest.raises(NotFound):
        (await load_book(database)).resolve(tenant.id, "our-best")


async def test_an_alias_needs_a_known_model_and_a_plain_word(database: Pool, tmp_path: Path, tenant: Tenant) -> None:
    await run_sync(database, tmp_path, PRICES)
    async with postgres.transaction(database) as connection:
        with pytest.raises(NotFound):
            await actions.set_alias(connection, tenant, "word", "no/such", NOW)
        for alias in ("", " x", "x\n", "\u0430", "x" * 257):
            with pytest.raises(ValidationError):
                await actions.set_alias(connection, tenant, alias, "lab/a", NOW)
        with pytest.raises(NotFound):
            await actions.remove_alias(connection, tenant, "word", NOW)


async def test_an_override_survives_syncs_and_ends(database: Pool, tmp_path: Path, tenant: Tenant) -> None:
    await run_sync(database, tmp_path, PRICES)
    own = Price((Band(0, Listed(7, 7)),))
    async with postgres.transaction(database) as connection:
        made = await actions.set_override(connection, tenant, "lab/*", own, NOW)
    await run_sync(database, tmp_path, {**PRICES, "lab/a": "0.000005"}, LATER)
    at = clock.to_ms(LATER)
    assert (await load_book(database)).resolve(tenant.id, "lab/a").entry.row_at(at).id == made.id
    async with postgres.transaction(database) as connection:
        await actions.end_override(connection, tenant, made.id, LATER)
        with pytest.raises(NotFound):
            await actions.end_override(connection, tenant, made.id, LATER)
    entry = (await load_book(database)).resolve(tenant.id, "lab/a").entry
    assert entry.row_at(at - 1).id == made.id
    assert entry.row_at(at).listed.standard[0].listed.input == 1_000_000
    assert entry.row_at(clock.to_ms(IN_FORCE)).listed.standard[0].listed.input == 5_000_000


async def test_a_new_override_of_the_same_pattern_ends_the_one_before(database: Pool, tenant: Tenant) -> None:
    async with postgres.transaction(database) as connection:
        first = await actions.set_override(connection, tenant, "acme/house", Price((Band(0, Listed(1, 1)),)), NOW)
        second = await actions.set_override(connection, tenant, "acme/house", Price((Band(0, Listed(2, 2)),)), LATER)
        found = {each.id: each.effective_to_ms for each in await actions.list_overrides(connection, tenant)}
    assert found == {first.id: clock.to_ms(LATER), second.id: None}
    entry = (await load_book(database)).resolve(tenant.id, "acme/house").entry
    assert [entry.row_at(clock.to_ms(at)).id for at in (NOW, LATER)] == [first.id, second.id]


async def test_another_tenant_sees_neither_override_nor_alias(database: Pool, tmp_path: Path, tenant: Tenant) -> None:
    await run_sync(database, tmp_path, PRICES)
    async with postgres.transaction(database) as connection:
        _, other = await tenancy.create_organization(connection, "Other")
        await actions.set_override(connection, tenant, "lab/a", Price((Band(0, Listed(7, 7)),)), NOW)
        await actions.set_alias(connection, tenant, "word", "lab/b", NOW)
        with pytest.raises(NotFound):
            await actions.remove_alias(connection, other, "word", NOW)
        assert await actions.list_overrides(connection, other) == []
    assert (await load_book(database)).resolve(other.id, "lab/a").entry.row_at(clock.to_ms(NOW)).listed.standard[
        0
    ].listed.input == 1_000_000


async def test_a_pattern_with_other_wildcards_is_refused(database: Pool, tenant: Tenant) -> None:
    async with postgres.transaction(database) as connection:
        for pattern in ("", "lab/?", "lab/[a]", "lab a", "\u0430", "x" * 200):
            with pytest.raises(ValidationError):
                await actions.set_override(connection, tenant, pattern, Price((Band(0, Listed(1, 1)),)), NOW)


async def test_price_ids_of_rows_and_overrides_never_collide(database: Pool, tmp_path: Path, tenant: Tenant) -> None:
    await run_sync(database, tmp_path, PRICES)
    async with postgres.transaction(database) as connection:
        made = [
            await actions.set_override(connection, tenant, f"own/m{number}", Price((Band(0, Listed(1, 1)),)), NOW)
            for number in range(3)
        ]
    await run_sync(database, tmp_path, {**PRICES, "lab/d": "0.000001"}, LATER)
    rows = {row["id"] for row in await database.fetch("SELECT id FROM ai_model_prices")}
    assert rows.isdisjoint(each.id for each in made)


async def test_an_own_price_from_the_past_prices_late_events_and_ends_the_one_it_replaces(database: Pool, tenant: Tenant) -> None:
    async with postgres.transaction(database) as connection:
        await actions.set_override(connection, tenant, "acme/house", Price((Band(0, Listed(9, 9)),)), NOW, NOW)
        since = NOW + timedelta(hours=1)
        made = await actions.set_override(connection, tenant, "acme/house", Price((Band(0, Listed(2, 2)),)), LATER, since)
        ended = await actions.end_override(connection, tenant, made.id, LATER, LATER + timedelta(hours=1))
    assert ended.effective_to_ms == clock.to_ms(LATER + timedelta(hours=1))
    entry = (await load_book(database)).resolve(tenant.id, "acme/house").entry
    moments = (NOW, since, LATER)
    assert [entry.row_at(clock.to_ms(at)).listed.standard[0].listed.input for at in moments] == [9, 2, 2]
    with pytest.raises(NotFound, match="no token price"):
        entry.row_at(clock.to_ms(LATER + timedelta(hours=1)))


async def test_what_a_tenant_may_set_is_bounded(
    database: Pool, tmp_path: Path, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_sync(database, tmp_path, PRICES)
    monkeypatch.setattr(actions, "ALIASES_MAX", 1)
    monkeypatch.setattr(actions, "OVERRIDES_MAX", 1)
    async with postgres.transaction(database) as connection:
        for model in ("lab/a", "lab/b"):
            await actions.set_alias(connection, tenant, "word", model, NOW)
        with pytest.raises(ValidationError):
            await actions.set_alias(connection, tenant, "other", "lab/a", NOW)
        await actions.set_override(connection, tenant, "lab/a", Price((Band(0, Listed(1, 1)),)), NOW)
        with pytest.raises(ValidationError):
            await actions.set_override(connection, tenant, "lab/b", Price((Band(0, Listed(1, 1)),)), NOW)

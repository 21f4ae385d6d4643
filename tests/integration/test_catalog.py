"""Features and plans in a real book: what is kept, what is refused, and what raises the terms version."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from tallybook.catalog import actions, rules, store
from tallybook.catalog.model import (
    ConsumptionModel,
    Feature,
    FeatureChange,
    FeatureSettings,
    NewFeature,
    NewPlan,
    Plan,
    PlanChange,
    PlanFeature,
    SettingsChange,
)
from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection, Pool
from tallybook.tenancy import actions as tenancy

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


@pytest.fixture
async def tenant(database: Pool) -> Tenant:
    async with postgres.transaction(database) as connection:
        live, _ = await tenancy.create_organization(connection, "Catalog")
    return live


async def terms_version(connection: Connection, tenant: Tenant) -> int:
    return await connection.fetchval("SELECT terms_version FROM tenants WHERE id = $1", tenant.id)


async def feature(database: Pool, tenant: Tenant, code: str = "calls") -> Feature:
    async with postgres.transaction(database) as connection:
        return await actions.create_feature(connection, tenant, NOW, NewFeature(code, "Calls", "usage", None, "call"))


async def plan(database: Pool, tenant: Tenant, code: str = "pro", model: ConsumptionModel | None = "metered") -> Plan:
    async with postgres.transaction(database) as connection:
        return await actions.create_plan(connection, tenant, NOW, NewPlan(code, "Pro", consumption_model=model))


async def included(database: Pool, plan: Plan) -> dict[str, FeatureSettings]:
    async with database.acquire() as connection:
        contents = (await store.contents(connection, [plan]))[plan.id]
    return {included.feature.code: included.settings for included in contents.features}


async def test_a_feature_is_kept_and_found_by_code_and_id(database: Pool, tenant: Tenant) -> None:
    made = await feature(database, tenant)
    async with database.acquire() as connection:
        assert await store.feature_by_reference(connection, tenant, "calls") == made
        assert await store.feature_by_reference(connection, tenant, made.public_id) == made
        assert await store.feature_by_reference(connection, tenant, "nothing") is None


async def test_a_code_is_one_features_only(database: Pool, tenant: Tenant) -> None:
    await feature(database, tenant)
    with pytest.raises(errors.Conflict) as refusal:
        await feature(database, tenant)
    assert refusal.value.code == "feature_already_exists"


async def test_a_feature_changes_in_what_is_given(database: Pool, tenant: Tenant) -> None:
    await feature(database, tenant)
    async with postgres.transaction(database) as connection:
        changed = await actions.update_feature(
            connection, tenant, LATER, "calls", FeatureChange(name="API calls", unit_name=None)
        )
        with pytest.raises(errors.ValidationError, match="at least one"):
            await actions.update_feature(connection, tenant, LATER, "calls", FeatureChange())
    assert (changed.name, changed.unit_name, changed.code, changed.updated_at) == ("API calls", None, "calls", LATER)


async def test_a_feature_that_a_plan_includes_is_not_deleted_until_it_is_removed_there(database: Pool, tenant: Tenant) -> None:
    await feature(database, tenant)
    await plan(database, tenant)
    async with postgres.transaction(database) as connection:
        await actions.add_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange())
        with pytest.raises(errors.Conflict) as refusal:
            await actions.delete_feature(connection, tenant, NOW, "calls")
        assert (refusal.value.code, refusal.value.details) == ("feature_in_use", {"plans": ["pro"]})
        await actions.remove_plan_feature(connection, tenant, NOW, "pro", "calls")
        await actions.delete_feature(connection, tenant, NOW, "calls")
        assert await store.feature_by_reference(connection, tenant, "calls") is None
    again = await feature(database, tenant)
    assert again.code == "calls"


async def test_a_feature_of_deleted_plans_only_can_be_deleted(database: Pool, tenant: Tenant) -> None:
    await feature(database, tenant)
    await plan(database, tenant)
    async with postgres.transaction(database) as connection:
        await actions.add_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange())
        await actions.delete_plan(connection, tenant, NOW, "pro")
        await actions.delete_feature(connection, tenant, NOW, "calls")


async def test_deleting_a_feature_while_it_is_added_to_a_plan_never_leaves_it_there(database: Pool, tenant: Tenant) -> None:
    async def add(code: str) -> None:
        async with postgres.transaction(database) as connection:
            await actions.add_plan_feature(connection, tenant, NOW, "pro", code, SettingsChange())

    async def delete(code: str) -> None:
        async with postgres.transaction(database) as connection:
            await actions.delete_feature(connection, tenant, NOW, code)

    pro = await plan(database, tenant)
    codes = [f"calls_{n}" for n in range(10)]
    for code in codes:
        await feature(database, tenant, code)
    outcomes = await asyncio.gather(*(task(code) for code in codes for task in (add, delete)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 10
    assert {type(outcome) for outcome in outcomes if outcome is not None} <= {errors.Conflict, errors.NotFound}
    async with database.acquire() as connection:
        for code in await included(database, pro):
            assert await store.feature_by_reference(connection, tenant, code) is not None


async def test_a_plan_is_kept_and_found_by_code_and_id(database: Pool, tenant: Tenant) -> None:
    new = NewPlan(
        "pro", "Pro", "For teams", "balance", is_public=False, is_free=True, block_on_exhaustion=True, metadata={"a": 1}
    )
    async with postgres.transaction(database) as connection:
        made = await actions.create_plan(connection, tenant, NOW, new)
        assert await store.plan_by_reference(connection, tenant, "pro") == made
        assert await store.plan_by_reference(connection, tenant, made.public_id) == made
        assert await store.plan_by_id(connection, made.id) == made
    assert (made.code, made.name, made.description, made.consumption_model) == ("pro", "Pro", "For teams", "balance")
    assert (made.is_public, made.is_free, made.block_on_exhaustion, made.metadata) == (False, True, True, {"a": 1})


async def test_a_plan_code_is_taken_once_at_a_time(database: Pool, tenant: Tenant) -> None:
    first = await plan(database, tenant)
    with pytest.raises(errors.Conflict) as refusal:
        await plan(database, tenant)
    assert refusal.value.code == "duplicate"
    async with postgres.transaction(database) as connection:
        await actions.delete_plan(connection, tenant, LATER, "pro")
    assert (await plan(database, tenant)).id != first.id


async def test_a_deleted_plan_is_off_offer_and_still_there_for_its_subscriptions(database: Pool, tenant: Tenant) -> None:
    made = await plan(database, tenant)
    await feature(database, tenant)
    async with postgres.transaction(database) as connection:
        await actions.add_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange(included_units=5))
        await actions.delete_plan(connection, tenant, LATER, made.public_id)
        assert await store.plan_by_reference(connection, tenant, "pro") is None
        assert await store.plans_page(connection, tenant, None, 10, include_private=True) == []
        kept = await store.plan_by_id(connection, made.id)
        assert kept is not None
        assert kept.deleted_at == LATER
        [terms] = await store.feature_terms(connection, made.id, LATER, LATER)
        assert terms.included_nano == 5_000_000_000
        with pytest.raises(errors.NotFound, match="plan"):
            await actions.update_plan(connection, tenant, LATER, "pro", PlanChange(name="New"))


async def test_private_plans_are_listed_on_request(database: Pool, tenant: Tenant) -> None:
    await plan(database, tenant, "shown")
    await plan(database, tenant, "hidden")
    async with postgres.transaction(database) as connection:
        await actions.update_plan(connection, tenant, NOW, "hidden", PlanChange(is_public=False))
        public = await store.plans_page(connection, tenant, None, 10, include_private=False)
        every = await store.plans_page(connection, tenant, None, 10, include_private=True)
    assert [plan.code for plan in public] == ["shown"]
    assert [plan.code for plan in every] == ["hidden", "shown"]


async def test_a_feature_on_a_plan_is_added_changed_and_removed(database: Pool, tenant: Tenant) -> None:
    calls = await feature(database, tenant)
    pro = await plan(database, tenant)
    async with postgres.transaction(database) as connection:
        change = SettingsChange(included_units=100, overage_enabled=True, unit_price_nano=7)
        _, added = await actions.add_plan_feature(connection, tenant, NOW, "pro", calls.public_id, change)
        settings = FeatureSettings(included_units=100, overage_enabled=True, unit_price_nano=7)
        assert added == PlanFeature(pro.id, calls, settings)
        _, changed = await actions.update_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange(enabled=False))
        assert changed.settings == dataclasses.replace(settings, enabled=False)
    assert await included(database, pro) == {"calls": changed.settings}
    async with postgres.transaction(database) as connection:
        await actions.remove_plan_feature(connection, tenant, NOW, "pro", "calls")
    assert await included(database, pro) == {}
    async with postgres.transaction(database) as connection:
        with pytest.raises(errors.NotFound) as refusal:
            await actions.update_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange(enabled=True))
        assert refusal.value.code == "feature_not_found"
        with pytest.raises(errors.NotFound):
            await actions.remove_plan_feature(connection, tenant, NOW, "pro", "calls")
        await actions.add_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange())
    assert await included(database, pro) == {"calls": FeatureSettings()}


async def test_a_feature_is_on_a_plan_once(database: Pool, tenant: Tenant) -> None:
    await feature(database, tenant)
    await plan(database, tenant)

    async def add() -> None:
        async with postgres.transaction(database) as connection:
            await actions.add_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange())

    outcomes = await asyncio.gather(*(add() for _ in range(5)), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, errors.Conflict)]
    assert [refusal.code for refusal in refusals] == ["feature_already_exists"] * 4


async def test_a_plan_has_only_so_many_features_and_those_taken_off_count_for_a_year(
    database: Pool, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when nothing bounds them, when taking some off makes room for periods to hold more, or when other plans count."""
    monkeypatch.setattr(rules, "PLAN_FEATURES_MAX", 3)
    for code in ("a", "b", "c", "d"):
        await feature(database, tenant, code)
    for code in ("pro", "other"):
        await plan(database, tenant, code)

    async def add(code: str, plan_code: str = "pro", now: datetime = NOW) -> None:
        async with postgres.transaction(database) as connection:
            await actions.add_plan_feature(connection, tenant, now, plan_code, code, SettingsChange())

    for code in ("a", "b", "c"):
        await add(code)
    with pytest.raises(errors.ValidationError, match="at most 3"):
        await add("d")
    await add("d", "other")
    async with postgres.transaction(database) as connection:
        await actions.remove_plan_feature(connection, tenant, NOW, "pro", "a")
        await actions.remove_plan_feature(connection, tenant, NOW, "pro", "b")
    with pytest.raises(errors.ValidationError, match="at most 3"):
        await add("d", now=NOW + timedelta(days=365))
    await add("b", now=LATER)
    await add("d", now=NOW + timedelta(days=366))


async def test_features_of_other_plans_stay_apart(database: Pool, tenant: Tenant) -> None:
    await feature(database, tenant)
    plans = [await plan(database, tenant, code) for code in ("one", "two", "three")]
    async with postgres.transaction(database) as connection:
        await actions.add_plan_feature(connection, tenant, NOW, "one", "calls", SettingsChange(included_units=1))
        await actions.add_plan_feature(connection, tenant, NOW, "two", "calls", SettingsChange(included_units=2))
        contents = await store.contents(connection, plans)
    units = [[included.settings.included_units for included in contents[plan.id].features] for plan in plans]
    assert units == [[1], [2], []]


async def test_another_organization_and_the_other_mode_reach_nothing(database: Pool, tenant: Tenant) -> None:
    calls = await feature(database, tenant)
    pro = await plan(database, tenant)
    async with postgres.transaction(database) as connection:
        live, sandbox = await tenancy.create_organization(connection, "Strangers")
        for stranger in (live, sandbox):
            assert await store.feature_by_reference(connection, stranger, calls.public_id) is None
            assert await store.plan_by_reference(connection, stranger, pro.public_id) is None
            assert await store.features_page(connection, stranger, None, 10) == []
            assert await store.plans_page(connection, stranger, None, 10, include_private=True) == []
            with pytest.raises(errors.NotFound):
                await actions.delete_plan(connection, stranger, NOW, pro.public_id)
            with pytest.raises(errors.NotFound):
                await actions.delete_feature(connection, stranger, NOW, calls.public_id)
            await actions.create_plan(connection, stranger, NOW, NewPlan("mine", "Mine"))
            with pytest.raises(errors.NotFound):
                await actions.add_plan_feature(connection, stranger, NOW, "mine", calls.public_id, SettingsChange())


async def test_every_change_raises_the_terms_version_and_leaves_a_bump(database: Pool, tenant: Tenant) -> None:
    async with postgres.transaction(database) as connection:
        before = await terms_version(connection, tenant)
        await actions.create_feature(connection, tenant, NOW, NewFeature("calls", "Calls", "usage"))
        await actions.update_feature(connection, tenant, NOW, "calls", FeatureChange(name="API calls"))
        await actions.create_plan(connection, tenant, NOW, NewPlan("pro", "Pro"))
        await actions.update_plan(connection, tenant, NOW, "pro", PlanChange(name="Pro plan"))
        await actions.add_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange())
        await actions.update_plan_feature(connection, tenant, NOW, "pro", "calls", SettingsChange(included_units=1))
        await actions.remove_plan_feature(connection, tenant, NOW, "pro", "calls")
        await actions.delete_feature(connection, tenant, NOW, "calls")
        await actions.delete_plan(connection, tenant, NOW, "pro")
        assert await terms_version(connection, tenant) == before + 9
        assert await connection.fetchval("SELECT count(*) FROM terms_bumps WHERE tenant_id = $1", tenant.id) == 9

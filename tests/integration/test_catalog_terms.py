"""What holds in a period: feature and price terms as of a moment, read from a real book."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tallybook.catalog import actions, store
from tallybook.catalog.model import (
    BillingInterval,
    ConsumptionModel,
    FeatureTerms,
    FeatureType,
    NewFeature,
    NewPlan,
    NewPrice,
    Plan,
    Price,
    PriceAmounts,
    PriceChange,
    PriceTerms,
    SettingsChange,
)
from tallybook.core import errors, money
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.tenancy import actions as tenancy

START = datetime(2026, 11, 1, tzinfo=UTC)
SETUP = START - timedelta(days=10)
OVERAGE = SettingsChange(included_units=1000, overage_enabled=True, unit_price_nano=20_000)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


@pytest.fixture
async def tenant(database: Pool) -> Tenant:
    async with postgres.transaction(database) as connection:
        live, _ = await tenancy.create_organization(connection, "Terms")
    return live


async def plan(database: Pool, tenant: Tenant, model: ConsumptionModel = "metered") -> Plan:
    async with postgres.transaction(database) as connection:
        return await actions.create_plan(connection, tenant, SETUP, NewPlan("pro", "Pro", consumption_model=model))


async def feature(database: Pool, tenant: Tenant, code: str = "calls", kind: FeatureType = "usage") -> None:
    async with postgres.transaction(database) as connection:
        await actions.create_feature(connection, tenant, SETUP, NewFeature(code, code.title(), kind, None, "call"))


async def add(database: Pool, tenant: Tenant, when: datetime, change: SettingsChange, code: str = "calls") -> None:
    async with postgres.transaction(database) as connection:
        await actions.add_plan_feature(connection, tenant, when, "pro", code, change)


async def change(database: Pool, tenant: Tenant, when: datetime, change: SettingsChange) -> None:
    async with postgres.transaction(database) as connection:
        await actions.update_plan_feature(connection, tenant, when, "pro", "calls", change)


async def remove(database: Pool, tenant: Tenant, when: datetime) -> None:
    async with postgres.transaction(database) as connection:
        await actions.remove_plan_feature(connection, tenant, when, "pro", "calls")


async def terms(database: Pool, plan: Plan, start: datetime, now: datetime) -> dict[str, FeatureTerms]:
    async with database.acquire() as connection:
        return {terms.code: terms for terms in await store.feature_terms(connection, plan.id, start, now)}


async def test_terms_say_everything_about_a_feature(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, SETUP, OVERAGE)
    [calls] = (await terms(database, pro, START, START)).values()
    assert calls == FeatureTerms(
        feature_id=calls.feature_id,
        code="calls",
        name="Calls",
        unit_name="call",
        type="usage",
        enabled=True,
        included_nano=1000 * money.NANO,
        unlimited=False,
        overage_enabled=True,
        unit_price_nano=20_000,
        credits_per_unit=None,
        pricing_mode="fixed",
        margin_bps=None,
    )


async def test_a_dearer_unit_waits_for_the_renewal_and_a_cheaper_one_does_not(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, SETUP, OVERAGE)
    await change(database, tenant, day(5), SettingsChange(unit_price_nano=50_000))
    assert (await terms(database, pro, START, day(6)))["calls"].unit_price_nano == 20_000
    assert (await terms(database, pro, day(30), day(30)))["calls"].unit_price_nano == 50_000
    await change(database, tenant, day(7), SettingsChange(unit_price_nano=10_000))
    assert (await terms(database, pro, START, day(6)))["calls"].unit_price_nano == 20_000
    assert (await terms(database, pro, START, day(8)))["calls"].unit_price_nano == 10_000
    assert (await terms(database, pro, day(30), day(30)))["calls"].unit_price_nano == 10_000


async def test_more_included_holds_at_once_and_less_waits(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, SETUP, OVERAGE)
    await change(database, tenant, day(5), SettingsChange(included_units=2000))
    await change(database, tenant, day(6), SettingsChange(included_units=500, enabled=False))
    kept = (await terms(database, pro, START, day(7)))["calls"]
    assert (kept.included_nano, kept.enabled) == (2000 * money.NANO, True)
    renewed = (await terms(database, pro, day(30), day(30)))["calls"]
    assert (renewed.included_nano, renewed.enabled) == (500 * money.NANO, False)


async def test_a_period_is_not_touched_by_what_came_after_it(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, SETUP, OVERAGE)
    await change(database, tenant, day(31), SettingsChange(unit_price_nano=1, unlimited=True))
    ended = (await terms(database, pro, START, day(30)))["calls"]
    assert (ended.unit_price_nano, ended.unlimited) == (20_000, False)


async def test_terms_of_a_period_that_has_not_begun_are_the_latest(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, SETUP, OVERAGE)
    await change(database, tenant, day(5), SettingsChange(included_units=1))
    assert (await terms(database, pro, day(30), day(4)))["calls"].included_nano == 1000 * money.NANO
    assert (await terms(database, pro, day(30), day(6)))["calls"].included_nano == money.NANO


async def test_a_removed_feature_stays_until_the_renewal(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, SETUP, OVERAGE)
    await remove(database, tenant, day(5))
    assert list(await terms(database, pro, START, day(6))) == ["calls"]
    assert await terms(database, pro, day(30), day(30)) == {}


async def test_a_feature_added_in_a_period_holds_from_then_on(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, day(5), OVERAGE)
    assert await terms(database, pro, START, day(4)) == {}
    assert (await terms(database, pro, START, day(5)))["calls"].included_nano == 1000 * money.NANO


async def test_a_code_given_to_a_new_feature_within_the_period_means_the_new_one(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await feature(database, tenant)
    await add(database, tenant, SETUP, OVERAGE)
    await remove(database, tenant, day(5))
    async with postgres.transaction(database) as connection:
        await actions.delete_feature(connection, tenant, day(5), "calls")
    await feature(database, tenant)
    await add(database, tenant, day(6), SettingsChange(included_units=3))
    assert (await terms(database, pro, START, day(7)))["calls"].included_nano == 3 * money.NANO


async def test_seats_of_a_balance_plan_keep_the_price_of_their_overage(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant, "balance")
    await feature(database, tenant, kind="seats")
    await add(database, tenant, SETUP, OVERAGE)
    await remove(database, tenant, day(5))
    await add(database, tenant, day(6), SettingsChange(included_units=1))
    assert (await terms(database, pro, START, day(7)))["calls"].unit_price_nano == 20_000


async def test_a_plan_that_does_not_exist_has_no_terms(database: Pool) -> None:
    async with database.acquire() as connection:
        assert await store.feature_terms(connection, 2**31 - 1, START, START) == []
        assert await store.price_terms(connection, 2**31 - 1, START) is None


# ── prices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def add_price(
    database: Pool, tenant: Tenant, cents: int, interval: BillingInterval = "monthly", *, is_default: bool = False
) -> Price:
    async with postgres.transaction(database) as connection:
        new = NewPrice(interval, PriceAmounts(cents), is_default=is_default)
        _, price = await actions.add_price(connection, tenant, SETUP, "pro", new)
    return price


async def change_price(database: Pool, tenant: Tenant, price: Price, when: datetime, change: PriceChange) -> Price:
    async with postgres.transaction(database) as connection:
        _, changed = await actions.update_price(connection, tenant, when, "pro", price.public_id, change)
    return changed


async def price_terms(database: Pool, price: Price, at: datetime | None) -> PriceTerms:
    async with database.acquire() as connection:
        terms = await store.price_terms(connection, price.id, at)
    assert terms is not None
    return terms


async def defaults(database: Pool, plan: Plan) -> list[tuple[int, bool]]:
    async with database.acquire() as connection:
        return [(price.amounts.price_cents, price.is_default) for price in await store.prices(connection, plan)]


async def test_a_price_holds_as_it_was_at_the_moment_asked_for(database: Pool, tenant: Tenant) -> None:
    await plan(database, tenant, "balance")
    price = await add_price(database, tenant, 2900)
    changed = await change_price(database, tenant, price, day(5), PriceChange(price_cents=3900, trial_days=14))
    assert changed.amounts == PriceAmounts(3900, 14)
    expected = PriceTerms(price.id, price.public_id, "monthly", 2900, 0, 29 * money.NANO, 0)
    assert await price_terms(database, price, START) == expected
    assert await price_terms(database, price, SETUP - timedelta(days=1)) == expected
    assert (await price_terms(database, price, day(5))).included_balance_nano == 39 * money.NANO
    assert (await price_terms(database, price, None)).price_cents == 3900


async def test_what_a_price_grants_follows_from_the_plan(database: Pool, tenant: Tenant) -> None:
    await plan(database, tenant, "credits")
    price = await add_price(database, tenant, 2900)
    assert (await price_terms(database, price, None)).included_credits == 0
    await change_price(database, tenant, price, day(1), PriceChange(included_credits=500))
    terms = await price_terms(database, price, None)
    assert (terms.included_credits, terms.included_balance_nano) == (500, 0)


async def test_a_plan_has_exactly_one_default_price_while_it_has_any(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    first = await add_price(database, tenant, 1)
    await add_price(database, tenant, 2, "yearly")
    assert await defaults(database, pro) == [(1, True), (2, False)]
    third = await add_price(database, tenant, 3, is_default=True)
    assert await defaults(database, pro) == [(1, False), (2, False), (3, True)]
    await change_price(database, tenant, first, day(1), PriceChange(is_default=True))
    assert await defaults(database, pro) == [(1, True), (2, False), (3, False)]
    with pytest.raises(errors.ValidationError, match="another price"):
        await change_price(database, tenant, first, day(1), PriceChange(is_default=False))
    await change_price(database, tenant, third, day(1), PriceChange(is_default=False))
    async with postgres.transaction(database) as connection:
        await actions.delete_price(connection, tenant, day(2), "pro", first.public_id)
    assert await defaults(database, pro) == [(2, True), (3, False)]


async def test_prices_added_at_once_leave_one_default(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    await asyncio.gather(*(add_price(database, tenant, cents, is_default=True) for cents in range(5)))
    assert sum(is_default for _, is_default in await defaults(database, pro)) == 1


async def test_an_archived_price_is_off_offer_and_kept_by_its_subscriptions(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    price = await add_price(database, tenant, 2900)
    async with postgres.transaction(database) as connection:
        await actions.delete_price(connection, tenant, day(1), "pro", price.public_id)
        assert await store.price_for(connection, pro, None, None) is None
        with pytest.raises(errors.NotFound) as refusal:
            await actions.delete_price(connection, tenant, day(1), "pro", price.public_id)
        assert refusal.value.code == "price_not_found"
    assert (await price_terms(database, price, day(40))).price_cents == 2900


async def test_a_new_subscription_gets_the_price_it_names_or_else_the_default(database: Pool, tenant: Tenant) -> None:
    pro = await plan(database, tenant)
    monthly = await add_price(database, tenant, 2900)
    yearly = await add_price(database, tenant, 29_000, "yearly")
    async with database.acquire() as connection:
        assert await store.price_for(connection, pro, None, None) == monthly
        assert await store.price_for(connection, pro, "yearly", None) == yearly
        assert await store.price_for(connection, pro, None, yearly.public_id) == yearly
        assert await store.price_for(connection, pro, "weekly", None) is None
        with pytest.raises(errors.NotFound):
            await store.price_for(connection, pro, None, "price_nothing")
        with pytest.raises(errors.NotFound, match="monthly"):
            await store.price_for(connection, pro, "monthly", yearly.public_id)


async def test_metadata_of_a_price_is_merged_key_by_key(database: Pool, tenant: Tenant) -> None:
    await plan(database, tenant)
    price = await add_price(database, tenant, 2900)
    await change_price(database, tenant, price, day(1), PriceChange(metadata={"name": "Early", "old": 1}))
    changed = await change_price(database, tenant, price, day(2), PriceChange(metadata={"name": "Late", "new": {"x": 2}}))
    assert changed.metadata == {"name": "Late", "old": 1, "new": {"x": 2}}
    assert changed.amounts == price.amounts

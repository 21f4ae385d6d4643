"""Customers in a real book."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from tallybook.core import errors
from tallybook.core.errors import TallybookError
from tallybook.core.tenant import Tenant
from tallybook.customers import actions, store
from tallybook.customers.model import Customer, CustomerChange, Filter, NewCustomer
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.tenancy import actions as tenancy

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


@pytest.fixture
async def tenant(database: Pool) -> Tenant:
    async with postgres.transaction(database) as connection:
        live, _ = await tenancy.create_organization(connection, "Customers")
    return live


async def create(database: Pool, tenant: Tenant, new: NewCustomer, now: datetime = NOW) -> Customer:
    async with postgres.transaction(database) as connection:
        return await actions.create(connection, tenant, now, new)


async def update(database: Pool, tenant: Tenant, reference: str, change: CustomerChange) -> Customer:
    async with postgres.transaction(database) as connection:
        return await actions.update(connection, tenant, LATER, reference, change)


async def find(database: Pool, tenant: Tenant, reference: str) -> Customer | None:
    async with database.acquire() as connection:
        return await store.find(connection, tenant, reference)


async def page(database: Pool, tenant: Tenant, which: Filter, limit: int = 100) -> list[str | None]:
    async with database.acquire() as connection:
        return [customer.external_id for customer in await store.page(connection, tenant, which, limit)]


async def test_a_customer_is_kept_whole_and_found_by_either_id(database: Pool, tenant: Tenant) -> None:
    new = NewCustomer(
        "a@b.de", "user_1", "Ada", "DE1", "Europe/Berlin", {"tier": {"level": 2, "odd": 0.1}}, {"line1": "Street 1"}
    )
    made = await create(database, tenant, new)
    assert {field.name: getattr(made, field.name) for field in dataclasses.fields(NewCustomer)} == dataclasses.asdict(new)
    assert made.public_id.startswith("cus_")
    assert made.created_at == made.updated_at == NOW
    assert await find(database, tenant, "user_1") == made
    assert await find(database, tenant, made.public_id) == made


async def test_the_same_id_again_answers_with_the_customer_unchanged(database: Pool, tenant: Tenant) -> None:
    first = await create(database, tenant, NewCustomer("first@b.de", "user_1"))
    again = await create(database, tenant, NewCustomer("other@b.de", "user_1", full_name="Other"), LATER)
    by_our_id = await create(database, tenant, NewCustomer("other@b.de", first.public_id))
    assert again == first
    assert by_our_id == first


async def test_customers_without_an_id_of_the_callers_are_all_different(database: Pool, tenant: Tenant) -> None:
    made = [await create(database, tenant, NewCustomer("same@b.de")) for _ in range(2)]
    assert made[0].id != made[1].id


async def test_many_at_once_with_the_same_id_make_one_customer(database: Pool, tenant: Tenant) -> None:
    made = await asyncio.gather(*(create(database, tenant, NewCustomer(f"{n}@b.de", "racing")) for n in range(8)))
    assert len({customer.id for customer in made}) == 1
    assert await page(database, tenant, Filter()) == ["racing"]


async def test_batches_with_the_same_ids_in_any_order_all_succeed(database: Pool, tenant: Tenant) -> None:
    async def batch(order: list[int]) -> list[Customer | TallybookError]:
        async with postgres.transaction(database) as connection:
            return await actions.create_each(connection, tenant, NOW, [NewCustomer("a@b.de", f"user_{n}") for n in order])

    orders = [list(range(20)), list(range(19, -1, -1)), [*range(10, 20), *range(10)]]
    for order, results in zip(orders, await asyncio.gather(*(batch(order) for order in orders)), strict=True):
        assert [getattr(result, "external_id", None) for result in results] == [f"user_{n}" for n in order]
    assert len(await page(database, tenant, Filter())) == 20


async def test_a_broken_item_of_a_batch_fails_alone(database: Pool, tenant: Tenant) -> None:
    refused = errors.invalid("email", "no email")
    items = [NewCustomer("a@b.de", "z"), NewCustomer("broken", "y"), refused, NewCustomer("c@d.de", "a")]
    async with postgres.transaction(database) as connection:
        results = await actions.create_each(connection, tenant, NOW, items)
    assert [getattr(result, "external_id", "failed") for result in results] == ["z", "failed", "failed", "a"]
    assert results[2] is refused
    assert await page(database, tenant, Filter()) == ["z", "a"]


async def test_another_organization_and_the_other_mode_see_nothing(database: Pool, tenant: Tenant) -> None:
    made = await create(database, tenant, NewCustomer("a@b.de", "user_1"))
    async with postgres.transaction(database) as connection:
        strangers = await tenancy.create_organization(connection, "Strangers")
    for stranger in strangers:
        assert await find(database, stranger, made.public_id) is None
        assert await find(database, stranger, "user_1") is None
        assert await page(database, stranger, Filter()) == []
        with pytest.raises(errors.NotFound, match="customer"):
            await update(database, stranger, made.public_id, CustomerChange(full_name="Mine"))
        async with database.acquire() as connection:
            assert await store.by_id(connection, stranger, made.id) is None
    own = await create(database, strangers[0], NewCustomer("a@b.de", "user_1"))
    assert own.id != made.id


async def test_a_change_changes_what_it_gives_and_nothing_else(database: Pool, tenant: Tenant) -> None:
    made = await create(database, tenant, NewCustomer("a@b.de", "user_1", "Ada", metadata={"a": 1, "b": 2}))
    changed = await update(database, tenant, "user_1", CustomerChange(full_name=None, metadata={"c": 3}))
    assert changed == dataclasses.replace(made, full_name=None, metadata={"c": 3}, updated_at=LATER)
    assert await find(database, tenant, "user_1") == changed


async def test_a_change_of_nothing_writes_nothing(database: Pool, tenant: Tenant) -> None:
    made = await create(database, tenant, NewCustomer("a@b.de", "user_1", "Ada"))
    assert await update(database, tenant, "user_1", CustomerChange(full_name="Ada")) == made


async def test_an_external_id_can_be_given_changed_and_taken_away(database: Pool, tenant: Tenant) -> None:
    made = await create(database, tenant, NewCustomer("a@b.de"))
    await update(database, tenant, made.public_id, CustomerChange(external_id="new"))
    await update(database, tenant, "new", CustomerChange(external_id="newer"))
    assert await find(database, tenant, "new") is None
    await update(database, tenant, "newer", CustomerChange(external_id=None))
    assert await find(database, tenant, "newer") is None


async def test_a_change_of_the_external_id_raises_the_terms_version_and_others_do_not(database: Pool, tenant: Tenant) -> None:
    made = await create(database, tenant, NewCustomer("a@b.de", "user_1"))

    async def bumps() -> int:
        return await database.fetchval("SELECT count(*) FROM terms_bumps WHERE customer_id = $1", made.id)

    await update(database, tenant, "user_1", CustomerChange(full_name="Ada"))
    assert await bumps() == 0
    await update(database, tenant, "user_1", CustomerChange(external_id="user_2"))
    assert await bumps() == 1


async def test_an_external_id_that_names_another_customer_is_refused(database: Pool, tenant: Tenant) -> None:
    first = await create(database, tenant, NewCustomer("a@b.de", "user_1"))
    await create(database, tenant, NewCustomer("c@d.de", "user_2"))
    for taken in ("user_1", first.public_id):
        with pytest.raises(errors.Conflict) as refusal:
            await update(database, tenant, "user_2", CustomerChange(external_id=taken))
        assert (refusal.value.code, refusal.value.param) == ("duplicate", "externalId")


async def test_of_two_that_want_the_same_external_id_at_once_one_gets_it(database: Pool, tenant: Tenant) -> None:
    made = [await create(database, tenant, NewCustomer(f"{n}@b.de")) for n in range(6)]
    changes = (update(database, tenant, customer.public_id, CustomerChange(external_id="wanted")) for customer in made)
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert sum(isinstance(outcome, Customer) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, errors.Conflict) for outcome in outcomes) == 5


async def test_pages_are_newest_first_and_filters_narrow_them(database: Pool, tenant: Tenant) -> None:
    names = ["Ada", "Grace 100%", "under_score", "underXscore"]
    made = [await create(database, tenant, NewCustomer(f"{n}@b.de", f"user_{n}", name)) for n, name in enumerate(names)]
    assert await page(database, tenant, Filter()) == ["user_3", "user_2", "user_1", "user_0"]
    assert await page(database, tenant, Filter(before_id=made[2].id), 1) == ["user_1"]
    assert await page(database, tenant, Filter(external_id="user_2")) == ["user_2"]
    assert await page(database, tenant, Filter(external_id="USER_2")) == []
    assert await page(database, tenant, Filter(search="aDa")) == ["user_0"]
    assert await page(database, tenant, Filter(search="100%")) == ["user_1"]
    assert await page(database, tenant, Filter(search="r_s")) == ["user_2"]
    assert await page(database, tenant, Filter(search="\\")) == []
    assert await page(database, tenant, Filter(search="3@b")) == ["user_3"]
    assert await page(database, tenant, Filter(search=made[1].public_id)) == ["user_1"]

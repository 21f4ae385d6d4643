"""Voids in the till's script and in its log, on a real Redis. Each test names the mutant that it kills."""

from typing import Any

import msgspec
import pytest

from tallybook.charge.commands import Charge, Outcome
from tallybook.charge.till import PoolState, Till
from tallybook.core import ids, pools, usage_log
from tallybook.core.usage_log import Kind, Record
from tallybook.flows import reconcile
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import book as books
from tests.support import log_builder as log
from tests.support import tills
from tests.support.book import Book


@pytest.fixture
async def book(database: Pool, redis_client: Redis) -> Book:
    return await books.empty(database, redis_client)


@pytest.fixture
async def till(book: Book) -> Till:
    return await tills.open_till(book.redis)


def void(
    customer_id: int, place: str, amount: int, for_spare: int, *, opening: int, versions: tuple[int, int] = (0, 0)
) -> Charge:
    """Takes back an event that took `amount`, of which purchased credits paid `for_spare`."""
    digest = ids.event_digest(1, customer_id, f"void {place}")
    record = Record(Kind.VOID, 1, customer_id, digest, log.POOL, -amount, occurred_at_ms=log.ACCEPTED_MS, voids=place)
    spare = pools.PURCHASED_CREDITS if for_spare else ""
    return Charge(
        partition=tills.partition_of(customer_id),
        record=record,
        amount=amount - for_spare,
        opening=opening,
        spare_pool=spare,
        tenant_version=versions[0],
        customer_version=versions[1],
        for_spare=for_spare,
    )


async def mixed_usage(till: Till) -> None:
    """Customer 1 has 100 of the plan and 50 purchased, and one event of 120 takes of both."""
    await till.charge([tills.change(Kind.ADJUSTMENT, 1, "bought", 50, pool="credits")])
    [receipt] = await till.charge([tills.usage(1, "e", 120, opening=100, blocks=True, spare="credits")])
    assert (receipt.outcome, receipt.left, receipt.spare_left, receipt.found) == (Outcome.ACCEPTED, 0, 30, 20)


async def test_both_parts_go_back_and_the_book_agrees(book: Book, till: Till) -> None:
    """Mutants: one of the two parts is forgotten in script, rollup or reconciliation."""
    await mixed_usage(till)
    [receipt] = await till.charge([void(1, "2-0", 120, 20, opening=100)])
    assert (receipt.outcome, receipt.left, receipt.spare_left, receipt.found) == (Outcome.ACCEPTED, 100, 50, -20)
    for _ in range(2):
        assert (await reconcile.reconcile(book.database, book.redis, books.PARTITIONS)).is_clean
        await book.roll_up()
    balances = {row["pool"]: (row["charged"], row["balance"]) for row in await book.rows("SELECT * FROM pool_balances")}
    assert balances == {log.POOL: (0, 100), "credits": (0, 50)}
    ledger = await book.rows("SELECT pool, kind, amount FROM pool_ledger WHERE kind IN ('charge', 'void') ORDER BY pool, kind")
    assert [(row["pool"], row["kind"], row["amount"]) for row in ledger] == [
        (log.POOL, "charge", -100),
        (log.POOL, "void", 100),
        ("credits", "charge", -20),
        ("credits", "void", 20),
    ]
    assert await book.number("SELECT count(*) FROM quarantine") == 0


async def test_a_void_is_known_again_and_needs_current_terms_and_pools_that_are_not_frozen(till: Till) -> None:
    """Mutants: a void skips the identity, the versions or the freeze."""
    await mixed_usage(till)
    await till.bump_terms(1, 1, 5)
    charge = void(1, "2-0", 120, 20, opening=100)
    assert [one.outcome for one in await till.charge([charge])] == [Outcome.STALE]
    charge = void(1, "2-0", 120, 20, opening=100, versions=(0, 5))
    await till.freeze(1, 1, "a test")
    assert [one.outcome for one in await till.charge([charge])] == [Outcome.FROZEN]
    await till.thaw(1, 1)
    assert [one.outcome for one in await till.charge([charge, charge])] == [Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert (await till.read(1, 1)).pools == {log.POOL: PoolState(100, 100), "credits": PoolState(0, 50)}


async def test_a_pool_that_would_leave_its_exact_range_takes_neither_part(book: Book, till: Till) -> None:
    """Mutant: the bound is not checked, or only one of the two writes is undone."""
    full, much = 4 * 10**18, 10**15
    await till.charge([tills.change(Kind.ADJUSTMENT, 1, "bought", 50, pool="credits")])
    await till.charge([tills.usage(1, "e", much, opening=full), tills.change(Kind.ADJUSTMENT, 1, "back", much, opening=full)])
    before = (await till.read(1, 1)).pools
    [receipt] = await till.charge([void(1, "2-0", much + 20, 20, opening=full)])
    assert receipt.outcome is Outcome.LIMIT
    assert (await till.read(1, 1)).pools == before
    await book.roll_up()
    assert await book.number("SELECT count(*) FROM usage_events WHERE kind = 5") == 0


async def test_a_void_that_gives_credits_more_than_the_event_took_goes_to_quarantine(book: Book) -> None:
    """Mutant: the book takes any outcome of a void."""
    record = Record(Kind.VOID, 1, 1, ids.event_digest(1, 1, "v"), log.POOL, -5, occurred_at_ms=log.ACCEPTED_MS, voids="1-0")
    for seq, outcome in enumerate(("-6", "1", "-5", "0"), 1):
        await book.append(0, seq, log.entry([(record, outcome)]))
    await book.roll_up()
    reasons = [row["reason"] for row in await book.rows("SELECT reason FROM quarantine ORDER BY seq")]
    assert reasons == ["purchased credits paid -6 of -5", "purchased credits paid 1 of -5"]
    assert await book.number("SELECT count(*) FROM usage_events") == 2


async def test_hourly_totals_of_an_event_and_its_void_are_as_if_neither_had_been(book: Book) -> None:
    """Mutants: a void counts as an event; it counts in the hour it was made instead of the event's."""
    fields: dict[str, Any] = {
        "input_tokens": 7,
        "output_tokens": 8,
        "cache_read_tokens": 2,
        "cache_write_tokens": 1,
        "cost_nano": 9,
        "price_id": 4,
    }
    event = log.usage("e", 30, **fields)
    taken_back = msgspec.structs.replace(
        event,
        kind=Kind.VOID,
        digest=ids.event_digest(1, 1, "void"),
        amount=-30,
        quantity_nano=-event.quantity_nano,
        voids=usage_log.place(1, 0),
        **{name: -value for name, value in fields.items() if name != "price_id"},
    )
    later = log.ACCEPTED_MS + 5 * 3_600_000
    await book.append(0, 1, log.entry([event, log.usage("other", 5, **fields)]))
    await book.append(0, 2, log.entry([taken_back], accepted_at_ms=later))
    await book.roll_up()
    [row] = await book.rows("SELECT * FROM usage_hourly")
    assert (row["events"], row["quantity_nano"], row["amount"], row["cost_nano"]) == (1, 10**9, 5, 9)
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (7, 8, 2, 1)

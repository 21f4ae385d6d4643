"""Invoices against their lines, lines against the pools they bill: each way of being wrong is seen."""

import pytest

from tallybook.core.usage_log import Kind
from tallybook.flows import reconcile
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import book as books
from tests.support import tills
from tests.support.book import Book

_BALANCE, _FEATURE = "1.b.1761955200", "1.f3.1761955200"
_SETUP = """
TRUNCATE organizations CASCADE;
INSERT INTO organizations (id, name) VALUES ('org_1', 'One');
INSERT INTO tenants (organization_id, livemode) VALUES ('org_1', true);
INSERT INTO customers (tenant_id, public_id, email, created_at, updated_at)
SELECT id, 'cus_1', 'a@b.c', now(), now() FROM tenants;
INSERT INTO invoice_counters (organization_id, livemode, next_number) VALUES ('org_1', true, 2);
INSERT INTO invoices (
    tenant_id, public_id, number, customer_id, billed_at, type, status, total_cents, period_start, period_end, issued_at, due_at,
    created_at, updated_at
) SELECT tenant_id, 'inv_1', 1, id, now(), 'overage', 'outstanding', 29, now(), now(), now(), now(), now(), now() FROM customers;
INSERT INTO invoice_lines (
    invoice_id, position, line_type, description, pool, quantity_nano, unit_price_nano, amount_cents, exact_nano, overage_nano
)
SELECT id, 0, 'balance_overage', 'beyond', '1.b.1761955200', 1000000000, 45000000, 4, 45000000, 45000000 FROM invoices
UNION ALL
SELECT id, 1, 'feature_overage', 'beyond', '1.f3.1761955200', 2500000000, 100000000, 25, 250000000, 2500000000 FROM invoices;
INSERT INTO overage_decisions (customer_id, pool, tenant_id, verdict, overage_nano)
SELECT id, '1.f3.1761955200', tenant_id, 'billed', 2500000000 FROM customers;
"""
_BILL_IT_TWICE = """
INSERT INTO invoice_lines (
    invoice_id, position, line_type, description, pool, quantity_nano, unit_price_nano, amount_cents, exact_nano, overage_nano
)
SELECT invoice_id, 2, line_type, description, pool, quantity_nano, unit_price_nano, amount_cents, exact_nano, overage_nano
FROM invoice_lines WHERE position = 0
"""


@pytest.fixture
async def book(database: Pool, redis_client: Redis) -> Book:
    """A customer that overdrew a balance by $0.045 and a feature by 2.5 units, invoiced for both; another is still open."""
    book = await books.empty(database, redis_client)
    await database.execute(_SETUP)
    customer_id = await book.number("SELECT id FROM customers")
    till = await tills.open_till(redis_client)
    charges = [(_BALANCE, 145_000_000, 100_000_000), (_FEATURE, 12_500_000_000, 10_000_000_000), ("2.b.1761955200", 500, 100)]
    for pool, amount, opening in charges:
        record = tills.log_builder.usage(pool, amount, customer_id=customer_id, pool=pool)
        await till.charge([tills.Charge(tills.partition_of(customer_id), record, -amount, opening)])
    for pool in (_BALANCE, _FEATURE):
        await till.charge([tills.change(Kind.EXPIRY, customer_id, pool, 0, pool=pool)])
    await book.roll_up()
    return book


async def wrong(book: Book) -> set[str]:
    report = await reconcile.reconcile(book.database, book.redis, books.PARTITIONS)
    return {one.what for one in report.sums if not one.is_equal}


async def test_invoiced_overage_and_overage_that_is_still_open_make_up_what_is_billable(book: Book) -> None:
    report = await reconcile.reconcile(book.database, book.redis, books.PARTITIONS)
    assert report.is_clean
    found = {one.what: (one.left, one.right) for one in report.sums}
    assert found["balance overage = invoiced + open (nano-USD)"] == (45_000_400, 45_000_400)
    assert found["feature overage of closed periods = invoiced + waived (nano-units)"] == (2_500_000_000, 2_500_000_000)
    assert found["invoice totals = their lines (cents)"] == (29, 29)


_TAMPERED = [
    ("UPDATE invoices SET total_cents = 30", "invoice totals = their lines (cents)"),
    ("UPDATE invoice_lines SET amount_cents = 26 WHERE position = 1", "invoice lines rounded right"),
    ("UPDATE invoice_lines SET exact_nano = 250000001 WHERE position = 1", "invoice lines rounded right"),
    ("UPDATE invoice_lines SET overage_nano = 44999999 WHERE position = 0", "balance overage = invoiced + open (nano-USD)"),
    ("DELETE FROM invoice_lines WHERE position = 0", "balance overage = invoiced + open (nano-USD)"),
    (
        "UPDATE invoice_lines SET overage_nano = 3 WHERE position = 1",
        "feature overage of closed periods = invoiced + waived (nano-units)",
    ),
    ("DELETE FROM invoice_lines WHERE position = 1", "feature overage of closed periods = invoiced + waived (nano-units)"),
    ("DELETE FROM overage_decisions", "feature overage of closed periods = invoiced + waived (nano-units)"),
    ("TRUNCATE invoices CASCADE", "invoice numbers given = invoices"),
    ("UPDATE invoice_counters SET next_number = 3", "invoice numbers given = invoices"),
    (_BILL_IT_TWICE, "balance overage = invoiced + open (nano-USD)"),
]


@pytest.mark.parametrize(("statement", "what"), _TAMPERED)
async def test_an_invoice_that_was_changed_by_hand_is_found_out(book: Book, statement: str, what: str) -> None:
    await book.database.execute(statement)
    assert what in await wrong(book)

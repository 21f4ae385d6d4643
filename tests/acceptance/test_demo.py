"""The demo says yes, and would say no: the whole of it once, and each of its comparisons with something wrong."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from tallybook.cli.demo import books, cast, report, traffic
from tallybook.cli.demo.accounts import Account, ModelPrice, ai_charge
from tallybook.cli.demo.books import Bill, Reconciliation, Sum
from tallybook.cli.demo.cast import ACME, CEDAR, DELTA, FJORD, GROVE, Customer, Signed
from tallybook.cli.demo.http import (
    Balance,
    Batch,
    Client,
    Consumption,
    Credits,
    FeatureUsage,
    Invoice,
    InvoiceLine,
    Item,
    Problem,
    Quote,
    Recorded,
    SubscribedFeature,
    Subscription,
)
from tallybook.cli.demo.play import Player, Tally
from tallybook.cli.demo.traffic import EXAMPLE, SONNET, Event, Fate, Request, Sending

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SONNET_PRICE = ModelPrice(3_000_000, 15_000_000, 300_000, 3_750_000)
PRICES = {SONNET: SONNET_PRICE}
LAST_LINE = re.compile(r"demo ok events=(\d+) duplicates=(\d+) charged_usd=\d+\.\d+ invoiced_usd=\d+\.\d\d reconciled=yes")


# ── the whole demo ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_demo_ends_well_and_leaves_nothing_behind(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tallybook.cli", "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    found = LAST_LINE.fullmatch(lines[-1])
    assert found is not None, lines[-1]
    assert int(found[1]) >= 10_000
    assert int(found[2]) > 100
    assert "  cost $0.04185 + 20 % margin = charged $0.05022" in lines
    assert "DIFFERENT" not in done.stdout
    assert all(line.startswith("tallybook demo: ") for line in done.stderr.splitlines()), done.stderr
    assert list(tmp_path.iterdir()) == []


# ── the demo's own arithmetic ────────────────────────────────────────────────────────────────────────────────────────


def test_the_documentations_example_costs_what_the_documentation_says() -> None:
    assert ai_charge(EXAMPLE, SONNET_PRICE, 20) == (50_220_000, 41_850_000)


def test_a_month_is_made_of_more_than_ten_thousand_events_and_the_same_seed_makes_the_same() -> None:
    month = traffic.of_customers(1, NOW)
    first = [step for steps in month.values() for step in steps if isinstance(step, Request) and step.sending is Sending.FIRST]
    assert len({(event.customer, event.id) for request in first for event in request.events}) > 10_000
    assert month == traffic.of_customers(1, NOW)
    assert month != traffic.of_customers(2, NOW)


def test_the_mixed_batch_has_a_hundred_events_and_one_of_each_fault() -> None:
    month = traffic.of_customers(1, NOW)
    batch = traffic.mixed_batch(traffic.seen_of(month[ACME]), NOW)
    fates = [event.fate for event in batch.events]
    assert len(fates) == 100
    assert [fates.count(fate) for fate in Fate] == [96, 1, 1, 1, 1]


def test_a_blocking_pool_refuses_what_it_does_not_cover_and_others_go_below_zero() -> None:
    scan = Event("e", "x", cast.SCANS, NOW, quantity_nano=2_000 * 10**9)
    blocking, open_ended = Account(FJORD, PRICES), Account(DELTA, PRICES)
    assert not blocking.count(scan).is_taken
    assert blocking.left == 5 * 10**9
    for _ in range(4):
        assert open_ended.count(scan).is_taken
    assert open_ended.left == -2 * 10**9


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Answering(Client):
    """Answers every batch with the same results."""

    def __init__(self, items: Sequence[Item]) -> None:
        super().__init__("nowhere.invalid", 1, "")
        self.items = list(items)

    def post(self, path: str, body: object, shape: type, key: str) -> Batch:  # type: ignore[override]
        """What a test decided."""
        assert (path, shape) == ("/usage/events/batch", Batch), (body, key)
        return Batch(self.items)


def scan_of(customer: Customer, number: int = 1) -> Event:
    """Ten pages scanned: four cents."""
    return Event(f"e{number}", customer.code, cast.SCANS, NOW, quantity_nano=10 * 10**9)


def taken(deducted: str, remaining: str, number: int = 1) -> Item:
    """An accepted event."""
    consumption = Consumption("balance", Decimal(deducted), Decimal(remaining))
    return Item("accepted", Recorded(f"evt_{number}", f"e{number}", consumption))


def refused(status: str, code: str) -> Item:
    """An event that was not taken."""
    return Item(status, error=Problem(code, "because"))


def played(customer: Customer, items: Sequence[Item], *requests: Request) -> Tally:
    """What a player finds when all requests get these results."""
    player = Player(Answering(items), {customer.code: Account(customer, PRICES)}, {})
    return player.play(requests, {})


def test_an_answer_that_says_what_it_must_is_no_difference() -> None:
    assert played(DELTA, [taken("400", "299600")], Request("k", (scan_of(DELTA),))).differences == []


@pytest.mark.parametrize(
    ("customer", "items"),
    [
        (DELTA, [taken("400.00001", "299600")]),
        (DELTA, [taken("400", "299599.99999")]),
        (DELTA, [refused("rejected", "insufficient_balance")]),
        (DELTA, [Item("accepted", Recorded("evt_1", "e1"))]),
        (DELTA, [refused("duplicate", "")]),
        (DELTA, [taken("400", "299600"), taken("400", "299200")]),
        (DELTA, []),
    ],
    ids=["deducted", "remaining", "refused", "nothing said", "duplicate", "one too many", "one too few"],
)
def test_a_wrong_answer_is_a_difference(customer: Customer, items: Sequence[Item]) -> None:
    assert len(played(customer, items, Request("k", (scan_of(customer),))).differences) == 1


def test_what_is_taken_though_nothing_is_left_is_a_difference() -> None:
    call = replace(scan_of(GROVE), feature=cast.API_CALLS, quantity_nano=101 * 10**9)
    accepted = Item("accepted", Recorded("evt_1", "e1"))
    assert "must be refused" in played(GROVE, [accepted], Request("k", (call,))).differences[0]


def test_a_retry_with_another_answer_is_a_difference() -> None:
    request = Request("k", (scan_of(DELTA),))
    answering = Answering([taken("400", "299600")])
    player = Player(answering, {DELTA.code: Account(DELTA, PRICES)}, {})
    player.send(request)
    player.send(replace(request, sending=Sending.RETRY))
    assert player.tally.differences == []
    answering.items = [taken("400", "299200")]
    player.send(replace(request, sending=Sending.RETRY))
    assert len(player.tally.differences) == 1


def test_a_repeat_must_be_a_duplicate_that_shows_the_original() -> None:
    request = Request("k", (scan_of(DELTA),))
    first = taken("400", "299600")
    answering = Answering([first])
    player = Player(answering, {DELTA.code: Account(DELTA, PRICES)}, {})
    player.send(request)
    repeat = Request("again", request.events, Sending.REPEAT)
    answering.items = [Item("duplicate", first.event)]
    player.send(repeat)
    assert (player.tally.differences, player.tally.duplicates) == ([], 1)
    for wrong in (Item("duplicate", taken("400", "299200").event), first):
        answering.items = [wrong]
        player.send(repeat)
    assert len(player.tally.differences) == 2


@pytest.mark.parametrize("item", [taken("0", "0"), refused("invalid", "model_unpriced"), refused("rejected", "model_not_found")])
def test_a_mistake_must_get_its_own_error(item: Item) -> None:
    event = replace(scan_of(DELTA), fate=Fate.INVALID, code="model_not_found")
    assert played(DELTA, [refused("invalid", "model_not_found")], Request("k", (event,))).differences == []
    assert len(played(DELTA, [item], Request("k", (event,))).differences) == 1


# ── pools, invoices, the book ────────────────────────────────────────────────────────────────────────────────────────


def shown(**pools: object) -> Subscription:
    """A subscription as the API shows it."""
    return msgspec.structs.replace(Subscription("sub_1", "active", []), **pools)


def test_a_pool_that_is_not_what_the_account_says_is_a_difference() -> None:
    balance, credits_, metered = Account(DELTA, PRICES), Account(CEDAR, PRICES), Account(ACME, PRICES)
    credits_.bought = 5 * 10**9
    metered.used[cast.API_CALLS] = 3 * 10**9
    right = [
        (balance, shown(balance=Balance(Decimal(300_000), Decimal(300_000)))),
        (credits_, shown(credits=Credits(Decimal(1000), Decimal(1000), Decimal(5)))),
        (metered, shown(features=[SubscribedFeature(cast.API_CALLS, FeatureUsage(Decimal(3), Decimal(2000)))])),
    ]
    wrong = [
        (balance, shown(balance=Balance(Decimal("299999.99999"), Decimal(300_000)))),
        (credits_, shown(credits=Credits(Decimal(1000), Decimal(1000), Decimal(4)))),
        (metered, shown(features=[SubscribedFeature(cast.API_CALLS, FeatureUsage(Decimal(4), Decimal(2000)))])),
    ]
    assert [books.pool_differences(subscription, account) for account, subscription in right] == [[], [], []]
    assert [len(books.pool_differences(subscription, account)) for account, subscription in wrong] == [1, 1, 1]


def test_a_new_month_begins_with_its_grant_and_the_credits_that_were_bought_and_left() -> None:
    account = Account(CEDAR, PRICES, bought=500 * 10**9, charged=1_100 * 10**9)
    fresh = shown(credits=Credits(Decimal(1000), Decimal(1000), Decimal(400)))
    assert books.renewed_differences(fresh, account) == []
    assert books.renewed_differences(shown(credits=Credits(Decimal(400), Decimal(0), Decimal(400))), account) != []


def test_overage_is_billed_in_cents_rounded_half_to_even() -> None:
    account = Account(ACME, PRICES)
    account.used[cast.API_CALLS] = 2_001 * 10**9
    account.used[cast.STORAGE] = 101 * 10**9 + 10**9 // 2
    overdrawn = Account(DELTA, PRICES, charged=30 * 10**9 + 12_345_678)
    assert books.bills([account, overdrawn]) == [
        Bill("acme", (("plan_base", 4900),)),
        Bill("delta", (("plan_base", 3000),)),
        Bill("acme", (("plan_base", 4900), ("feature_overage", 0), ("feature_overage", 4))),
        Bill("delta", (("plan_base", 3000), ("balance_overage", 1))),
    ]


def invoice(number: int, *lines: tuple[str, int], total: int | None = None) -> Invoice:
    """An invoice of the customer cus_1."""
    items = [InvoiceLine(line_type, "what for", amount) for line_type, amount in lines]
    amount = sum(amount for _, amount in lines) if total is None else total
    return Invoice(f"inv_{number}", f"INV-{number:06d}", "cus_1", "", "", "", amount, items)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([invoice(1, ("plan_base", 100))], "missing"),
        ([invoice(1, ("plan_base", 100)), invoice(2, ("plan_base", 100), ("balance_overage", 6))], "must not exist"),
        ([invoice(1, ("plan_base", 100)), invoice(3, ("plan_base", 100), ("balance_overage", 5))], "gaps"),
        ([invoice(1, ("plan_base", 100)), invoice(2, ("plan_base", 100), ("balance_overage", 5), total=106)], "sum up to 105"),
    ],
    ids=["missing", "wrong amount", "number", "total"],
)
def test_a_wrong_invoice_is_a_difference(found: Sequence[Invoice], problem: str) -> None:
    signed = [Signed(DELTA, "cus_1", "sub_1")]
    expected = [Bill("delta", (("plan_base", 100),)), Bill("delta", (("plan_base", 100), ("balance_overage", 5)))]
    good = [invoice(1, ("plan_base", 100)), invoice(2, ("plan_base", 100), ("balance_overage", 5))]
    assert books.invoice_differences(good, expected, signed) == []
    assert any(problem in difference for difference in books.invoice_differences(found, expected, signed))


def book(account: Account) -> list[Sum]:
    """The sums of a book that holds what the account says: one AI request and nothing else."""
    totals = account.models[SONNET]
    sums = {
        "events": 1,
        "amount": totals.charge,
        "cost": totals.cost,
        "input tokens": 10_000,
        "output tokens": 2_000,
        "cache read tokens": 7_000,
        "cache write tokens": 1_000,
    }
    return [Sum(f"usage events = hourly totals: {what}", str(value), str(value), ok=True) for what, value in sums.items()]


def spoil_a_sum(found: Reconciliation) -> None:
    """One sum that `reconcile` itself says differs."""
    found.sums[0].ok = False


def lose_an_event(found: Reconciliation) -> None:
    """Both ways agree, on too few events."""
    found.sums[0].left = found.sums[0].right = "0"


def leave_a_sum_out(found: Reconciliation) -> None:
    """A sum that nobody made proves nothing."""
    del found.sums[1]


def deny(found: Reconciliation) -> None:
    """A pool differs while all sums agree."""
    found.reconciled = False


@pytest.mark.parametrize("spoil", [spoil_a_sum, lose_an_event, leave_a_sum_out, deny])
def test_a_book_that_is_not_the_accounts_is_a_difference(spoil: Callable[[Reconciliation], None]) -> None:
    account = Account(DELTA, PRICES)
    account.count(Event("e1", DELTA.code, cast.CHAT, NOW, tokens=EXAMPLE))
    found = Reconciliation(reconciled=True, sums=book(account))
    assert books.reconciliation_differences(found, [account]) == []
    spoil(found)
    assert len(books.reconciliation_differences(found, [account])) == 1


def test_a_quote_that_is_not_what_prices_say_is_a_difference() -> None:
    assert books.quote_differences(Quote("0.04185", "0.05022"), SONNET_PRICE) == []
    assert books.quote_differences(Quote("0.04185", "0.05023"), SONNET_PRICE) != []


def test_totals_by_model_are_those_of_all_customers() -> None:
    accounts = [Account(DELTA, PRICES), Account(DELTA, PRICES)]
    for account in accounts:
        account.count(Event("e1", DELTA.code, cast.CHAT, NOW, tokens=EXAMPLE))
    totals = report.model_totals(accounts)[SONNET]
    assert (totals.events, totals.uncached, totals.cost, totals.charge) == (2, 4_000, 83_700_000, 100_440_000)

"""What the API says when the month is over, against the demo's own accounts: pools, invoices, the reconciliation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from tallybook.cli.demo.accounts import Account, ModelPrice, ai_charge
from tallybook.cli.demo.cast import MARGIN, Signed
from tallybook.cli.demo.http import Client, DemoError, Invoice, Invoices, Quote, Subscription
from tallybook.cli.demo.traffic import EXAMPLE
from tallybook.core import money

_BOOKED = "usage events = hourly totals: "
"""How `tallybook reconcile` begins its sums of events."""


@dataclass(frozen=True, slots=True)
class Bill:
    """An invoice that must exist: its lines by type, in cents, in order."""

    customer: str
    lines: tuple[tuple[str, int], ...]


class Sum(msgspec.Struct):
    """One thing that `tallybook reconcile` summed in two ways."""

    what: str
    left: str
    right: str
    ok: bool


class Reconciliation(msgspec.Struct):
    """What `tallybook reconcile --json` says."""

    reconciled: bool
    sums: list[Sum]


def subscription(client: Client, subscription_id: str) -> Subscription:
    """A subscription with its pools as they are now."""
    return client.get(f"/subscriptions/{subscription_id}", Subscription)


def pool_differences(shown: Subscription, account: Account) -> list[str]:
    """What the API says is left at the end of the month, if it is not what the account says."""
    return _differences(shown, account.customer.code, account.left, account.used)


def renewed_differences(shown: Subscription, account: Account) -> list[str]:
    """What a fresh month must begin with: its grant, purchased credits that were left, and nothing used."""
    holds_credits = account.customer.plan.model == "credits"
    kept = min(account.bought, max(account.left, 0)) if holds_credits else 0
    return _differences(shown, f"{account.customer.code} in its new month", account.granted + kept, {})


def _differences(shown: Subscription, who: str, left: int, used: Mapping[str, int]) -> list[str]:
    pairs: list[tuple[str, Decimal, int]] = []
    if shown.credits is not None:
        pairs.append(("credits", (shown.credits.remaining + shown.credits.purchased) * money.NANO, left))
    elif shown.balance is not None:
        pairs.append(("balance", shown.balance.remaining * money.NANO_PER_RATE, left))
    else:
        counted = [(feature.code, feature.usage) for feature in shown.features]
        pairs += [(code, usage.current * money.NANO, used.get(code, 0)) for code, usage in counted if usage is not None]
    return [f"{who}: {what} is {found} (1e-9), and must be {expected}" for what, found, expected in pairs if found != expected]


def bills(accounts: Iterable[Account]) -> list[Bill]:
    """Each invoice there must be: base prices as the month began; as it ended, the next ones and what was used past the pools."""
    paying = [account for account in accounts if not account.customer.plan.is_free]
    first = [Bill(account.customer.code, (("plan_base", account.customer.plan.price_cents),)) for account in paying]
    renewals = [
        Bill(account.customer.code, (("plan_base", account.customer.plan.price_cents), *_overage(account))) for account in paying
    ]
    return first + renewals


def _overage(account: Account) -> list[tuple[str, int]]:
    plan = account.customer.plan
    if plan.model == "metered":
        exact = [overage_exact(account, offer.code) for offer in plan.offers]
        return [("feature_overage", money.cents(nano)) for nano in exact if nano]
    if plan.model == "balance" and not plan.blocks and account.left < 0:
        return [("balance_overage", money.cents(-account.left))]
    return []


def overage_exact(account: Account, feature: str) -> int:
    """What a metered feature costs beyond what is included, nano-USD."""
    return account.overage_nano(feature) * account.customer.plan.offer(feature).unit_price * money.NANO_PER_RATE // money.NANO


def invoices(client: Client) -> list[Invoice]:
    """All invoices with their lines, by number."""
    page = client.get("/invoices", Invoices, limit="100")
    if page.has_more:
        raise DemoError("there are more than a hundred invoices")
    found = [client.get(f"/invoices/{each.id}", Invoice) for each in page.data]
    return sorted(found, key=lambda invoice: invoice.invoice_number)


def invoice_differences(found: Sequence[Invoice], expected: Sequence[Bill], signed: Iterable[Signed]) -> list[str]:
    """Invoices that are missing, too many or different; numbers with gaps; totals that are not the sum of their lines."""
    codes = {each.id: each.customer.code for each in signed}
    given = [
        Bill(codes[invoice.customer_id], tuple(sorted((line.line_type, line.amount) for line in invoice.line_items)))
        for invoice in found
    ]
    wanted = [Bill(bill.customer, tuple(sorted(bill.lines))) for bill in expected]
    problems = [f"this invoice is missing: {bill}" for bill in wanted if given.count(bill) < wanted.count(bill)]
    problems += [f"this invoice must not exist: {bill}" for bill in given if given.count(bill) > wanted.count(bill)]
    numbers = [invoice.invoice_number for invoice in found]
    if numbers != [f"INV-{number:06d}" for number in range(1, len(found) + 1)]:
        problems.append(f"invoice numbers have gaps: {numbers}")
    for invoice in found:
        total = sum(line.amount for line in invoice.line_items)
        if total != invoice.total:
            problems.append(f"{invoice.invoice_number} has a total of {invoice.total}, and its lines sum up to {total}")
    return problems


def quote_differences(quote: Quote, price: ModelPrice) -> list[str]:
    """Whether the API quotes the documentation's example as its published prices say."""
    charge, cost = ai_charge(EXAMPLE, price, MARGIN)
    found = Decimal(quote.charge_usd) * money.NANO, Decimal(quote.cost_usd) * money.NANO
    return [] if found == (charge, cost) else [f"the example is quoted at {found}, and must be {(charge, cost)} (1e-9 USD)"]


def reconciliation_differences(found: Reconciliation, accounts: Iterable[Account]) -> list[str]:
    """Sums that differ from each other, and sums of the book that are not those of the accounts."""
    problems = [f"{one.what}: {one.left} and {one.right}" for one in found.sums if not one.ok]
    if not found.reconciled and not problems:
        problems.append("`tallybook reconcile` found a pool that differs")
    booked = {one.what.removeprefix(_BOOKED): one.left for one in found.sums if one.what.startswith(_BOOKED)}
    for what, expected in _booked(list(accounts)).items():
        if booked.get(what) != str(expected):
            problems.append(f"the book's sum of {what} is {booked.get(what)}, and must be {expected}")
    return problems


def _booked(accounts: Sequence[Account]) -> dict[str, int]:
    """What the book must hold in all. `amount` is in 1e-9 of what each pool is in: money, credits or units."""
    models = [totals for account in accounts for totals in account.models.values()]
    return {
        "events": sum(account.events for account in accounts),
        "amount": sum(account.taken for account in accounts),
        "cost": sum(totals.cost for totals in models),
        "input tokens": sum(totals.uncached + totals.cache_read + totals.cache_write for totals in models),
        "output tokens": sum(totals.output for totals in models),
        "cache read tokens": sum(totals.cache_read for totals in models),
        "cache write tokens": sum(totals.cache_write for totals in models),
    }

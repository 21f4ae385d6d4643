"""The demo's report: what happened, what it cost, who owes what, and that the books agree. Every number was checked before."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tallybook.cli.demo import books, cast
from tallybook.cli.demo.accounts import Account, ModelTotals
from tallybook.cli.demo.books import Reconciliation, Sum
from tallybook.cli.demo.cast import Customer
from tallybook.cli.demo.http import Invoice, Quote
from tallybook.cli.demo.play import Tally
from tallybook.cli.demo.traffic import EXAMPLE
from tallybook.core import money

Row = Sequence[str]
_FEATURES = {feature.code: feature for feature in cast.FEATURES}


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the report tells."""

    month_starts: datetime
    month_ends: datetime
    tally: Tally
    mixed: Tally
    example: Quote
    accounts: Mapping[str, Account]
    invoices: Sequence[Invoice]
    customers: Mapping[str, Customer]
    """By the id that the API gave."""
    before_billing: Reconciliation
    """While the pools of the month were still open."""
    after_billing: Reconciliation


def report(story: Story) -> str:
    """All sections."""
    sections = (_opening, _events, _example, _models, _features, _pools, _invoices, _bridge, _reconciled)
    return "\n\n".join("\n".join(section(story)) for section in sections)


def last_line(story: Story) -> str:
    """The verdict of a demo in which everything agrees."""
    return (
        f"demo ok events={story.tally.accepted} duplicates={story.tally.duplicates} charged_usd={_plain(charged(story))} "
        f"invoiced_usd={_cents(invoiced(story))} reconciled=yes"
    )


def charged(story: Story) -> int:
    """What usage cost, nano-USD: everything taken from balances, and metered units beyond what is included."""
    return sum(_from_balance(account) + _metered_overage(account) for account in story.accounts.values())


def invoiced(story: Story) -> int:
    """The total of all invoices, cents."""
    return sum(invoice.total for invoice in story.invoices)


def _opening(story: Story) -> Iterator[str]:
    month = _days(story.month_starts, story.month_ends)
    yield "TALLYBOOK DEMO"
    yield f"  {len(story.accounts)} customers on {len(cast.PLANS)} plans, usage of {month} by the test clock, UTC,"
    yield "  over HTTP, on a server with its own Postgres and Redis. Amounts are in USD, exact to a billionth, invoices in cents."


def _events(story: Story) -> Iterator[str]:
    tally = story.tally
    rows: list[Row] = [
        ("sent", _count(tally.sent), f"in {_count(tally.requests)} requests"),
        ("accepted", _count(tally.accepted), "each on disk, counted once and deducted before its answer"),
        ("retried", _count(tally.replayed), "same Idempotency-Key: the same answers again, nothing charged"),
        (
            "duplicates refused",
            _count(tally.duplicates),
            "same event id in another request: the original answer, nothing charged",
        ),
        ("conflicts refused", _count(tally.conflicts), "same event id with other contents"),
        ("refused", _count(tally.refused.total()), "not recorded; may be sent again when there is something to pay with"),
        *((f"  {code}", _count(count), "") for code, count in sorted(tally.refused.items())),
        ("invalid", _count(tally.invalid.total()), "not recorded"),
        *((f"  {code}", _count(count), "") for code, count in sorted(tally.invalid.items())),
    ]
    yield "EVENTS"
    yield from _table(rows, "<><")
    mixed = story.mixed
    invalid, refused = mixed.invalid.total(), mixed.refused.total()
    yield ""
    size = mixed.sent - mixed.replayed
    yield f"  One batch of {size} had one of each: {mixed.accepted} accepted, {mixed.duplicates} duplicate,"
    yield f"  {mixed.conflicts} conflict, {invalid} invalid, {refused} refused. Sent again, it changed nothing."


def _example(story: Story) -> Iterator[str]:
    yield "THE DOCUMENTATION'S EXAMPLE"
    yield (
        f"  {EXAMPLE.model}: {_count(EXAMPLE.input)} tokens in ({_count(EXAMPLE.cache_read)} from cache, "
        f"{_count(EXAMPLE.cache_write)} to cache), {_count(EXAMPLE.output)} out"
    )
    yield f"  cost ${story.example.cost_usd} + {cast.MARGIN} % margin = charged ${story.example.charge_usd}"


def _models(story: Story) -> Iterator[str]:
    header = ("model", "requests", "uncached in", "cache read", "cache write", "out", "cost", "margin", "charge")
    by_model = model_totals(story.accounts.values())
    rows = [_model_row(model, totals) for model, totals in sorted(by_model.items(), key=lambda item: -item[1].charge)]
    yield f"CHARGED BY AI MODEL (margin {cast.MARGIN} %)"
    yield from _table([header, *rows], "<>>>>>>>>", _model_row("total", _sum(by_model.values())))


def _model_row(name: str, totals: ModelTotals) -> Row:
    tokens = (totals.events, totals.uncached, totals.cache_read, totals.cache_write, totals.output)
    amounts = (totals.cost, totals.charge - totals.cost, totals.charge)
    return (name, *map(_count, tokens), *map(_exact, amounts))


def model_totals(accounts: Iterable[Account]) -> dict[str, ModelTotals]:
    """What was charged for each AI model, over all customers."""
    names = {model for account in accounts for model in account.models}
    return {name: _sum(account.models[name] for account in accounts if name in account.models) for name in names}


def _sum(parts: Iterable[ModelTotals]) -> ModelTotals:
    total = ModelTotals()
    for part in parts:
        total.events += part.events
        total.uncached += part.uncached
        total.cache_read += part.cache_read
        total.cache_write += part.cache_write
        total.output += part.output
        total.cost += part.cost
        total.charge += part.charge
    return total


def _features(story: Story) -> Iterator[str]:
    header = ("feature", "plan", "used", "included", "beyond", "price of one", "charge")
    yield "OTHER USAGE"
    yield from _table([header, *_feature_rows(story)], "<<>>>>>")


def _feature_rows(story: Story) -> Iterator[Row]:
    for plan in cast.PLANS:
        accounts = [account for account in story.accounts.values() if account.customer.plan is plan]
        for offer in plan.offers:
            if offer.margin is not None:
                continue
            used = _count(sum(account.used[offer.code] for account in accounts) / money.NANO)
            name = _FEATURES[offer.code].name
            spent = sum(account.spent[offer.code] for account in accounts)
            if plan.model == "credits":
                yield name, plan.name, used, "", "", f"{offer.credits} credits", f"{_count(spent / money.NANO)} credits"
            elif plan.model == "balance":
                yield name, plan.name, used, "", "", _price(offer.unit_price), _exact(spent)
            elif plan.is_free:
                yield name, f"{plan.name} (free)", used, f"{offer.included:,}", "", "", ""
            else:
                beyond = sum(account.overage_nano(offer.code) for account in accounts)
                charge = sum(books.overage_exact(account, offer.code) for account in accounts)
                included = f"{len(accounts)} x {offer.included:,}"
                yield name, plan.name, used, included, _count(beyond / money.NANO), _price(offer.unit_price), _exact(charge)


def _pools(story: Story) -> Iterator[str]:
    header = ("customer", "plan", "pool", "granted", "bought", "used", "left")
    yield "POOLS AT THE END OF THE MONTH"
    yield from _table([header, *(row for account in story.accounts.values() for row in _pool_rows(account))], "<<<>>>>")
    yield "  What is below zero is billed. What is left of a grant ends with the month; purchased credits stay."


def _pool_rows(account: Account) -> Iterator[Row]:
    customer, plan = account.customer, account.customer.plan
    if plan.model == "metered":
        for offer in plan.offers:
            left = offer.included * money.NANO - account.used[offer.code]
            used = _count(account.used[offer.code] / money.NANO)
            yield customer.name, plan.name, _FEATURES[offer.code].name, f"{offer.included:,}", "", used, _count(left / money.NANO)
        return
    amount = _exact if plan.model == "balance" else _whole
    bought = amount(account.bought) if account.bought else ""
    yield customer.name, plan.name, plan.model, amount(account.granted), bought, amount(account.charged), amount(account.left)


def _invoices(story: Story) -> Iterator[str]:
    yield "INVOICES"
    rows: list[Row] = [("number", "customer", "for", "line", "amount")]
    for invoice in story.invoices:
        name = story.customers[invoice.customer_id].name
        period = _days(datetime.fromisoformat(invoice.period_start), datetime.fromisoformat(invoice.period_end))
        for place, line in enumerate(invoice.line_items):
            head = (invoice.invoice_number, name, period) if place == 0 else ("", "", "")
            rows.append((*head, line.description, _cents(line.amount)))
        if len(invoice.line_items) > 1:
            rows.append(("", "", "", "total", _cents(invoice.total)))
    yield from _table(rows, "<<<<>", ("total", "", "", "", _cents(invoiced(story))))


def _bridge(story: Story) -> Iterator[str]:
    accounts = story.accounts.values()
    balances = sum(map(_from_balance, accounts))
    overdrawn = sum(max(0, -account.left) for account in accounts if account.customer.plan.model == "balance")
    beyond = sum(map(_metered_overage, accounts))
    lines = [line for invoice in story.invoices for line in invoice.line_items]
    base = sum(line.amount for line in lines if line.line_type == "plan_base")
    overage = sum(line.amount for line in lines if line.line_type != "plan_base")
    rounding = overage * money.NANO_PER_CENT - overdrawn - beyond
    rows: list[Row] = [
        ("AI requests and page scans, taken from balances", _exact(balances)),
        ("metered usage beyond what plans include", _exact(beyond)),
        ("charged for usage", _exact(balances + beyond)),
        ("paid by the balances that plans include", _exact(overdrawn - balances)),
        ("rounding to cents, once a line", _exact(rounding)),
        ("usage on invoices", _exact(overage * money.NANO_PER_CENT)),
        ("base prices: the month used and the one that begins", _exact(base * money.NANO_PER_CENT)),
    ]
    yield "FROM USAGE TO INVOICES"
    yield from _table(rows, "<>", ("invoiced", _exact((base + overage) * money.NANO_PER_CENT)))


def _reconciled(story: Story) -> Iterator[str]:
    before = story.before_billing.sums
    yield "RECONCILED: EVERYTHING SUMMED IN TWO WAYS (amounts in billionths of a dollar, credit or unit)"
    yield f"  before the month was billed: {sum(one.ok for one in before)} of {len(before)} sums agree, among them"
    yield from _table([_sum_row(one) for one in before if one.what.startswith("till = ")], "<>><")
    yield f"  after it was billed: {sum(one.ok for one in story.after_billing.sums)} of {len(story.after_billing.sums)} agree"
    yield from _table([_sum_row(one) for one in story.after_billing.sums], "<>><")


def _sum_row(one: Sum) -> Row:
    return one.what, f"{int(one.left):,}", f"{int(one.right):,}", "ok" if one.ok else "DIFFERENT"


def _from_balance(account: Account) -> int:
    return account.charged if account.customer.plan.model == "balance" else 0


def _metered_overage(account: Account) -> int:
    plan = account.customer.plan
    if plan.model != "metered" or plan.is_free:
        return 0
    return sum(books.overage_exact(account, offer.code) for offer in plan.offers)


def _table(rows: Sequence[Row], alignment: str, total: Row | None = None) -> Iterator[str]:
    every = rows if total is None else [*rows, total]
    widths = [max(len(row[column]) for row in every) for column in range(len(alignment))]
    yield from (_line(row, alignment, widths) for row in rows)
    if total is not None:
        yield "  " + "-" * (sum(widths) + 2 * (len(widths) - 1))
        yield _line(total, alignment, widths)


def _line(row: Row, alignment: str, widths: Sequence[int]) -> str:
    cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, alignment, widths, strict=True))
    return ("  " + "  ".join(cells)).rstrip()


def _count(number: float) -> str:
    """A quantity with as many decimals as it has."""
    return f"{number:,.9f}".rstrip("0").rstrip(".")


def _whole(nano: int) -> str:
    return _count(nano / money.NANO)


def _exact(nano: int) -> str:
    """Nano-USD with all nine decimals, so that columns add up to the eye."""
    sign, magnitude = ("-" if nano < 0 else ""), abs(nano)
    return f"{sign}{magnitude // money.NANO:,}.{magnitude % money.NANO:09d}"


def _plain(nano: int) -> str:
    return money.usd(nano).replace("$", "").replace(",", "")


def _cents(cents: int) -> str:
    sign, magnitude = ("-" if cents < 0 else ""), abs(cents)
    return f"{sign}{magnitude // 100}.{magnitude % 100:02d}"


def _price(rate: int) -> str:
    return money.usd(rate * money.NANO_PER_RATE)


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y}"


def _days(first: datetime, after_last: datetime) -> str:
    return f"{_day(first)} to {_day(after_last)}"

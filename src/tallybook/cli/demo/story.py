"""The demo's month, in order: open it, use it, close it, and look at what everybody says about it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from tallybook import settings
from tallybook.cli.demo import books, cast, traffic
from tallybook.cli.demo.accounts import Account, ModelPrice
from tallybook.cli.demo.books import Reconciliation
from tallybook.cli.demo.cast import Signed
from tallybook.cli.demo.http import AiModel, Client, ClockRun, DemoError, Quote, TestClock
from tallybook.cli.demo.play import Originals, Player, Tally
from tallybook.cli.demo.report import Story
from tallybook.cli.demo.traffic import EXAMPLE, Step
from tallybook.cli.dev import Running
from tallybook.settings import Settings

_CLOCK_S_MAX = 60.0
_RECONCILE_S_MAX = 120.0
_POLL_S = 0.05
_SENDERS = 4
_LATE_IN_THE_MONTH = timedelta(days=27, hours=12)
_PAST_THE_END = timedelta(hours=6)
_PICO_PER_USD_PER_MILLION = 10**6

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in which everybody's billing period lies, and who takes part in it."""

    starts: datetime
    late: datetime
    ends: datetime
    signed: Sequence[Signed]
    accounts: Mapping[str, Account]


def play(running: Running, seed: int, say: Say) -> tuple[Story, list[str]]:
    """The whole month. Returns what there is to tell, and every number that is not what it must be.

    Raises DemoError, RefusedError.
    """
    with contextlib.closing(client_of(running)) as client:
        month = _open(client)
        began = time.monotonic()
        tally, mixed = _use(running, month, seed)
        say(f"sent {tally.sent:,} events in {time.monotonic() - began:.1f} s; reconciling")
        problems = tally.differences + _pool_differences(client, month, books.pool_differences)
        before = _reconcile(running.settings)
        say("turning the clock past the end of the month, and reconciling again")
        _turn_clock(client, month.ends + _PAST_THE_END)
        after = _reconcile(running.settings)
        problems += _pool_differences(client, month, books.renewed_differences)
        invoices = books.invoices(client)
        problems += books.invoice_differences(invoices, books.bills(month.accounts.values()), month.signed)
        for found in (before, after):
            problems += books.reconciliation_differences(found, month.accounts.values())
        quote = _quote(client)
        problems += books.quote_differences(quote, month.accounts[cast.EMBER.code].prices[EXAMPLE.model])
        story = Story(
            month_starts=month.starts,
            month_ends=month.ends,
            tally=tally,
            mixed=mixed,
            example=quote,
            accounts=month.accounts,
            invoices=invoices,
            customers={each.id: each.customer for each in month.signed},
            before_billing=before,
            after_billing=after,
        )
        return story, problems


def client_of(running: Running) -> Client:
    """A connection of its own."""
    return Client(running.port.host, running.port.port, running.key.apiKey)


def _open(client: Client) -> Month:
    """Everybody subscribes as the next calendar month begins; the clock then stands late in it, and usage has come all along."""
    starts = _next_month(datetime.fromisoformat(client.get("/test-clock", TestClock).now))
    _turn_clock(client, starts)
    cast.make_catalog(client)
    signed = [cast.sign_up(client, customer) for customer in cast.CUSTOMERS]
    _turn_clock(client, starts + _LATE_IN_THE_MONTH)
    prices = {model: _price(client, model) for model in traffic.MODELS}
    accounts = {each.customer.code: Account(each.customer, prices) for each in signed}
    return Month(starts, starts + _LATE_IN_THE_MONTH, _next_month(starts), signed, accounts)


def _use(running: Running, month: Month, seed: int) -> tuple[Tally, Tally]:
    """All usage: customers at the same time, then what is special. Returns everything counted, and the mixed batch by itself."""
    steps = traffic.of_customers(seed, month.starts)
    subscriptions = {each.customer.code: each.subscription_id for each in month.signed}
    originals: Originals = {}

    def send(part: Sequence[Step]) -> Tally:
        with contextlib.closing(client_of(running)) as client:
            return Player(client, month.accounts, originals).play(part, subscriptions)

    tally = Tally()
    with ThreadPoolExecutor(_SENDERS) as senders:
        for part in senders.map(send, steps.values()):
            tally.add(part)
    batch = traffic.mixed_batch(traffic.seen_of(steps[cast.ACME]), month.late)
    mixed = send([batch, traffic.once_more(batch)])
    for part in (mixed, send(traffic.example(month.late)), send(traffic.mistakes(month.late))):
        tally.add(part)
    return tally, mixed


def _pool_differences(client: Client, month: Month, differences: Callable[[books.Subscription, Account], list[str]]) -> list[str]:
    problems: list[str] = []
    for each in month.signed:
        shown = books.subscription(client, each.subscription_id)
        problems += differences(shown, month.accounts[each.customer.code])
    return problems


def _next_month(moment: datetime) -> datetime:
    years, month = divmod(moment.month, 12)
    return datetime(moment.year + years, month + 1, 1, tzinfo=UTC)


def _turn_clock(client: Client, to: datetime) -> None:
    """Turn the test clock and wait until everything due on the way is done. Raises DemoError when it isn't."""
    frozen_time = to.isoformat().replace("+00:00", "Z")
    run = client.post("/test-clock", {"frozenTime": frozen_time}, ClockRun, f"clock-{frozen_time}")
    give_up_at = time.monotonic() + _CLOCK_S_MAX
    while run.status not in ("completed", "failed"):
        if time.monotonic() > give_up_at:
            raise DemoError(f"the test clock did not reach {frozen_time} in {_CLOCK_S_MAX:g} s: {run}")
        time.sleep(_POLL_S)
        run = client.get("/test-clock", TestClock).latest_run or run
    if run.status == "failed" or run.failed_deadline_count:
        raise DemoError(f"the test clock stopped on its way to {frozen_time}: {run.error}")


def _price(client: Client, model: str) -> ModelPrice:
    """The published price; a cache price that is not listed is the input price."""
    band = client.get(f"/ai-models/{model}", AiModel).price.standard[0]
    listed = (band.input, band.output, band.cache_read or band.input, band.cache_write or band.input)
    return ModelPrice(*(int(Decimal(usd) * _PICO_PER_USD_PER_MILLION) for usd in listed))


def _quote(client: Client) -> Quote:
    """What the API says that the documentation's example costs."""
    body = {
        "model": EXAMPLE.model,
        "inputTokens": EXAMPLE.input,
        "outputTokens": EXAMPLE.output,
        "cacheReadTokens": EXAMPLE.cache_read,
        "cacheWriteTokens": EXAMPLE.cache_write,
        "margin": cast.MARGIN,
    }
    return client.post("/ai-models/quote", body, Quote, "quote")


def _reconcile(given: Settings) -> Reconciliation:
    """`tallybook reconcile`, as an operator runs it. Raises DemoError when it says nothing that can be read."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tallybook.cli", "reconcile", "--json"],
        env={**os.environ, **settings.to_environment(given)},
        stdout=subprocess.PIPE,
        timeout=_RECONCILE_S_MAX,
        check=False,
    )
    try:
        return msgspec.json.decode(done.stdout, type=Reconciliation)
    except msgspec.MsgspecError as error:
        raise DemoError(f"`tallybook reconcile` ended with {done.returncode} and said {done.stdout[:200]!r}") from error

"""`tallybook demo`: a month of business on embedded stores, over HTTP, billed and reconciled; then it is gone.

The report and its verdict go to stdout, progress to stderr, the servers' logs to a file that is kept when something is wrong.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

import msgspec

from tallybook import settings
from tallybook.cli import demo_books, demo_cast, demo_report, demo_traffic, dev, serve
from tallybook.cli.demo_accounts import Account, ModelPrice, ai_charge
from tallybook.cli.demo_books import Reconciliation
from tallybook.cli.demo_cast import Signed
from tallybook.cli.demo_http import Client, ClockRun, DemoError, RefusedError, TestClock
from tallybook.cli.demo_play import Originals, Player, Tally
from tallybook.cli.demo_report import Story
from tallybook.cli.dev import Running
from tallybook.embedded.crew import Crew
from tallybook.settings import Settings

_READY_S_MAX = 120.0
_CLOCK_S_MAX = 120.0
_RECONCILE_S_MAX = 120.0
_POLL_S = 0.05
_SENDERS = 4
_SHOWN_DIFFERENCES = 20
_LATE_IN_THE_MONTH = timedelta(days=27, hours=12)
_PAST_THE_END = timedelta(hours=6)
_PICO_PER_USD_PER_MILLION = 10**6

Say = Callable[[str], None]


class _Band(msgspec.Struct, rename="camel"):
    """Prices of a model, USD per million tokens."""

    input: str
    output: str
    cache_read: str | None = None
    cache_write: str | None = None


class _Price(msgspec.Struct):
    standard: list[_Band]


class _Model(msgspec.Struct):
    price: _Price


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--seed", type=int, default=1, help="another number makes another month of usage (default: 1)")
    parser.add_argument("--verbose", action="store_true", help="show the servers' logs on stderr")
    parser.add_argument("--postgres-user", help="when started as root: the user that Postgres runs as")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when every number agrees."""
    signal.signal(signal.SIGTERM, _interrupted)
    folder = Path(tempfile.mkdtemp(prefix="tallybook-demo-"))
    folder.chmod(0o711)
    try:
        with _logs_in(None if arguments.verbose else folder / "servers.log") as say:
            story, problems = _in(folder, arguments, say)
    except (DemoError, RefusedError) as error:
        problems, story = [str(error)], None
    except BaseException:
        print(f"tallybook demo: what there was is kept in {folder}", file=sys.stderr)
        raise
    if story is not None:
        print(demo_report.report(story))
    if story is None or problems:
        return _failed(problems, folder)
    print(f"\n{demo_report.last_line(story)}")
    shutil.rmtree(folder)
    return 0


def _failed(problems: Sequence[str], folder: Path) -> int:
    for problem in problems[:_SHOWN_DIFFERENCES]:
        print(f"tallybook demo: {problem}", file=sys.stderr)
    if len(problems) > _SHOWN_DIFFERENCES:
        print(f"tallybook demo: … and {len(problems) - _SHOWN_DIFFERENCES} more", file=sys.stderr)
    print(f"tallybook demo: FAILED. The servers' logs are in {folder / 'servers.log'}, their data beside it.", file=sys.stderr)
    return 1


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _logs_in(file: Path | None) -> Generator[Say]:
    """Send what this process and its children write to stderr into a file, and give a way to say something past it."""
    stderr = os.dup(2)
    with os.fdopen(stderr, "w") as terminal:
        if file is not None:
            log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            os.close(log)
        try:
            yield lambda text: print(f"tallybook demo: {text}", file=terminal, flush=True)
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)


def _in(folder: Path, arguments: argparse.Namespace, say: Say) -> tuple[Story, list[str]]:
    given = dataclasses.replace(settings.from_environment({}), port=0, catalog_url="")
    crew = Crew(serve.log)
    say("starting Postgres, Redis, a worker and the API")
    with dev.started(folder / "data", given, crew, postgres_user=arguments.postgres_user) as running:
        _wait_until_ready(running)
        with contextlib.closing(_client(running)) as client:
            return _play(client, running, arguments.seed, say)


def _wait_until_ready(running: Running) -> None:
    give_up_at = time.monotonic() + _READY_S_MAX
    while not running.port.is_ready():
        running.crew.tend()
        if running.crew.deaths_most() or time.monotonic() > give_up_at:
            raise DemoError("the servers do not become ready")
        time.sleep(_POLL_S)


def _client(running: Running) -> Client:
    return Client(running.port.host, running.port.port, running.key.apiKey)


def _play(client: Client, running: Running, seed: int, say: Say) -> tuple[Story, list[str]]:
    """The whole month. Returns what there is to tell, and every number that is not what it must be."""
    month_starts = _next_month(datetime.fromisoformat(client.get("/test-clock", TestClock).now))
    month_ends = _next_month(month_starts)
    _turn_clock(client, month_starts)
    demo_cast.make_catalog(client)
    signed = [demo_cast.sign_up(client, customer) for customer in demo_cast.CUSTOMERS]
    prices = {model: _price(client, model) for model in demo_traffic.MODELS}
    accounts = {each.customer.code: Account(each.customer, prices) for each in signed}
    month_late = month_starts + _LATE_IN_THE_MONTH
    _turn_clock(client, month_late)

    started = time.monotonic()
    tally, mixed = _send_all(running, accounts, signed, seed, month_starts, month_late)
    say(f"sent {tally.sent:,} events in {time.monotonic() - started:.1f} s; turning the clock past the end of the month")
    problems = tally.differences
    for code, account in accounts.items():
        problems += demo_books.pool_differences(demo_books.subscription(client, code), account)

    _turn_clock(client, month_ends + _PAST_THE_END)
    for code, account in accounts.items():
        problems += demo_books.renewed_differences(demo_books.subscription(client, code), account)
    invoices = demo_books.invoices(client)
    problems += demo_books.invoice_differences(invoices, demo_books.bills(accounts.values()), signed)

    say("reconciling")
    reconciliation = _reconcile(running.settings)
    problems += demo_books.reconciliation_differences(reconciliation, tally.accepted)
    example_charge, example_cost = ai_charge(demo_traffic.EXAMPLE, prices[demo_traffic.SONNET], demo_cast.MARGIN)
    customers = {each.id: each.customer for each in signed}
    return Story(
        month_starts, month_ends, tally, mixed, example_cost, example_charge, accounts, invoices, customers, reconciliation
    ), problems


def _send_all(
    running: Running, accounts: Mapping[str, Account], signed: Sequence[Signed], seed: int, month_starts: datetime, now: datetime
) -> tuple[Tally, Tally]:
    """All usage: customers at the same time, then what is special. Returns everything counted, and the mixed batch by itself."""
    month = demo_traffic.of_customers(seed, month_starts)
    subscriptions = {each.customer.code: each.subscription_id for each in signed}
    originals: Originals = {}

    def play(steps: Sequence[demo_traffic.Step]) -> Tally:
        with contextlib.closing(_client(running)) as client:
            return Player(client, accounts, originals).play(steps, subscriptions)

    tally = Tally()
    with ThreadPoolExecutor(_SENDERS) as senders:
        for part in senders.map(play, month.values()):
            tally.add(part)
    batch = demo_traffic.mixed_batch(demo_traffic.seen_of(month[demo_cast.ACME]), now)
    mixed = play([batch, demo_traffic.once_more(batch)])
    for part in (mixed, play(demo_traffic.example(now)), play(demo_traffic.mistakes(now))):
        tally.add(part)
    return tally, mixed


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
    band = client.get(f"/ai-models/{model}", _Model).price.standard[0]
    listed = (band.input, band.output, band.cache_read or band.input, band.cache_write or band.input)
    return ModelPrice(*(int(Decimal(usd) * _PICO_PER_USD_PER_MILLION) for usd in listed))


def _reconcile(given: Settings) -> Reconciliation:
    """`tallybook reconcile`, as an operator runs it. Raises DemoError when it says nothing that can be read."""
    done = subprocess.run(  # noqa: S603 - the command is ours, without a shell
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



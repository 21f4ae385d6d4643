"""Each AI client, sync and async, in each way a call can go; `test_providers_….py` run them, a file for each family.

The caller sees what it sees without the wrapper, and what is recorded in Postgres is the fake provider's own count, once, at the price
of the model that served.
"""

import asyncio
import gc
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from tallybook.client import AsyncTallybook, MeterSettings, Problem, Tallybook, tracked
from tests.client import fake_provider
from tests.client.fake_formats import Served
from tests.client.fake_provider import FakeProvider, Trouble
from tests.client.framework_cases import CASES
from tests.client.provider_cases import CATALOG_NAMES, Case, charge_nano, close, shut, take
from tests.support.recorded import RecordedEvent, recorded_events_now
from tests.support.service import Account

Way = Callable[[Case, Any, FakeProvider], Awaitable[list[Any]]]
METER = MeterSettings(linger_s=0.005)
_customers = itertools.count(2)


async def items(case: Case, stream: Any, most: int | None = None) -> list[Any]:
    return await take(stream, most, is_async=getattr(case, "is_async", True))


def can_drain(case: Case) -> bool:
    """Whether the rest of a broken off stream can be read. A sync stream of pydantic-ai runs its event loop only while it is read."""
    return not case.name.startswith("pydantic-ai") or getattr(case, "is_async", True)


async def plain(case: Case, client: Any, _fake: FakeProvider) -> list[Any]:
    return [case.seen(await case.call(client))]


async def streamed(case: Case, client: Any, _fake: FakeProvider) -> list[Any]:
    return [case.seen(item) for item in await items(case, await case.stream(client))]


async def broken_off(case: Case, client: Any, fake: FakeProvider) -> list[Any]:
    if not can_drain(case):
        fake.trouble = Trouble(holds_after=getattr(case, "events_of_two_texts"))  # noqa: B009 - cases of pydantic-ai have it
    stream = await case.stream(client)
    first = await items(case, stream, 2)
    await close(stream)
    return [case.seen(item) for item in first]


async def tool_loop(case: Case, client: Any, _fake: FakeProvider) -> list[Any]:
    answers = await case.loop(client)
    return [case.seen(answer) for answer in answers]


async def cut(case: Case, client: Any, fake: FakeProvider, trouble: Literal["error", "disconnect"]) -> list[Any]:
    fake.trouble = Trouble(cut=trouble)
    seen: list[Any] = []
    try:
        stream = await case.stream(client)
        while True:
            [item] = await items(case, stream, 1) or [None]
            if item is None:
                return seen
            seen.append(case.seen(item))
    except Exception as error:  # noqa: BLE001 - which one it is, is what is compared
        return [*seen, type(error).__name__, str(error)]


async def error_in_the_middle(case: Case, client: Any, fake: FakeProvider) -> list[Any]:
    return await cut(case, client, fake, "error")


async def connection_lost(case: Case, client: Any, fake: FakeProvider) -> list[Any]:
    return await cut(case, client, fake, "disconnect")


async def retried(case: Case, client: Any, fake: FakeProvider) -> list[Any]:
    fake.trouble = Trouble(failures=2)
    return [case.seen(await case.call(client))]


WAYS: tuple[Way, ...] = (plain, streamed, broken_off, tool_loop, error_in_the_middle, connection_lost, retried)

README = Path(__file__).parents[2] / "src/tallybook/client/README.md"
HEADER = "| client |"


def table() -> dict[tuple[str, str], str]:
    """The README's table: what is recorded, by client and way of a call. A cell may say `async; sync …` where these differ."""
    lines = README.read_text().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(HEADER))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:] if line.startswith("|")]
    rows = rows[2 : 2 + len(CASES)]
    return {(row[0], way.__name__): cell for row in rows for way, cell in zip(WAYS, row[1:], strict=False)}


TABLE = table()


def promised(case: Case, way: Way, *, is_async: bool) -> str:
    """What the README says of a call."""
    by_default, _, when_sync = TABLE[case.name, way.__name__].partition("; sync: ")
    return when_sync if when_sync and not is_async else by_default


def outcome(ledger: list[Served], problems: list[Problem]) -> str:
    """What the README calls it."""
    if not ledger:
        return "reported" if [problem.kind for problem in problems] == ["usage_missing"] else "lost"
    return "exact" if all(served.is_whole for served in ledger) and not problems else "partial"


async def seen_without(way: Way, case: Case, *, is_async: bool) -> list[Any]:
    with fake_provider.running() as fake:
        client = case.client(fake, is_async=is_async)
        try:
            return await way(case, client, fake)
        finally:
            await shut(client)


async def seen_with(
    way: Way, case: Case, meter: Tallybook | AsyncTallybook, customer: str, *, is_async: bool
) -> tuple[list[Any], list[Served]]:
    with fake_provider.running() as fake:
        original = case.client(fake, is_async=is_async)
        client = tracked(original, tallybook=meter, feature="ai_chat", customer_id=customer, provider=owner(case))
        assert isinstance(client, type(original))
        try:
            seen = await way(case, client, fake)
            assert meter.flush(20) if isinstance(meter, Tallybook) else await meter.flush(20)
        finally:
            await shut(client)
        return seen, list(fake.ledger)


def owner(case: Case) -> str | None:
    """The fake's address names no owner, so those who speak like OpenAI say it; Azure's models are OpenAI's."""
    return "openai" if "openai" in case.name and "azure" not in case.name else None


def line(event: RecordedEvent) -> tuple[Any, ...]:
    return (
        event.event_id,
        event.model,
        event.input_tokens,
        event.output_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.cache_write_1h_tokens,
        event.charge_nano,
        event.properties["usageStatus"],
    )


def expected(served: Served) -> tuple[Any, ...]:
    used = served.tokens
    counts = (used.input, used.output, used.cache_read, used.cache_write, used.cache_write_1h)
    return (served.id, CATALOG_NAMES[served.model], *counts, charge_nano(served), "final" if served.is_whole else "partial")


_settled: set[str] = set()


async def settle(case: Case) -> None:
    """Import what a client needs, which stays: it is not looked through again whenever forgotten streams are looked for."""
    if case.name not in _settled:
        _settled.add(case.name)
        with fake_provider.running() as fake:
            await shut(case.client(fake, is_async=False))
        gc.collect()
        gc.freeze()


def new_customer(account: Account) -> str:
    customer = f"customer_{next(_customers)}"
    account.subscribe(customer, "ai")
    return customer


async def compare(case: Case, way: Way, account: Account, *, is_async: bool) -> None:
    """The caller sees no difference, and every token is recorded once."""
    await settle(case)
    customer, problems = new_customer(account), list[Problem]()
    without = await seen_without(way, case, is_async=is_async)
    kind = AsyncTallybook if is_async else Tallybook
    meter = kind(account.key, url=account.service.url, meter=METER, on_error=problems.append)
    seen, ledger = await seen_with(way, case, meter, customer, is_async=is_async)
    await meter.close() if isinstance(meter, AsyncTallybook) else await asyncio.to_thread(meter.close)
    assert seen == without
    if way is broken_off and can_drain(case):
        assert [served.is_whole for served in ledger] == [True], "the rest was not read"
    recorded = sorted(line(event) for event in await recorded_events_now(account) if event.customer == customer)
    wanted = sorted(expected(served) for served in ledger)
    if case.name == "litellm anthropic":  # which gives the answers ids of its own
        recorded, wanted = [each[1:] for each in recorded], [each[1:] for each in wanted]
    assert sorted(recorded) == sorted(wanted)
    assert [problem.kind for problem in problems] == ([] if ledger else ["usage_missing"])
    assert outcome(ledger, problems) == promised(case, way, is_async=is_async)


def grid(*cases: Case) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Parametrizes a test by these clients, sync and async, and every way."""

    def parametrized(test: Callable[..., Any]) -> Callable[..., Any]:
        test = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)(test)
        test = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])(test)
        return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)(test)

    return parametrized

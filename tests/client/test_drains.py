"""Streams broken off by sync code that runs an event loop only while it waits for something."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from tallybook.client import MeterSettings, Problem, Tallybook, tracked
from tests.client.comparing import counts, served
from tests.client.fake_provider import EVENTS_BEFORE_TROUBLE, FakeProvider, Trouble
from tests.client.provider_cases import AnthropicMessages, OpenAIChat, OpenAIResponses
from tests.client.quiet import SDKS_ARE_QUIET
from tests.client.stub_service import StubService

pytestmark = SDKS_ARE_QUIET


@pytest.fixture
def loop() -> Generator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


async def read_one(client: Any) -> None:
    """Read the first event of a stream, and close it."""
    async with await AnthropicMessages().create(client, stream=True) as stream:
        await anext(aiter(stream))


def break_off(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    loop.run_until_complete(read_one(client))


async def rests_of(loop: asyncio.AbstractEventLoop) -> None:
    """Wait until no task of the loop reads the rest of a stream."""
    await asyncio.gather(*(task for task in asyncio.all_tasks(loop) if task.get_name() == "tallybook-drain"))


def client_of(fake: FakeProvider, tallybook: Tallybook, drain_s: float = 60.0) -> Any:
    original = AnthropicMessages().client(fake, is_async=True)
    return tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", drain_s=drain_s)


def recorded(stub: StubService) -> list[tuple[Any, ...]]:
    return [(*counts(event), event["properties"]["usageStatus"]) for event in stub.recorded.values()]


def test_a_flush_takes_what_was_told_when_the_loop_stands_still(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, loop: asyncio.AbstractEventLoop
) -> None:
    fake.trouble = Trouble(holds_after=1)
    break_off(loop, client_of(fake, tallybook))
    assert tallybook.flush(10)
    assert recorded(stub) == [(*served(fake.ledger[0]), "partial")]


def test_a_flush_in_the_loop_that_reads_the_rest_takes_what_was_told(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, loop: asyncio.AbstractEventLoop
) -> None:
    """Mutant: a flush that keeps a loop from going on waits for what only this loop can read."""

    async def break_off_and_flush() -> None:
        await read_one(client)
        assert tallybook.flush(10)

    fake.trouble = Trouble(holds_after=1)
    client = client_of(fake, tallybook)
    loop.run_until_complete(break_off_and_flush())
    assert recorded(stub) == [(*served(fake.ledger[0]), "partial")]
    fake.resume.set()
    loop.run_until_complete(asyncio.wait_for(rests_of(loop), 10))
    assert tallybook.meter.counters["tracked"] == 1


def test_a_flush_that_a_loop_waits_for_ends_when_the_time_for_reading_is_over(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, loop: asyncio.AbstractEventLoop
) -> None:
    """Mutant: a loop that runs, but is kept from its work by a thread that flushes, is waited for without end."""

    async def break_off_and_wait() -> None:
        await read_one(client)
        thread = threading.Thread(target=lambda: flushed.append(tallybook.flush(10)))
        thread.start()
        thread.join()

    flushed: list[bool] = []
    fake.trouble = Trouble(holds_after=1)
    client = client_of(fake, tallybook, drain_s=0.1)
    loop.run_until_complete(break_off_and_wait())
    assert flushed == [True]
    assert recorded(stub) == [(*served(fake.ledger[0]), "partial")]


def test_a_loop_that_runs_again_reads_the_rest(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, loop: asyncio.AbstractEventLoop
) -> None:
    fake.trouble = Trouble(holds_after=1)
    break_off(loop, client_of(fake, tallybook))
    fake.resume.set()
    while tallybook.meter.counters["tracked"] == 0:
        loop.run_until_complete(asyncio.sleep(0.01))
    assert tallybook.flush(10)
    assert recorded(stub) == [(*served(fake.ledger[0]), "final")]
    assert fake.ledger[0].is_whole


@pytest.mark.parametrize("is_closed", [False, True], ids=["the loop stands still", "the loop is closed"])
def test_what_was_told_is_sent_without_a_flush_too(fake: FakeProvider, stub: StubService, *, is_closed: bool) -> None:
    """Mutant: only a flush ends the reading, so that a process that never flushes sends nothing before its end."""
    fake.trouble = Trouble(holds_after=1)
    problems: list[Problem] = []
    loop = asyncio.new_event_loop()
    with Tallybook("ck_test", url=stub.url, meter=MeterSettings(linger_s=0.005), on_error=problems.append) as tallybook:
        break_off(loop, client_of(fake, tallybook, drain_s=60.0 if is_closed else 0.1))
        if is_closed:
            loop.close()
        while not stub.recorded:
            time.sleep(0.01)
        loop.close()
    assert recorded(stub) == [(*served(fake.ledger[0]), "partial")]
    assert problems == []


def test_a_loop_that_is_busy_with_other_things_is_waited_for(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, loop: asyncio.AbstractEventLoop
) -> None:
    """Mutant: a flush ends every reading that is not done after a moment."""

    async def go_on_a_while() -> bool:
        flushing = asyncio.create_task(asyncio.to_thread(tallybook.flush, 10))
        await asyncio.sleep(0.5)
        fake.resume.set()
        return await flushing

    fake.trouble = Trouble(holds_after=1)
    client = client_of(fake, tallybook)
    break_off(loop, client)
    assert loop.run_until_complete(go_on_a_while())
    assert recorded(stub) == [(*served(fake.ledger[0]), "final")]


@pytest.mark.parametrize("case", [OpenAIChat(), OpenAIResponses(), AnthropicMessages()], ids=lambda case: case.name)
def test_after_an_error_in_the_middle_there_is_no_rest_to_wait_for(
    case: OpenAIChat, fake: FakeProvider, tallybook: Tallybook, problems: list[Problem]
) -> None:
    """Mutant: the connection of a stream that has failed is read on until the provider closes it."""
    fake.trouble = Trouble(cut="error", holds_after=EVENTS_BEFORE_TROUBLE + 1)
    client = tracked(case.client(fake, is_async=False), tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    with contextlib.suppress(Exception), case.create(client, stream=True) as stream:
        for number, _ in enumerate(stream, start=1):
            if number == EVENTS_BEFORE_TROUBLE + 1:  # of Responses, the error is an event for the caller
                break
    assert tallybook.flush(10)
    assert tallybook.meter.counters["tracked"] + len(problems) == 1

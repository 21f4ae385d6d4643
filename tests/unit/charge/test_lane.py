"""The queue in front of the till: who waits for whom, and what happens to the others when one gives up."""

import asyncio
from collections.abc import Sequence

import pytest

from tallybook.charge.commands import Charge, Outcome, Receipt
from tallybook.charge.lane import Lane, LaneLimits
from tallybook.core import errors, usage_log


def charges(*amounts: int) -> list[Charge]:
    return [Charge(0, usage_log.Record(usage_log.Kind.USAGE, 1, 1, b"", "credits", amount), -amount) for amount in amounts]


class RecordingTill:
    """Answers each charge with its amount, when it is let."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def called(self) -> None:
        while not self.calls:  # noqa: ASYNC110 - nothing sets an event when the task has run
            await asyncio.sleep(0)

    async def __call__(self, batch: Sequence[Charge]) -> list[Receipt]:
        self.calls.append([charge.amount for charge in batch])
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [Receipt(Outcome.ACCEPTED, charge.amount) for charge in batch]


async def test_a_lone_request_goes_at_once_and_those_that_come_meanwhile_share_the_next_call() -> None:
    till = RecordingTill()
    lane = Lane(till, LaneLimits(in_flight_max=1))
    waiters = [asyncio.create_task(lane.ask(charges(number))) for number in range(1, 5)]
    await till.called()
    assert till.calls == [[-1]]
    till.gate.set()
    receipts = await asyncio.gather(*waiters)
    assert till.calls == [[-1], [-2, -3, -4]]
    assert [[receipt.amount for receipt in own] for own in receipts] == [[-1], [-2], [-3], [-4]]


async def test_a_call_takes_no_more_than_a_batch_but_never_splits_a_request() -> None:
    till = RecordingTill()
    till.gate.set()
    lane = Lane(till, LaneLimits(batch_max=3, in_flight_max=1))
    await asyncio.gather(*(lane.ask(charges(*own)) for own in ([1], [2, 3], [4], [5, 6], [7, 8, 9, 10])))
    assert till.calls == [[-1], [-2, -3, -4], [-5, -6], [-7, -8, -9, -10]]


async def test_a_cancelled_caller_takes_nobody_with_it() -> None:
    till = RecordingTill()
    lane = Lane(till, LaneLimits(in_flight_max=1))
    leaving, staying = asyncio.create_task(lane.ask(charges(1))), asyncio.create_task(lane.ask(charges(2)))
    await till.called()
    leaving.cancel()
    till.gate.set()
    assert [receipt.amount for receipt in await staying] == [-2]
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert till.calls == [[-1], [-2]]
    assert lane.depth == 0


async def test_every_request_of_a_failed_call_hears_of_it_and_the_next_call_goes_on() -> None:
    till = RecordingTill()
    till.gate.set()
    till.failure = errors.Unavailable("till_unavailable", "gone")
    lane = Lane(till, LaneLimits())
    answers = await asyncio.gather(lane.ask(charges(1)), lane.ask(charges(2)), return_exceptions=True)
    assert all(isinstance(answer, errors.Unavailable) for answer in answers)
    till.failure = None
    assert len(await lane.ask(charges(3))) == 1


async def test_a_full_queue_refuses_with_the_depth_and_the_limit() -> None:
    till = RecordingTill()
    lane = Lane(till, LaneLimits(waiting_max=3, in_flight_max=1))
    waiting = asyncio.create_task(lane.ask(charges(1, 2)))
    await asyncio.sleep(0)
    with pytest.raises(errors.RateLimited, match=r"2 events are waiting.*takes 3"):
        await lane.ask(charges(3, 4))
    till.gate.set()
    assert len(await waiting) == 2
    assert lane.depth == 0


async def test_drain_waits_for_everything_that_began() -> None:
    till = RecordingTill()
    lane = Lane(till, LaneLimits(in_flight_max=1))
    waiters = [asyncio.create_task(lane.ask(charges(number))) for number in (1, 2)]
    await asyncio.sleep(0)
    till.gate.set()
    await lane.drain()
    assert [waiter.done() or len(await waiter) == 1 for waiter in waiters] == [True, True]

"""The queues in front of a till on a cluster: each server's own, so that one that stands still holds up nobody else."""

import asyncio
from collections.abc import Sequence

import pytest

from tallybook.charge.commands import Charge, Outcome, Receipt
from tallybook.charge.lane import LaneLimits
from tallybook.charge.lanes import Lanes, Settled
from tallybook.core import errors, usage_log

AWAY = errors.Unavailable("till_unavailable", "away")


def charge(partition: int, amount: int) -> Charge:
    return Charge(partition, usage_log.Record(usage_log.Kind.USAGE, 1, 1, b"", "credits", amount), -amount)


class PartedTill:
    """Answers each charge with its amount; partitions that are away refuse, those that stand still wait for the gate.

    Partitions 0 and 3 are on one server, 1 and 2 on servers of their own.
    """

    def __init__(self, *, away: Sequence[int] = (), still: Sequence[int] = ()) -> None:
        self.away, self.still = away, still
        self.gate = asyncio.Event()
        self.calls: list[list[int]] = []

    async def __call__(self, batch: Sequence[Charge]) -> list[Settled]:
        [_] = {server_of(one.partition) for one in batch}
        self.calls.append([one.amount for one in batch])
        if any(one.partition in self.still for one in batch):
            await self.gate.wait()
        return [AWAY if one.partition in self.away else Receipt(Outcome.ACCEPTED, one.amount) for one in batch]


def server_of(partition: int) -> str:
    return f"server {partition % 3}"


def lanes(till: PartedTill, waiting_max: int = 900) -> Lanes:
    return Lanes(till, LaneLimits(batch_max=10, in_flight_max=1, waiting_max=waiting_max), server_of)


async def test_a_call_carries_one_servers_charges_and_receipts_come_back_in_the_order_of_the_charges() -> None:
    till = PartedTill()
    receipts = await lanes(till).charge([charge(number % 4, number) for number in range(1, 9)])
    assert [receipt.amount for receipt in receipts] == [-number for number in range(1, 9)]
    assert till.calls == [[-1, -5], [-2, -6], [-3, -4, -7, -8]]


async def test_charges_of_a_partition_that_is_away_are_told_so_and_the_others_are_settled() -> None:
    till = PartedTill(away=[3])
    settled = await lanes(till).settle([charge(partition, 1) for partition in (0, 3, 2, 3)])
    assert [isinstance(one, Receipt) for one in settled] == [True, False, True, False]
    assert settled[1] is settled[3] is AWAY


async def test_where_all_or_nothing_is_wanted_one_partition_away_is_an_error() -> None:
    till = PartedTill(away=[1])
    with pytest.raises(errors.Unavailable):
        await lanes(till).charge([charge(0, 1), charge(1, 1)])
    with pytest.raises(errors.Unavailable):
        await lanes(till).settle([charge(1, 1)])


async def test_a_server_that_stands_still_holds_up_nobody_else_and_its_queue_is_bounded() -> None:
    till = PartedTill(still=[1])
    parted = lanes(till, waiting_max=10)
    waiting = asyncio.create_task(parted.charge([charge(1, 1)] * 10))
    while parted.depth < 10:  # noqa: ASYNC110 - nothing sets an event when a charge has taken its place
        await asyncio.sleep(0)
    settled = await parted.settle([charge(0, 1), charge(1, 1), charge(2, 1)])
    assert [type(one) for one in settled] == [Receipt, errors.RateLimited, Receipt]
    till.gate.set()
    assert len(await waiting) == 10
    await parted.drain()
    assert parted.depth == 0


async def test_a_request_without_charges_is_settled_without_asking_anybody() -> None:
    till = PartedTill()
    assert await lanes(till).settle([]) == await lanes(till).charge([]) == []
    assert till.calls == []

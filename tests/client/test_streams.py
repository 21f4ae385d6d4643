"""Streams of objects whose parts say totals: the newest part that says something counts, whenever it is read."""

import pytest

from tallybook.client import MeterSettings, Problem, Tallybook
from tallybook.client.tracking.streams import ItemReading, Reader
from tallybook.client.tracking.tracker import Terms, Tracker
from tallybook.client.tracking.usage import Usage
from tests.client.stub_service import StubService

Item = tuple[int | None, bool]
"""The total that a part says, and whether it is the last word."""


def usage(item: Item) -> Usage | None:
    return None if item[0] is None else Usage(None, None, 7, item[0])


def read(items: list[Item], stub: StubService, *, has_ended: bool, estimate: bool = False) -> list[tuple[int, str]]:
    """What was metered of a stream of these parts."""
    problems: list[Problem] = []
    with Tallybook("ck_test", url=stub.url, meter=MeterSettings(linger_s=0.005), on_error=problems.append) as tallybook:
        tracker = Tracker(tallybook, Terms("user_1", "ai_chat", estimate=estimate))
        reader = Reader(usage, lambda item: item[1], output=lambda _item: "four", says_totals=True)
        reading = ItemReading(tracker.begin("some-model", {}, "google"), reader)
        assert all(reading.feed(item) for item in items)
        reading.end() if has_ended else reading.finish()
    return [(event["outputTokens"], event["properties"]["usageStatus"]) for event in stub.recorded.values()]


@pytest.mark.parametrize("others", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize(("item", "status"), [((5, True), "final"), ((5, False), "partial")], ids=["last", "not last"])
def test_the_newest_total_counts_however_many_parts_say_nothing(item: Item, status: str, others: int, stub: StubService) -> None:
    """Mutant: what was read before is forgotten when newer parts say nothing."""
    items: list[Item] = [(3, False), item, *[(None, False)] * others]
    assert read(items, stub, has_ended=False) == [(5, status)]


def test_a_stream_that_came_to_its_end_is_final(stub: StubService) -> None:
    assert read([(3, False), (4, False)], stub, has_ended=True) == [(4, "final")]


def test_the_parts_of_a_stream_that_said_nothing_are_estimated(stub: StubService) -> None:
    """Mutant: parts that are read together count as one."""
    assert read([(None, False)] * 40, stub, has_ended=True, estimate=True) == [(40, "estimated")]


def test_a_part_that_cannot_be_read_costs_no_other(stub: StubService) -> None:
    """Mutant: whatever goes wrong ends the reading of all parts that wait."""
    items: list[Item] = [(4, False), 5]  # type: ignore[list-item] - that is the case
    assert read(items, stub, has_ended=True) == [(4, "final")]


def test_a_count_that_is_no_number_never_gets_into_a_batch(stub: StubService) -> None:
    """Mutant: whatever is told is written, and the request of a hundred events is no JSON."""
    items: list[Item] = [("many", True)]  # type: ignore[list-item] - that is the case
    assert read(items, stub, has_ended=True) == []
    assert stub.batches() == []

"""The meter without its clock and wire: when a flush is done."""

from tallybook.client import MeterSettings
from tallybook.client.meter import event
from tallybook.client.meter.delivery import Delivered
from tallybook.client.meter.outbox import Outbox
from tallybook.client.transport import Address


def outbox_of(**settings: int) -> Outbox:
    return Outbox(MeterSettings(**settings), Address("http://localhost:9", "ck_test"), None)  # type: ignore[arg-type] - the test's own settings


def put(outbox: Outbox) -> None:
    outbox.put(event.make({"customerId": "user_1"}))


def send(outbox: Outbox) -> None:
    batch = outbox.batch()
    outbox.settle(batch, [Delivered(len(batch.payloads), 0)])


def test_a_flush_that_waited_for_a_rest_ends_where_events_never_stop_coming() -> None:
    """Mutant: after a rest the flush is done only when nothing at all waits, which a busy process never sees."""
    outbox = outbox_of()
    rest = outbox.begin_reading(lambda: None)
    with outbox.flush() as out:
        put(outbox)
        outbox.end_reading(rest)
        assert not out()
        batch = outbox.batch()
        put(outbox)
        outbox.settle(batch, [Delivered(1, 0)])
        assert outbox.pending == 1
        assert out()


def test_a_flush_waits_for_the_event_of_a_rest_that_was_under_way() -> None:
    """Mutant: what is waited for is counted before the rest has put its event in."""
    outbox = outbox_of()
    rest = outbox.begin_reading(lambda: None)
    with outbox.flush() as out:
        send(outbox)
        assert not out()
        put(outbox)
        put(outbox)
        outbox.end_reading(rest)
        assert not out()
        send(outbox)
        assert out()


def test_events_there_was_no_room_for_do_not_stand_in_for_those_that_wait() -> None:
    """Mutant: a dropped event counts as one of those that the flush waits for."""
    outbox = outbox_of(events_max=1)
    put(outbox)
    with outbox.flush() as out:
        put(outbox)
        assert outbox.counters.dropped == 1
        assert not out()
        send(outbox)
        assert out()

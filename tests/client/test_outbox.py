"""The meter without its clock and wire: when a flush is done."""

from tallybook.client import MeterSettings
from tallybook.client.meter import event
from tallybook.client.meter.delivery import Delivered
from tallybook.client.meter.outbox import Outbox
from tallybook.client.transport import Address


def outbox_of(**settings: int | str) -> Outbox:
    return Outbox(MeterSettings(**settings), Address("http://localhost:9", "ck_test"), None)  # type: ignore[arg-type] - the test's own settings


def put(outbox: Outbox) -> None:
    outbox.put(event.make({"customerId": "user_1"}).payload)


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


def ask_again(outbox: Outbox) -> None:
    batch = outbox.batch()
    outbox.settle(batch, [Delivered(0, 0, again=batch.payloads)])


def test_a_flush_waits_for_an_event_that_is_asked_for_again() -> None:
    """Mutant: events that came after the flush began, and are accepted, stand in for the one that waits."""
    outbox = outbox_of()
    put(outbox)
    with outbox.flush() as out:
        for _ in range(3):
            batch = outbox.batch()
            put(outbox)
            put(outbox)
            outbox.settle(batch, [Delivered(len(batch.payloads) - 1, 0, again=batch.payloads[:1])])
            assert not out()
        send(outbox)
        assert out()


def test_a_flush_does_not_wait_for_events_after_it_that_are_asked_for_again() -> None:
    """Mutant: whatever is asked for again is waited for, which may never end."""
    outbox = outbox_of()
    put(outbox)
    with outbox.flush() as out:
        batch = outbox.batch()
        put(outbox)
        outbox.settle(batch, [Delivered(1, 0)])
        ask_again(outbox)
        assert outbox.pending == 1
        assert out()


def test_an_event_dropped_behind_those_being_sent_does_not_stand_in_for_them() -> None:
    """Mutant: a dropped event counts as one of those that the flush waits for, although they were before it."""
    outbox = outbox_of(events_max=2, when_full="drop_oldest")
    put(outbox)
    with outbox.flush() as out:
        batch = outbox.batch()
        put(outbox)
        put(outbox)
        assert outbox.counters.dropped == 1
        assert not out()
        outbox.settle(batch, [Delivered(1, 0)])
        assert out()

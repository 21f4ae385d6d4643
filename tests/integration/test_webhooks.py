"""From an announcement to a receiver that verifies it with the official client: once an event, in order, tried again by the schedule."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import webhooks as worker
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tallybook.webhooks import actions
from tests.support import api, billing, posting, waiting
from tests.support.posting import Office
from tests.support.receiver import Receiver, receiving

SCHEDULE_S = [60, 300, 900, 1800, 3600, 3600, 3600]


@pytest.fixture
async def office(database: Pool, redis_client: Redis, postgres_url: str) -> AsyncGenerator[Office]:
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as world, posting.opened(world, postgres_url) as opened:
        yield opened


@pytest.fixture
async def there() -> AsyncGenerator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def later(office: Office, seconds: float) -> None:
    office.world.clock.shows += timedelta(seconds=seconds)


async def test_an_announcement_arrives_in_its_envelope(office: Office, there: Receiver) -> None:
    endpoint = await office.endpoint(there)
    await office.announce("invoice.created", total=9900, name="Zoë")
    await office.deliver()
    [event] = there.events
    assert event["data"] == {"total": 9900, "name": "Zoë"}
    assert {name: event[name] for name in ("event", "organizationId", "mode", "apiVersion")} == {
        "event": "invoice.created",
        "organizationId": office.world.tenant.organization_id,
        "mode": "sandbox",
        "apiVersion": "2026-08-27",
    }
    assert event["id"].startswith("whev_")
    [(headers, _body)] = there.requests
    assert headers["X-Commet-Timestamp"] == event["timestamp"]
    [delivery] = await office.deliveries(endpoint)
    assert (delivery["state"], delivery["attempts"], delivery["responseStatus"]) == ("delivered", 1, 200)
    assert delivery["eventId"] == event["id"]


async def test_each_endpoint_gets_what_it_asked_for_with_the_same_event_id_and_its_own_signature(office: Office) -> None:
    async with receiving() as one, receiving() as two, receiving() as none:
        await office.endpoint(one, "invoice.created", "balance.low")
        await office.endpoint(two, "invoice.created")
        await office.endpoint(none, "payment.failed")
        for topic in ("invoice.created", "balance.low", "subscription.created"):
            await office.announce(topic)
        await office.deliver()
    assert (one.topics, two.topics, none.requests) == (["invoice.created", "balance.low"], ["invoice.created"], [])
    assert one.events[0] == two.events[0]
    assert one.secret != two.secret


async def test_an_endpoint_hears_of_its_own_organization_and_mode_only(office: Office, there: Receiver) -> None:
    await office.endpoint(there)
    stranger = await api.make_account(office.world.services.database)
    async with postgres.transaction(office.world.services.database) as connection:
        await connection.execute(
            "INSERT INTO outbox (tenant_id, topic, payload) SELECT id, 'invoice.created', '{}' FROM tenants WHERE id <> $1",
            office.world.tenant.id,
        )
    assert stranger.tenant.id != office.world.tenant.id
    await office.announce(mine=True)
    await office.deliver()
    assert [event["data"] for event in there.events] == [{"mine": True}]
    assert await office.fan_out() == 0


async def test_messages_to_one_endpoint_come_in_the_order_of_what_happened(office: Office, there: Receiver) -> None:
    await office.endpoint(there)
    for number in range(50):
        await office.announce(number=number)
    await office.deliver()
    assert [event["data"]["number"] for event in there.events] == list(range(50))


async def test_a_failed_message_does_not_hold_up_those_behind_it(office: Office, there: Receiver) -> None:
    await office.endpoint(there)
    there.answers = [500]
    for number in range(3):
        await office.announce(number=number)
    await office.deliver()
    assert [event["data"]["number"] for event in there.events] == [0, 1, 2]
    await later(office, SCHEDULE_S[0])
    await office.deliver()
    assert [event["data"]["number"] for event in there.events] == [0, 1, 2, 0]


async def test_a_message_is_tried_eight_times_by_the_schedule_always_the_same_bytes(office: Office, there: Receiver) -> None:
    endpoint = await office.endpoint(there)
    there.answers = [500] * 8
    await office.announce(total=1)
    await office.deliver()
    for tried, pause_s in enumerate(SCHEDULE_S, 1):
        await later(office, pause_s - 1)
        await office.deliver()
        assert len(there.requests) == tried
        await later(office, 1)
        await office.deliver()
        assert len(there.requests) == tried + 1
    [delivery] = await office.deliveries(endpoint)
    assert (delivery["state"], delivery["attempts"], delivery["nextAttemptAt"]) == ("failed", 8, None)
    await later(office, 86_400)
    await office.deliver()
    assert len(there.requests) == 8
    assert len({body for _headers, body in there.requests}) == 1
    assert len({headers["webhook-id"] for headers, _body in there.requests}) == 1
    assert len({headers["webhook-timestamp"] for headers, _body in there.requests}) == 8


async def test_three_events_in_a_row_that_fail_switch_the_endpoint_off_until_somebody_switches_it_on(
    office: Office, there: Receiver
) -> None:
    endpoint = await office.endpoint(there)
    for _ in range(3):
        there.answers = [503] * 8
        await office.announce()
        await office.deliver()
        for pause_s in SCHEDULE_S:
            await later(office, pause_s)
            await office.deliver()
    shown = await office.world.ask("GET", f"/webhooks/{endpoint['id']}")
    assert (shown["isActive"], shown["disabledReason"]) == (False, "3 events in a row could not be delivered")
    await office.announce()
    await office.deliver()
    assert len(there.requests) == 24
    shown = await office.world.ask("PATCH", f"/webhooks/{endpoint['id']}", {"isActive": True})
    assert (shown["isActive"], shown["disabledReason"]) == (True, None)
    await office.announce(number=5)
    await office.deliver()
    assert there.events[-1]["data"] == {"number": 5}
    assert len(there.requests) == 25


async def test_a_delivery_in_between_makes_the_failures_no_longer_in_a_row(office: Office, there: Receiver) -> None:
    endpoint = await office.endpoint(there)
    for statuses in ([500] * 8, [500] * 8, [200], [500] * 8, [500] * 8):
        there.answers = list(statuses)
        await office.announce()
        await office.deliver()
        for pause_s in SCHEDULE_S:
            await later(office, pause_s)
            await office.deliver()
    assert (await office.world.ask("GET", f"/webhooks/{endpoint['id']}"))["isActive"] is True
    assert [one["state"] for one in await office.deliveries(endpoint)] == ["failed", "failed", "delivered", "failed", "failed"]


async def test_what_waits_for_an_endpoint_that_is_switched_off_is_given_up(office: Office, there: Receiver) -> None:
    endpoint = await office.endpoint(there)
    there.answers = [500]
    await office.announce()
    await office.deliver()
    await office.world.ask("PATCH", f"/webhooks/{endpoint['id']}", {"isActive": False})
    await later(office, 86_400)
    await office.deliver()
    assert len(there.requests) == 1
    [delivery] = await office.deliveries(endpoint)
    assert (delivery["state"], delivery["error"]) == ("failed", "endpoint_disabled")


async def test_a_worker_killed_after_sending_and_before_noting_it_sends_the_same_event_again(
    office: Office, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.endpoint(there)
    await office.announce()
    await office.fan_out()

    async def die(*_arguments: object) -> None:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(actions, "settle", die)
        with pytest.raises(ConnectionError):
            await office.send()
    await office.deliver()
    assert len(there.events) == 2
    assert there.events[0] == there.events[1]


async def test_a_worker_killed_while_fanning_out_queues_each_event_once(
    office: Office, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.endpoint(there)
    await office.announce()

    async def die(*_arguments: object) -> None:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("tallybook.tenancy.store.mark_announced", die)
        with pytest.raises(ConnectionError):
            await office.fan_out()
    await office.deliver()
    assert len(there.events) == 1


async def test_two_workers_that_fan_out_at_once_queue_each_event_once(office: Office, there: Receiver) -> None:
    await office.endpoint(there)
    for number in range(40):
        await office.announce(number=number)
    counts = await asyncio.gather(*(office.fan_out() for _ in range(4)))
    assert sum(counts) == 40
    await office.deliver()
    assert sorted(event["data"]["number"] for event in there.events) == list(range(40))


async def test_workers_send_each_event_once_and_the_next_one_takes_over_from_one_that_stops(
    office: Office, there: Receiver
) -> None:
    await office.endpoint(there)
    services, stops = office.world.services, [asyncio.Event(), asyncio.Event()]
    leading = asyncio.create_task(worker.run(services, stops[0]))

    async def has(count: int) -> bool:
        return len(there.events) >= count

    await office.announce(number=0)
    await waiting.until(lambda: has(1))
    assert await worker.lead(worker.Post(services, office.sender), stops[1]) > 0
    stops[0].set()
    await leading
    following = asyncio.create_task(worker.run(services, stops[1]))
    await office.announce(number=1)
    await waiting.until(lambda: has(2))
    stops[1].set()
    await following
    assert [event["data"]["number"] for event in there.events] == [0, 1]


async def test_an_endpoint_that_is_slow_holds_up_no_other(office: Office, there: Receiver) -> None:
    async with receiving() as slow:
        released = asyncio.Event()
        slow.before_answer = lambda: _wait(released)
        await office.endpoint(slow)
        await office.endpoint(there)
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(office.world.services, stop))

        async def has(count: int) -> bool:
            return len(there.events) >= count

        for number in (1, 2, 3):
            await office.announce()
            await waiting.until(lambda number=number: has(number))
        assert len(slow.requests) == 1
        released.set()
        stop.set()
        await running


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def test_a_finished_delivery_is_sent_again_on_demand_with_its_old_event_id(office: Office, there: Receiver) -> None:
    endpoint = await office.endpoint(there)
    await office.announce(total=1)
    await office.deliver()
    [delivery] = await office.deliveries(endpoint)
    again = await office.world.ask("POST", f"/webhooks/{endpoint['id']}/deliveries/{delivery['id']}/resend")
    assert (again["state"], again["attempts"], again["eventId"]) == ("pending", 0, delivery["eventId"])
    await office.deliver()
    assert [event["id"] for event in there.events] == [delivery["eventId"]] * 2


async def test_deliveries_are_forgotten_a_month_after_their_end(office: Office, there: Receiver) -> None:
    endpoint = await office.endpoint(there)
    there.answers = [200, 500]
    for _ in range(2):
        await office.announce()
    await office.deliver()
    async with office.world.services.database.acquire() as connection:
        assert await actions.forget_deliveries(connection, office.world.clock() + timedelta(days=29)) == 0
        assert await actions.forget_deliveries(connection, office.world.clock() + timedelta(days=31)) == 1
    assert [one["state"] for one in await office.deliveries(endpoint)] == ["pending"]


async def test_the_outbox_and_what_waits_are_shown(office: Office, there: Receiver) -> None:
    await office.endpoint(there)
    await office.announce()
    await office.world.services.database.execute("UPDATE outbox SET created_at = $1", office.world.clock() - timedelta(seconds=7))
    await worker.show(office.world.services)
    assert "tallybook_outbox_lag_seconds 7.0" in metrics.exposition({}).decode().splitlines()
    await office.fan_out()
    await worker.show(office.world.services)
    shown = metrics.exposition({}).decode().splitlines()
    assert {"tallybook_outbox_lag_seconds 0.0", "tallybook_webhooks_waiting 1.0"} <= set(shown)

"""The meter queue: it returns at once, batches, tries again with the same ids, and says what became of every event."""

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest

from tallybook.client import AsyncTallybook, MeterSettings, Problem, QueueFull, Tallybook
from tallybook.client.meter import event
from tests.client import stub_service
from tests.client.stub_service import Received, Reply, StubService

KEY = "ck_test"


def client(stub: StubService, problems: list[Problem] | None = None, **settings: object) -> Tallybook:
    meter = MeterSettings(**{"linger_s": 0.01, **settings})  # type: ignore[arg-type] - the test's own settings
    return Tallybook(KEY, url=stub.url, meter=meter, on_error=(problems if problems is not None else []).append)


def answers(*statuses: int, **headers: str) -> Callable[[Received, int], Reply | None]:
    """Answer the first requests with these statuses, then as Tallybook does."""
    error = {"success": False, "error": {"code": "store_unavailable", "message": "later"}}
    return lambda _request, number: Reply(statuses[number - 1], error, headers) if number <= len(statuses) else None


def test_events_are_sent_in_order_in_batches_of_up_to_a_hundred(stub: StubService) -> None:
    with client(stub, linger_s=0.2) as tallybook:
        ids = [tallybook.meter.track("user_1", "api_calls", number) for number in range(250)]
        assert tallybook.flush(10)
        assert [len(request.body["events"]) for request in stub.batches()] == [100, 100, 50]
        assert [sent["eventId"] for request in stub.batches() for sent in request.body["events"]] == ids
        assert tallybook.meter.counters["accepted"] == tallybook.meter.counters["tracked"] == 250


def test_an_event_is_complete_when_it_is_tracked(stub: StubService) -> None:
    with client(stub) as tallybook:
        named = tallybook.meter.track(
            "user_1", "ai_chat", model="gpt-4o", input_tokens=7, cache_write_1h_tokens=1, properties={"a": "b"}
        )
        tallybook.flush()
    sent = stub.recorded[named]
    assert sent.pop("timestamp").endswith("Z")
    assert sent == {
        "featureCode": "ai_chat",
        "customerId": "user_1",
        "model": "gpt-4o",
        "inputTokens": 7,
        "cacheWrite1hTokens": 1,
        "properties": {"a": "b"},
        "eventId": named,
    }


def test_an_event_stays_as_it_was_when_it_was_tracked(stub: StubService) -> None:
    """Mutant: the event that waits holds the caller's own properties."""
    properties = {"project": "apollo"}
    with client(stub, linger_s=60) as tallybook:
        named = tallybook.meter.track("user_1", "api_calls", properties=properties)
        properties["project"] = "gemini"
        assert tallybook.flush(10)
    assert stub.recorded[named]["properties"] == {"project": "apollo"}


def test_what_cannot_be_written_is_found_where_it_is_tracked(stub: StubService) -> None:
    """Mutant: events are written by the sender, which would try this one again and again."""
    with client(stub) as tallybook:
        with pytest.raises(TypeError):
            tallybook.meter.track("user_1", "api_calls", properties={"a": object()})  # type: ignore[dict-item] - that is the case
        assert tallybook.meter.counters["tracked"] == 0


@pytest.mark.parametrize(
    ("event_id", "properties"),
    [(None, {"a": "x" * 20_000}), (None, {"x" * 20_000: "a"}), ("x" * 20_000, None)],
    ids=["text", "name", "event id"],
)
def test_an_event_that_is_too_large_is_dropped_where_it_is_tracked(
    stub: StubService, event_id: str | None, properties: dict[str, str] | None
) -> None:
    """Mutant: events are measured by the sender, whose whole batch such an event would cost."""
    problems: list[Problem] = []
    with client(stub, problems, linger_s=60) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id=event_id, properties=properties)
        assert [problem.kind for problem in problems] == ["dropped"]
        assert tallybook.meter.counters["pending"] == 0


def test_a_batch_that_was_not_answered_is_sent_again_with_the_same_ids_and_key(stub: StubService) -> None:
    stub.decide = answers(500, 0, 503)
    problems: list[Problem] = []
    with client(stub, problems) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id="evt_1")
        assert tallybook.flush(10)
        first, *others = stub.batches()
        assert len(others) == 3
        assert all((request.key, request.body) == (first.key, first.body) for request in others)
        assert tallybook.meter.counters["failures"] == 3
    assert [problem.kind for problem in problems] == ["unreachable"]


def test_retry_after_is_honoured(stub: StubService) -> None:
    stub.decide = answers(429, **{"retry-after": "1"})
    started = time.monotonic()
    with client(stub) as tallybook:
        tallybook.meter.track("user_1", "api_calls")
        assert tallybook.flush(10)
    assert time.monotonic() - started >= 1
    assert len(stub.batches()) == 2


def test_only_the_events_that_the_service_wants_again_are_sent_again(stub: StubService) -> None:
    results: list[dict[str, object]] = [{"status": "accepted"}, {"status": "retry", "error": {}}, {"status": "duplicate"}]
    stub.decide = lambda _request, number: Reply(200, {"results": results}) if number == 1 else None
    with client(stub) as tallybook:
        ids = [tallybook.meter.track("user_1", "api_calls") for _ in range(3)]
        assert tallybook.flush(10)
        assert [sent["eventId"] for sent in stub.batches()[1].body["events"]] == ids[1:2]
        counters = tallybook.meter.counters
    assert (counters["accepted"], counters["duplicates"], counters["pending"]) == (2, 1, 0)


def test_a_refused_event_is_reported_and_costs_no_other(stub: StubService) -> None:
    refusal = {"status": "invalid", "error": {"code": "model_not_found", "message": "No model gpt-9."}}
    stub.decide = lambda request, _number: Reply(
        200, {"results": [refusal, *[{"status": "accepted"}] * (len(request.body["events"]) - 1)]}
    )
    problems: list[Problem] = []
    with client(stub, problems, linger_s=0.1) as tallybook:
        ids = [tallybook.meter.track("user_1", "ai_chat", model="gpt-9") for _ in range(2)]
        assert tallybook.flush(10)
        assert (tallybook.meter.counters["refused"], tallybook.meter.counters["accepted"]) == (1, 1)
    [problem] = problems
    assert (problem.kind, problem.message) == ("refused", "model_not_found: No model gpt-9.")
    assert [sent["eventId"] for sent in problem.events] == ids[:1]


def test_a_batch_that_is_not_understood_is_split_until_only_the_culprit_is_refused(stub: StubService) -> None:
    def decide(request: Received, _number: int) -> Reply | None:
        if any(sent["eventId"] == "culprit" for sent in request.body["events"]):
            return Reply(400, {"error": {"code": "invalid_json", "message": "what?"}})
        return None

    stub.decide = decide
    problems: list[Problem] = []
    with client(stub, problems, linger_s=0.1) as tallybook:
        for number in range(7):
            tallybook.meter.track("user_1", "api_calls", event_id="culprit" if number == 3 else f"e{number}")
        assert tallybook.flush(10)
        assert (tallybook.meter.counters["refused"], tallybook.meter.counters["accepted"]) == (1, 6)
    assert [sent["eventId"] for problem in problems for sent in problem.events] == ["culprit"]


def test_a_wrong_key_loses_nothing(stub: StubService) -> None:
    stub.decide = answers(401, 403, 404)
    with client(stub) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id="evt_1")
        assert tallybook.flush(10)
    assert set(stub.recorded) == {"evt_1"}


def held(stub: StubService) -> threading.Event:
    """Keep the service from answering until the event is set."""
    go = threading.Event()

    def decide(_request: Received, _number: int) -> Reply | None:
        assert go.wait(30)
        return None

    stub.decide = decide
    return go


def fill(tallybook: Tallybook, stub: StubService) -> None:
    """One event being sent and two waiting: as many as the meter of these tests holds."""
    tallybook.meter.track("user_1", "api_calls", event_id="sent")
    while not stub.lock.locked():
        time.sleep(0.001)
    for name in ("waits_1", "waits_2"):
        tallybook.meter.track("user_1", "api_calls", event_id=name)


@pytest.mark.parametrize(
    ("policy", "recorded"), [("drop_newest", {"sent", "waits_1", "waits_2"}), ("drop_oldest", {"sent", "waits_2", "late"})]
)
def test_a_full_meter_drops_by_its_policy_and_says_so(stub: StubService, policy: str, recorded: set[str]) -> None:
    go, problems = held(stub), list[Problem]()
    with client(stub, problems, events_max=3, when_full=policy) as tallybook:
        fill(tallybook, stub)
        tallybook.meter.track("user_1", "api_calls", event_id="late")
        go.set()
        assert tallybook.flush(10)
        counters = tallybook.meter.counters
    assert set(stub.recorded) == recorded
    assert (counters["tracked"], counters["accepted"], counters["dropped"]) == (4, 3, 1)
    assert [problem.kind for problem in problems] == ["dropped"]


def test_a_full_meter_raises_if_told_so(stub: StubService) -> None:
    go = held(stub)
    with client(stub, events_max=3, when_full="raise") as tallybook:
        fill(tallybook, stub)
        with pytest.raises(QueueFull):
            tallybook.meter.track("user_1", "api_calls")
        go.set()
        assert tallybook.flush(10)
        assert tallybook.meter.counters["tracked"] == tallybook.meter.counters["accepted"] == 3


def test_a_full_meter_waits_for_room_if_told_so(stub: StubService) -> None:
    go = held(stub)
    with client(stub, events_max=3, when_full="block") as tallybook:
        fill(tallybook, stub)
        threading.Timer(0.2, go.set).start()
        started = time.monotonic()
        tallybook.meter.track("user_1", "api_calls", event_id="late")
        assert time.monotonic() - started > 0.1
        assert tallybook.flush(10)
    assert "late" in stub.recorded


def test_close_sends_what_waits_and_what_it_cannot_send_is_reported(stub: StubService) -> None:
    tallybook = client(stub, linger_s=5)
    tallybook.meter.track("user_1", "api_calls", event_id="evt_1")
    tallybook.close()
    tallybook.close()
    assert set(stub.recorded) == {"evt_1"}
    problems: list[Problem] = []
    stub.decide = lambda _request, _number: Reply(503)
    late = client(stub, problems)
    late.meter.track("user_1", "api_calls", event_id="evt_2")
    assert late.flush(0.05) is False
    late.close(0.1)
    assert [problem.kind for problem in problems if problem.kind != "unreachable"] == ["dropped"]
    assert late.meter.counters["dropped"] == 1


def test_a_hook_that_raises_stops_nothing(stub: StubService) -> None:
    def hook(_problem: Problem) -> None:
        raise RuntimeError("the hook is broken")

    stub.decide = answers(500)
    with Tallybook(KEY, url=stub.url, meter=MeterSettings(linger_s=0.01), on_error=hook) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id="evt_1")
        assert tallybook.flush(10)
    assert set(stub.recorded) == {"evt_1"}


def test_every_thread_may_track(stub: StubService) -> None:
    with client(stub) as tallybook:
        threads = [
            threading.Thread(target=lambda: [tallybook.meter.track("u", "api_calls") for _ in range(200)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tallybook.flush(20)
        assert tallybook.meter.counters["accepted"] == len(stub.recorded) == 1600


def test_a_forked_child_sends_its_own_events_only(stub: StubService) -> None:
    with client(stub, linger_s=0.3) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id="parent")
        child = os.fork()
        if child == 0:
            tallybook.meter.track("user_1", "api_calls", event_id="child")
            os._exit(0 if tallybook.flush(10) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert tallybook.flush(10)
    assert sorted(sent["eventId"] for request in stub.batches() for sent in request.body["events"]) == ["child", "parent"]


async def test_the_async_meter_sends_from_a_task(stub: StubService) -> None:
    stub.decide = answers(500)
    problems: list[Problem] = []
    async with AsyncTallybook(KEY, url=stub.url, meter=MeterSettings(linger_s=0.01), on_error=problems.append) as tallybook:
        ids = [tallybook.meter.track("user_1", "api_calls") for _ in range(150)]
        await asyncio.to_thread(lambda: ids.append(tallybook.meter.track("user_1", "api_calls")))
        assert await tallybook.flush(10)
        assert tallybook.meter.counters["accepted"] == 151
    assert set(stub.recorded) == set(ids)
    assert [problem.kind for problem in problems] == ["unreachable"]


def test_the_async_meter_moves_on_to_the_next_loop_and_to_a_thread_at_the_end(stub: StubService) -> None:
    tallybook = AsyncTallybook(KEY, url=stub.url, meter=MeterSettings(linger_s=0.01))

    async def track(name: str, *, flush: bool) -> None:
        tallybook.meter.track("user_1", "api_calls", event_id=name)
        if flush:
            assert await tallybook.flush(10)

    asyncio.run(track("first", flush=True))
    asyncio.run(track("second", flush=True))
    assert set(stub.recorded) == {"first", "second"}
    asyncio.run(track("third", flush=False))
    tallybook.meter._send_at_exit()  # pyright: ignore[reportPrivateUsage]
    assert set(stub.recorded) == {"first", "second", "third"}


async def test_the_async_meter_reports_what_it_could_not_send(stub: StubService) -> None:
    stub.decide = lambda _request, _number: Reply(503)
    problems: list[Problem] = []
    tallybook = AsyncTallybook(KEY, url=stub.url, meter=MeterSettings(linger_s=0.01), on_error=problems.append)
    tallybook.meter.track("user_1", "api_calls")
    assert await tallybook.flush(0.05) is False
    await tallybook.close(0.1)
    assert "dropped" in [problem.kind for problem in problems]


def test_an_async_meter_must_not_block() -> None:
    with pytest.raises(ValueError, match="can't block"):
        AsyncTallybook(KEY, meter=MeterSettings(when_full="block"))


def test_a_service_that_comes_back_gets_everything_once() -> None:
    with stub_service.running() as gone:
        port = int(gone.url.rpartition(":")[2])
    tallybook = Tallybook(KEY, url=gone.url, meter=MeterSettings(linger_s=0.01), on_error=lambda _problem: None)
    ids = {tallybook.meter.track("user_1", "api_calls") for _ in range(300)}
    time.sleep(0.5)
    with stub_service.running(port) as back:
        assert tallybook.flush(20)
        tallybook.close()
        assert set(back.recorded) == ids
        assert sum(len(request.body["events"]) for request in back.batches()) == 300


def test_new_ids_are_uuids_of_version_7_in_order() -> None:
    ids: list[str] = []
    for _ in range(3):
        ids.append(event.new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all((len(each), each[14], each[19] in "89ab") == (36, "7", True) for each in ids)

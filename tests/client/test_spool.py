"""The spool: events on disk survive the process, whoever starts next sends them, and nothing counts twice."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tallybook.client import MeterSettings, Problem, Tallybook
from tallybook.client.meter import spool
from tallybook.client.meter.spool import Spool
from tallybook.client.meter.store import Full
from tests.client import stub_service
from tests.client.stub_service import Received, Reply, StubService
from tests.support.recorded import recorded_events
from tests.support.service import Account

KEY = "ck_test"
ROOM = 1_000_000


def opened(folder: Path, bytes_max: int = ROOM) -> Spool:
    return Spool(folder, bytes_max=bytes_max, fsync=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def meter(folder: Path) -> MeterSettings:
    return MeterSettings(linger_s=0.01, spool=folder)


def test_events_are_read_in_order_and_settled_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(150):
        store.put(b"%d" % number)
    first = store.batch()
    assert first.payloads == [b"%d" % number for number in range(100)]
    assert store.batch() == first
    store.settle(first, again=[b"7"])
    second = store.batch()
    assert second.payloads == [*(b"%d" % number for number in range(100, 150)), b"7"]
    store.settle(second, again=[])
    assert store.pending == 0
    store.close()
    assert names(tmp_path) == []


def test_what_a_dead_process_left_is_adopted_from_where_it_stopped(tmp_path: Path) -> None:
    dead = opened(tmp_path)
    for number in range(120):
        dead.put(b"%d" % number)
    dead.settle(dead.batch(), again=[])
    dead._own.close()  # pyright: ignore[reportPrivateUsage]
    living = opened(tmp_path)
    assert living.pending == 20
    assert living.batch().payloads == [b"%d" % number for number in range(100, 120)]


def test_a_living_process_keeps_its_segment_to_itself(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.put(b"1")
    other.put(b"2")
    assert (one.batch().payloads, other.batch().payloads) == ([b"1"], [b"2"])
    assert opened(tmp_path).pending == 0


def test_half_a_line_was_never_acknowledged_and_is_not_sent(tmp_path: Path) -> None:
    dead = opened(tmp_path)
    dead.put(b"whole")
    [path] = tmp_path.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"half')
    dead._own.close()  # pyright: ignore[reportPrivateUsage]
    living = opened(tmp_path)
    assert living.batch().payloads == [b"whole"]
    living.put(b"next")
    living.settle(living.batch(), again=[])
    assert living.batch().payloads == [b"next"]


def test_segments_are_limited_and_deleted_when_they_are_done_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES_MAX", 100)
    store = opened(tmp_path)
    for number in range(100):
        store.put(b"%020d" % number)
    assert len(list(tmp_path.glob("*.jsonl"))) == 20
    seen: list[bytes] = []
    while (batch := store.batch()).payloads:
        seen += batch.payloads
        store.settle(batch, again=[])
    assert seen == [b"%020d" % number for number in range(100)]
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_full_spool_says_so_and_has_room_again_when_events_are_sent(tmp_path: Path) -> None:
    store = opened(tmp_path, bytes_max=100)
    for _ in range(9):
        store.put(b"0123456789")
    with pytest.raises(Full):
        store.put(b"0123456789")
    store.settle(store.batch(), again=[])
    store.put(b"0123456789")


def short_write(_file: int, _data: bytes, _at: int) -> int:
    """What a full disk does."""
    return 3


def test_a_disk_that_refuses_costs_the_event_and_not_the_caller(
    stub: StubService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[Problem] = []
    with Tallybook(KEY, url=stub.url, meter=meter(tmp_path), on_error=problems.append) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id="before")
        assert tallybook.flush(10)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", short_write)
            tallybook.meter.track("user_1", "api_calls", event_id="refused by the disk")
        tallybook.meter.track("user_1", "api_calls", event_id="after")
        assert tallybook.flush(10)
    assert set(stub.recorded) == {"before", "after"}
    assert [(problem.kind, type(problem.error)) for problem in problems] == [("dropped", OSError)]


def test_what_is_refused_is_kept_in_a_file(stub: StubService, tmp_path: Path) -> None:
    refusal = {"status": "rejected", "error": {"code": "insufficient_balance", "message": "empty"}}
    stub.decide = lambda _request, _number: Reply(200, {"results": [refusal]})
    with Tallybook(KEY, url=stub.url, meter=meter(tmp_path), on_error=lambda _problem: None) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id="evt_1")
        assert tallybook.flush(10)
    [file] = tmp_path.glob("*/refused.jsonl")
    [line] = file.read_text().splitlines()
    kept = json.loads(line)
    assert (kept["code"], kept["event"]["eventId"]) == ("insufficient_balance", "evt_1")


def test_two_accounts_that_share_a_folder_do_not_mix(tmp_path: Path) -> None:
    with stub_service.running() as one, stub_service.running() as other:
        one.decide = lambda _request, _number: Reply(503)
        first = Tallybook("ck_one", url=one.url, meter=meter(tmp_path), on_error=lambda _problem: None)
        first.meter.track("user_1", "api_calls", event_id="of_one")
        first.close(0.05)
        with Tallybook("ck_other", url=other.url, meter=meter(tmp_path)) as second:
            second.meter.track("user_1", "api_calls", event_id="of_other")
            assert second.flush(10)
        assert set(other.recorded) == {"of_other"}


def test_a_forked_child_leaves_the_parents_events_to_the_parent(stub: StubService, tmp_path: Path) -> None:
    with Tallybook(KEY, url=stub.url, meter=MeterSettings(linger_s=0.3, spool=tmp_path)) as tallybook:
        tallybook.meter.track("user_1", "api_calls", event_id="parent")
        child = os.fork()
        if child == 0:
            tallybook.meter.track("user_1", "api_calls", event_id="child")
            os._exit(0 if tallybook.flush(10) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert tallybook.flush(10)
    assert sorted(sent["eventId"] for request in stub.batches() for sent in request.body["events"]) == ["child", "parent"]


def kill_while_tracking(url: str, key: str, folder: Path, name: str, after_s: float) -> set[str]:
    """The ids whose `track` had returned when a process of its own was killed."""
    command = [sys.executable, "-m", "tests.client.killed_tracker", url, key, str(folder), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src:."}) as process:  # noqa: S603 - own code
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        lines = (first + process.stdout.read()).decode().splitlines(keepends=True)
    return {line.strip() for line in lines if line.endswith("\n")}


def test_a_kill_loses_nothing_and_doubles_nothing(ai_account: Account, tmp_path: Path) -> None:
    chance = random.Random(1)
    acknowledged: set[str] = set()
    for number in range(6):
        acknowledged |= kill_while_tracking(
            ai_account.service.url, ai_account.key, tmp_path, f"life{number}", chance.uniform(0.02, 0.25)
        )
    with Tallybook(ai_account.key, url=ai_account.service.url, meter=meter(tmp_path)) as tallybook:
        assert tallybook.flush(60)
        assert tallybook.meter.counters["refused"] == 0
    events = recorded_events(ai_account)
    sent = [str(each.event_id) for each in events]
    assert len(sent) == len(set(sent))
    assert acknowledged <= set(sent)
    # Killed between its write and its word, a life may have tracked one event more than it said.
    assert len(set(sent) - acknowledged) <= 6
    assert {each.charge_nano for each in events} == {(1000 * 2500 + 10 * 10_000) * 12 // 10}


def test_a_kill_while_the_service_is_down_loses_nothing(tmp_path: Path) -> None:
    def decide(_request: Received, _number: int) -> Reply | None:
        return Reply(503)

    with stub_service.running() as stub:
        stub.decide = decide
        acknowledged = kill_while_tracking(stub.url, KEY, tmp_path, "life", 0.3)
        stub.decide = lambda _request, _number: None
        with Tallybook(KEY, url=stub.url, meter=meter(tmp_path)) as tallybook:
            assert tallybook.meter.outbox.counters.adopted >= len(acknowledged) > 0
            assert tallybook.flush(30)
        assert acknowledged <= set(stub.recorded)

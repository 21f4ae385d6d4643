"""What a run of log entries does to the book."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core.usage_log import Kind, Record
from tallybook.rollup import aggregate, copy_rows, decoding, rules
from tallybook.rollup.model import Effects, RawEntry
from tests.support import copy_format
from tests.support import log_builder as log

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = log.ACCEPTED_MS // 3_600_000


def effects(*entries: RawEntry) -> Effects:
    return aggregate.effects(entries, NOW)


def row_of(found: Effects, number: int = 0) -> dict[str, copy_format.Value]:
    """One row for the book, by column; counted in the order of the log."""
    rows = copy_format.rows(found.event_rows, copy_rows.COLUMNS)
    return sorted(rows, key=lambda row: (row["seq"], row["position"]))[number]


def test_a_usage_event_is_charged_to_its_pool_its_hour_and_the_ledger() -> None:
    found = effects(log.raw(1, [log.usage("a", 40, cost_nano=30, price_id=9, input_tokens=7)], [log.opening("", "100")]))
    assert found.hourly == [(1, 1, 3, HOUR, log.PERIOD_S, 9, 1, 10**9, 40, 30, 7, 0, 0, 0)]
    assert found.pools == [(1, log.POOL, 1, 100, 40, 0, 0, False)]
    assert found.ledger == [(1, log.POOL, HOUR, "charge", 1, -40, 1), (1, log.POOL, HOUR, "opening", 1, 100, 1)]
    assert row_of(found)["amount"] == 40
    assert found.months == [(2025, 11)]


def test_the_part_that_purchased_credits_paid_is_theirs_and_not_the_plans() -> None:
    found = effects(log.raw(1, [(log.usage("a", 10), "6")]))
    assert found.pools == [(1, log.POOL, 1, 0, 4, 0, 0, False), (1, "credits", 1, 0, 6, 0, 0, False)]
    assert (row_of(found)["amount"], row_of(found)["spare_amount"]) == (10, 6)
    assert found.hourly[0][8] == 10


def test_an_adjustment_adds_and_its_event_row_says_taken_with_the_sign_turned() -> None:
    found = effects(log.raw(1, [log.change(Kind.ADJUSTMENT, 25), log.change(Kind.ADJUSTMENT, -5)]))
    assert found.pools == [(1, log.POOL, 1, 0, 0, 20, 0, False)]
    assert [row_of(found, number)["amount"] for number in (0, 1)] == [-25, 5]
    assert found.hourly == []


def test_a_set_adjusts_by_the_difference_to_what_was_left() -> None:
    found = effects(log.raw(1, [(log.change(Kind.SET, 70), "100")]))
    assert found.pools == [(1, log.POOL, 1, 0, 0, -30, 0, False)]
    assert row_of(found)["amount"] == 30


@pytest.mark.parametrize(
    ("left", "total", "fits"), [(2**62, -(2**62), False), (2**62, -(2**62) + 1, True), (-1, 2**63 - 1, False)]
)
def test_a_set_whose_change_no_column_holds_is_quarantined_and_its_pool_set(left: int, total: int, fits: bool) -> None:  # noqa: FBT001
    found = effects(log.raw(1, [log.usage("a"), (log.change(Kind.SET, total), str(left))]))
    assert [pool[5] for pool in found.pools] == [total - left]
    assert found.events == 1 + fits
    assert [(item.position, item.booked) for item in found.quarantined] == ([] if fits else [(1, True)])


def test_identities_of_other_lengths_stand_beside_others() -> None:
    odd = msgspec.structs.replace(log.usage("odd"), digest=b"short")
    found = effects(log.raw(1, [log.usage("a"), odd, log.usage("b", fingerprint=b"")]))
    assert [row_of(found, number)["digest"] for number in range(3)] == [log.usage("a").digest, b"short", log.usage("b").digest]
    assert [row_of(found, number)["event_id"] for number in range(3)] == ["a", "odd", "b"]
    assert row_of(found, 2)["fingerprint"] == b""


def test_an_identity_begins_with_the_day_it_was_accepted_on() -> None:
    found = effects(log.raw(1, [log.usage("a")]))
    day, start = divmod(cast("int", row_of(found)["identity"]), 2**48)
    assert day == (datetime.fromtimestamp(log.ACCEPTED_MS / 1000, UTC) - datetime(2020, 1, 1, tzinfo=UTC)).days
    assert start.to_bytes(6) == log.usage("a").digest[:6]


@pytest.mark.parametrize(("events", "seconds"), [(0, 0.1), (500, 0.1), (1000, 0.2), (100_000, 1.0)])
def test_the_more_a_pass_had_the_longer_the_next_one_gathers(events: int, seconds: float) -> None:
    assert rules.gather_s(events, 0.0) == seconds


@pytest.mark.parametrize(("took_s", "seconds"), [(0.0, 1.0), (0.1, 0.8), (0.3, 0.4), (0.45, 0.1), (5.0, 0.1)])
def test_a_rest_and_the_two_passes_around_it_stay_within_a_second_where_they_can(took_s: float, seconds: float) -> None:
    assert rules.gather_s(100_000, took_s) == pytest.approx(seconds)
    assert rules.gather_s(1000, took_s) == pytest.approx(min(seconds, 0.2))


def test_an_expiry_takes_what_was_left_and_closes_the_pool() -> None:
    found = effects(log.raw(1, [log.usage("a", 10), (log.change(Kind.EXPIRY), "90")], [log.opening("", "100")]))
    assert found.pools == [(1, log.POOL, 1, 100, 10, 0, 90, True)]


def test_a_pool_that_is_opened_again_after_its_expiry_is_not_closed() -> None:
    expired = log.raw(1, [(log.change(Kind.EXPIRY), "0")])
    opened = log.raw(2, [], [log.opening("", "5")])
    assert effects(expired, opened).pools[0][-1] is False
    assert effects(log.raw(1, [], [log.opening("", "5")]), log.raw(2, [(log.change(Kind.EXPIRY), "5")])).pools[0][-1] is True


def test_opening_a_pool_again_counts_only_the_difference() -> None:
    found = effects(log.raw(1, [], [log.opening("", "100")]), log.raw(2, [], [log.opening("100", "250")]))
    assert found.pools == [(1, log.POOL, 1, 250, 0, 0, 0, False)]


def test_a_tick_changes_nothing() -> None:
    found = effects(log.raw(1, [log.tick()]))
    assert (found.events, found.hourly, found.pools, found.ledger, found.quarantined) == (0, [], [], [], [])


def test_sums_go_beyond_64_bits_without_wrapping_or_rounding() -> None:
    large = 9 * 10**18 + 1
    found = effects(log.raw(1, [log.usage(str(n), large, quantity_nano=large) for n in range(5)]))
    assert found.hourly[0][7:9] == (5 * large, 5 * large)
    assert found.pools[0][4] == 5 * large
    assert found.ledger[0][5] == -5 * large


def test_a_usage_event_without_a_pool_is_counted_and_charges_nothing() -> None:
    found = effects(log.raw(1, [log.usage("a", 0, pool="")]))
    assert found.events == 1
    assert found.pools == []


def test_rows_are_sorted_by_the_primary_keys_of_their_tables() -> None:
    entries = [log.raw(n, [log.usage(f"{n}", customer_id=50 - n, pool=f"{n}.b.1")], partition=n % 3) for n in range(1, 40)]
    found = effects(*entries)
    for rows, width in ((found.hourly, 6), (found.pools, 2), (found.ledger, 4)):
        keys = [row[:width] for row in rows]
        assert all(before < after for before, after in pairwise(keys))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (log.usage("nul\0"), "event_id contains NUL"),
        (log.usage("a", model="m\0"), "model contains NUL"),
        (log.usage("a", properties={"k": "\0"}), "properties contain NUL"),
        (log.usage("a", properties={"\\\0": "k"}), "properties contain NUL"),
        (log.usage("a", quantity_nano=2**63), "beyond 64 bits"),
        (log.usage("a", feature_id=2**31), "beyond 32 bits"),
        (log.usage("a", web_searches=-(2**31) - 1), "beyond 32 bits"),
        (log.usage("a", occurred_at_ms=-1), "is no time"),
        (log.usage("a", period_start_s=10**15), "is no time"),
    ],
)
def test_an_event_that_cannot_be_stored_is_quarantined_but_its_pool_is_charged(record: Record, reason: str) -> None:
    found = effects(log.raw(4, [log.usage("good", 2), record]))
    assert found.events == 1
    assert [(item.seq, item.position) for item in found.quarantined] == [(4, 1)]
    assert reason in found.quarantined[0].reason
    assert found.pools[0][4] == 2 + record.amount
    assert msgspec.msgpack.decode(found.quarantined[0].payload)[0][5] == record.amount


def test_a_record_that_is_no_row_for_a_reason_that_no_rule_knows_is_quarantined_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_record: Record) -> None:
        """As if the rule had been forgotten."""

    monkeypatch.setattr(rules, "detail_problem", nothing)
    found = effects(log.raw(4, [log.usage("good", 2), log.usage("nul\0", 3), log.usage("large", 4, web_searches=2**31)]))
    assert (found.events, found.pools[0][4]) == (1, 9)
    assert [(item.position, item.booked) for item in found.quarantined] == [(1, True), (2, True)]
    assert "NUL" in found.quarantined[0].reason
    assert "no row" in found.quarantined[1].reason


def test_an_entry_whose_text_is_no_text_is_quarantined_alone() -> None:
    broken = log.raw(1, [log.usage("event_a")])
    broken = dataclasses.replace(broken, data=broken.data.replace(b"event_a", b"event_\xff"))
    found = effects(broken, log.raw(2, [log.usage("good", 2)]))
    assert (found.events, [item.seq for item in found.quarantined]) == (1, [1])


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        (log.usage("a", 2**63), ""),
        (log.usage("a", -1), ""),
        (log.usage("a", 5), "6"),
        (log.usage("a", 5), "-1"),
        (log.usage("a", 5), "1e3"),
        (log.usage("a", 5, pool="x\0"), ""),
        (log.usage("a", 5, pool="x" * 201), ""),
        (log.usage("a", 5, customer_id=-1), ""),
        (Record(9, 1, 1, b"", log.POOL, 5), ""),
        (log.change(Kind.SET, 5), "9" * 20),
    ],
)
def test_a_record_whose_effect_is_unknown_changes_no_pool(record: Record, outcome: str) -> None:
    found = effects(log.raw(1, [(record, outcome), log.usage("good", 2, pool="good")]))
    assert found.events == 1
    assert len(found.quarantined) == 1
    assert found.pools == [(1, "good", 1, 0, 2, 0, 0, False)]


_OTHER_VERSION = msgspec.msgpack.encode((3, log.ACCEPTED_MS, [], []))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", _OTHER_VERSION, log.entry([], accepted_at_ms=5)])
def test_bytes_that_are_no_entry_are_quarantined_whole(data: bytes) -> None:
    found = effects(RawEntry(3, 8, data), log.raw(9, [log.usage("a")], partition=3))
    assert [(item.partition, item.seq, item.position, item.payload) for item in found.quarantined] == [(3, 8, None, data)]
    assert found.events == 1


def test_an_item_of_the_wrong_shape_does_not_take_its_neighbours_along() -> None:
    data = msgspec.msgpack.encode((1, log.ACCEPTED_MS, [(log.usage("a"), ""), ("what", ""), (log.usage("b"), "")], [("x", "y")]))
    found = effects(RawEntry(0, 1, data))
    assert found.events == 2
    assert [item.position for item in found.quarantined] == [1, -1]


def test_an_opening_that_is_no_amount_is_quarantined() -> None:
    found = effects(log.raw(1, [log.usage("a")], [log.opening("", "ten"), log.opening("", "10")]))
    assert [item.position for item in found.quarantined] == [-1]
    assert found.pools[0][3] == 10


_ITEMS = st.tuples(
    st.sampled_from([Kind.USAGE, Kind.ADJUSTMENT, Kind.SET, Kind.EXPIRY, Kind.TICK]),
    st.integers(1, 3),
    st.sampled_from(["a", "b", "credits"]),
    st.integers(0, 10**15),
    st.integers(0, 10**15),
)


def _item(kind: Kind, customer_id: int, pool: str, amount: int, other: int) -> tuple[Record, str]:
    outcome = {Kind.USAGE: str(min(amount, other) if pool != "credits" else 0), Kind.SET: str(other), Kind.EXPIRY: str(other)}
    if kind == Kind.USAGE:
        return log.usage("e", amount, customer_id=customer_id, pool=pool), outcome[kind]
    return log.change(kind, amount, customer_id=customer_id, pool=pool), outcome.get(kind, "")


def _left(items: Sequence[tuple[Record, str]]) -> dict[tuple[int, str], int]:
    """What the pools are left with, one record after the other."""
    left: dict[tuple[int, str], int] = defaultdict(int)
    for record, outcome in items:
        key = (record.customer_id, record.pool)
        if record.kind == Kind.USAGE:
            left[key] -= record.amount - int(outcome)
            left[record.customer_id, "credits"] -= int(outcome)
        elif record.kind == Kind.ADJUSTMENT:
            left[key] += record.amount
        elif record.kind == Kind.SET:
            left[key] += record.amount - int(outcome)
        elif record.kind == Kind.EXPIRY:
            left[key] -= int(outcome)
    return {key: value for key, value in left.items() if value}


@given(st.lists(_ITEMS, max_size=30))
def test_pools_and_ledger_say_what_applying_one_record_after_the_other_says(drawn: list[tuple[Kind, int, str, int, int]]) -> None:
    items = [_item(*values) for values in drawn]
    found = effects(*[log.raw(seq, [item]) for seq, item in enumerate(items, 1)])
    pools = {(row[0], row[1]): row[3] + row[5] - row[4] - row[6] for row in found.pools}
    ledger: dict[tuple[int, str], int] = defaultdict(int)
    for row in found.ledger:
        ledger[row[0], row[1]] += row[5]
    expected = _left(items)
    assert {key: value for key, value in pools.items() if value} == expected
    assert {key: value for key, value in ledger.items() if value} == expected


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_no_bytes_make_it_fail_and_none_of_them_vanish(blobs: list[bytes]) -> None:
    found = effects(*[RawEntry(0, seq, data) for seq, data in enumerate(blobs, 1)])
    assert {item.seq for item in found.quarantined} == set(range(1, len(blobs) + 1))


@given(st.lists(_ITEMS, max_size=10))
def test_distrust_finds_the_same_records_as_trust(drawn: list[tuple[Kind, int, str, int, int]]) -> None:
    entries = [log.raw(1, [_item(*values) for values in drawn], [log.opening("", "4")])]
    assert decoding.decode(entries) == decoding.decode(entries, distrust=True)

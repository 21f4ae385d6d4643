"""Usage of the usual kind is read by columns, and does to the book what it does item by item."""

import dataclasses
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import ids, packed_log, usage_log
from tallybook.core.usage_log import Kind, Opening, Record
from tallybook.rollup import aggregate, copy_rows, decoding, plain_usage
from tallybook.rollup.model import Effects, RawEntry
from tests.support import copy_format
from tests.support import log_builder as log

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_HOUR_MS = 3_600_000
Make = Callable[..., bytes]


def written(records: list[Record], left_out: tuple[int, ...] = (), *, form: int = usage_log.PACKED, **said: Any) -> bytes:  # noqa: ANN401
    """An entry as the script writes it: 7 is left after the first accepted record, 8 after the next; any part may be given."""
    if form == usage_log.PACKED:
        told = packed_log.identities([record.digest for record in records], [record.fingerprint for record in records])
        accounts = [
            packed_log.account(record.tenant_id, record.customer_id, record.feature_id, record.period_start_s, record.pool)
            for record in records
        ]
        are_named = all(
            record.event_id is not None
            and record.digest == ids.event_digest(record.tenant_id, record.customer_id, record.event_id)
            for record in records
        )
        body = packed_log.pack(records, told, accounts, [1] * len(records), are_named=are_named)
    else:
        body = packed_log.pack_rows(records)
    count = len(records) - len(left_out)
    parts: dict[str, Any] = {
        "accepted_at_ms": log.ACCEPTED_MS,
        "left_out": left_out,
        "lefts": struct.pack(f">{count}q", *range(7, 7 + count)),
        "beside": [],
        "openings": [],
        **said,
    }
    return msgspec.msgpack.encode((form, *parts.values(), msgspec.Raw(body)))


def item_by_item(raw: RawEntry) -> RawEntry:
    """The same entry in the plain form, which is never read by columns."""
    return dataclasses.replace(raw, data=msgspec.msgpack.encode(usage_log.decode_entry(raw.data)))


def in_order(found: Effects) -> Effects:
    """With rows in the order of the log."""
    rows = copy_format.rows(found.event_rows, copy_rows.COLUMNS) if found.event_rows else []
    rows.sort(key=lambda row: (row["partition"], row["seq"], row["position"]))
    return dataclasses.replace(found, event_rows=repr(rows).encode())


def both_ways(*entries: RawEntry) -> Effects:
    """What entries do, having seen that it is the same item by item."""
    found = aggregate.effects(entries, NOW)
    assert in_order(found) == in_order(aggregate.effects(list(map(item_by_item, entries)), NOW))
    return found


def is_plain(entry: RawEntry) -> bool:
    """Whether an entry is read by columns."""
    return not plain_usage.read([entry], NOW)[1]


FORMS = pytest.mark.parametrize("form", [usage_log.PACKED, usage_log.ROWS], ids=["columns", "rows"])
_AMOUNTS = st.integers(0, 10**15)
_TOKENS = st.one_of(st.just(0), st.integers(0, 10**7))


def _usage(event_id: str | None, customer_id: int, **fields: Any) -> Record:  # noqa: ANN401
    record = log.usage(event_id or "", fields.pop("amount"), customer_id=customer_id, **fields)
    return record if event_id is not None else msgspec.structs.replace(record, event_id=None)


_USAGE = st.builds(
    _usage,
    st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)),
    st.integers(1, 3),
    amount=_AMOUNTS,
    pool=st.sampled_from([log.POOL, "credits", "", "7.b.", "9.f3.5", f"x.{log.PERIOD_S}"]),
    feature_id=st.integers(3, 4),
    period_start_s=st.sampled_from([log.PERIOD_S, 0]),
    belongs_to_s=st.sampled_from([0, 0, 5]),
    occurred_at_ms=st.sampled_from([log.ACCEPTED_MS, log.ACCEPTED_MS - _HOUR_MS, 0]),
    quantity_nano=st.integers(-(10**15), 10**15),
    properties=st.sampled_from([None, None, {}, {"region": "eu"}]),
    reason=st.sampled_from([None, "because"]),
    model=st.sampled_from([None, "openai/gpt-4o"]),
    price_id=st.integers(0, 2),
    margin_bps=st.sampled_from([0, 2000]),
    input_pico=st.integers(0, 2),
    cost_nano=_AMOUNTS,
    input_tokens=_TOKENS,
    output_tokens=_TOKENS,
    cache_read_tokens=_TOKENS,
    cache_write_tokens=_TOKENS,
    cache_write_1h_tokens=st.sampled_from([0, 9]),
    fingerprint=st.sampled_from([b"payload!" + bytes(4), b"payload?" + b"key1"]),
)
_OTHERS = st.sampled_from([log.change(Kind.ADJUSTMENT, -5), log.change(Kind.EXPIRY), log.tick(), log.change(Kind.VOID, -5)])
_OPENINGS = st.sampled_from([[], [], [], [Opening("1", "2", log.POOL, "", "100")]])


@st.composite
def _entry(draw: st.DrawFn, partition: int, seq: int) -> RawEntry:
    records = draw(st.lists(_USAGE, min_size=1, max_size=8)) + draw(st.lists(_OTHERS, max_size=1)) * draw(st.integers(0, 1))
    moved = [msgspec.structs.replace(record, customer_id=record.customer_id * 10 + partition) for record in records]
    if draw(st.booleans()):
        moved = [
            msgspec.structs.replace(record, digest=ids.event_digest(1, record.customer_id, record.event_id))
            if record.event_id is not None
            else record
            for record in moved
        ]
    left_out = draw(st.sampled_from([(), (), (0,)])) if len(moved) > 1 else ()
    accepted_at_ms = draw(st.sampled_from([log.ACCEPTED_MS, log.ACCEPTED_MS + 1, log.ACCEPTED_MS + _HOUR_MS]))
    form = draw(st.sampled_from([usage_log.PACKED, usage_log.ROWS]))
    beside = draw(st.sampled_from([[], [], [], [(0, "0", "3", "9")]]))
    said = {"accepted_at_ms": accepted_at_ms, "beside": beside, "openings": draw(_OPENINGS)}
    return RawEntry(partition, seq, written(moved, left_out, form=form, **said))


@st.composite
def _logs(draw: st.DrawFn) -> list[RawEntry]:
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    return [draw(_entry(partition, seq)) for partition, length in enumerate(lengths) for seq in range(1, length + 1)]


@given(entries=_logs())
def test_any_log_does_the_same_by_columns_and_item_by_item(entries: list[RawEntry]) -> None:
    both_ways(*entries)


@FORMS
def test_usage_that_one_pool_paid_is_read_by_columns(form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_arguments: object, **_options: object) -> None:
        pytest.fail("read in another way")

    for name in ("table", "decode"):
        monkeypatch.setattr(decoding, name, stop)
    records = [log.usage("a", 5, properties={"a": "b"}), log.usage("b", 6), log.usage("c", 9)]
    found = aggregate.effects([RawEntry(0, 1, written(records, (1,), form=form))], NOW)
    assert (found.events, found.pools) == (2, [(1, log.POOL, 1, 0, 14, 0, 0, False)])
    rows = copy_format.rows(found.event_rows, copy_rows.COLUMNS)
    assert [(row["event_id"], row["position"], row["pool_left"]) for row in rows] == [("a", 0, 7), ("c", 1, 8)]


@FORMS
@pytest.mark.parametrize("said", [{"beside": [(0, "5", "0", "1")]}, {"openings": [("1", "1", log.POOL, "", "100")]}])
def test_what_more_than_one_pool_or_none_before_paid_is_read_in_the_general_way(form: int, said: dict[str, Any]) -> None:
    raw = RawEntry(0, 1, written([log.usage("a", 5)], form=form, **said))
    assert not is_plain(raw)
    both_ways(raw)


@FORMS
def test_one_unusual_entry_takes_its_partition_along_and_no_other(form: int) -> None:
    usual = [RawEntry(partition, 1, written([log.usage("a", 5, customer_id=partition)], form=form)) for partition in (1, 2)]
    expiry = RawEntry(1, 2, written([log.change(Kind.EXPIRY)], form=form))
    read, others = plain_usage.read([*usual, expiry], NOW)
    assert (len(read.positions), others) == (1, [usual[0], expiry])
    assert both_ways(*usual, expiry).events == 3


def test_a_customer_in_two_partitions_is_summed_over_both_ways_of_reading() -> None:
    usual = RawEntry(1, 1, written([log.usage("a", 5)]))
    opened = RawEntry(2, 1, written([log.usage("b", 6)], openings=[Opening("1", "1", log.POOL, "", "100")]))
    found = both_ways(usual, opened)
    assert found.pools == [(1, log.POOL, 1, 100, 11, 0, 0, False)]
    assert [(row[3], row[5], row[6]) for row in found.ledger] == [("charge", -11, 2), ("opening", 100, 1)]
    expired = RawEntry(2, 2, written([log.change(Kind.EXPIRY)]))
    assert both_ways(usual, opened, expired).pools == [(1, log.POOL, 1, 100, 11, 0, 0, True)]


def test_accounts_that_differ_in_the_pool_alone_share_an_hours_total() -> None:
    found = both_ways(RawEntry(0, 1, written([log.usage("a", 5), log.usage("b", 6, pool="credits")])))
    assert [(row[6], row[8]) for row in found.hourly] == [(2, 11)]
    assert [(row[1], row[4]) for row in found.pools] == [(log.POOL, 5), ("credits", 6)]


@FORMS
@pytest.mark.parametrize(
    "fields",
    [
        {"amount": -1},
        {"amount": 2**63},
        {"tenant_id": -1},
        {"tenant_id": 2**31},
        {"customer_id": -1},
        {"feature_id": 2**31},
        {"period_start_s": -1},
        {"belongs_to_s": 2**40},
        {"occurred_at_ms": -1},
        {"occurred_at_ms": 253_402_300_799_001},
        {"price_id": -(2**63)},
        {"cache_read_tokens": 2**63},
        {"cost_nano": -(2**63)},
        {"quantity_nano": -(2**63)},
        {"cache_write_1h_tokens": 2**63},
        {"web_searches": 2**31},
        {"pool": "p" * 201},
        {"pool": "p\0"},
        {"event_id": "e\0"},
        {"model": "m\0"},
        {"properties": {"a": "\0"}},
    ],
)
def test_a_value_that_no_column_holds_is_set_aside_as_ever_and_what_is_beside_it_is_not(
    form: int, fields: dict[str, Any]
) -> None:
    bad = msgspec.structs.replace(log.usage("bad", 3), **fields)
    found = both_ways(RawEntry(0, 1, written([log.usage("good", 2), bad], form=form)))
    assert found.events + len(found.quarantined) == 2
    assert found.events >= 1


@FORMS
def test_sums_beyond_64_bits_are_exact(form: int) -> None:
    large = 9 * 10**18
    found = both_ways(RawEntry(0, 1, written([log.usage(name, large) for name in "ab"], form=form)))
    assert (found.hourly[0][8], found.pools[0][4], found.ledger[0][5]) == (2 * large, 2 * large, -2 * large)


def test_what_was_left_may_be_no_number_that_the_book_has() -> None:
    raw = RawEntry(0, 1, written([log.usage("a", 5)], lefts=struct.pack(">q", -(2**63))))
    found = aggregate.effects([raw], NOW)
    assert (found.events, [item.booked for item in found.quarantined]) == (0, [True])


def test_entries_that_are_wrong_in_opposite_ways_are_both_none() -> None:
    entries: list[RawEntry] = []
    for seq, counts in enumerate(([1, 2], [1, 0]), 1):
        unnamed = msgspec.structs.replace(log.usage("b", 6, customer_id=2), event_id=None)
        entry = msgspec.msgpack.decode(written([log.usage("a", 5), unnamed]))
        entry[-1][3][packed_log.Columns.__struct_fields__.index("counts")] = counts
        entries.append(RawEntry(0, seq, msgspec.msgpack.encode(entry)))
    found = aggregate.effects(entries, NOW)
    assert ([item.seq for item in found.quarantined], found.events) == ([1, 2], 0)


@pytest.mark.parametrize("broken", ["counts", "price", "payloads", "amount"])
def test_columns_that_do_not_fit_together_are_no_entry(broken: str) -> None:
    entry = msgspec.msgpack.decode(written([log.usage("a", 5), log.usage("b", 6, price_id=1)]))
    body = entry[-1]
    if broken == "payloads":
        body[1] += b"more"
    else:
        place = packed_log.Columns.__struct_fields__.index(broken)
        body[3][place] = {"counts": [1, 2], "price": [0, 2], "amount": [1, 2, 3]}[broken]
    data = msgspec.msgpack.encode(entry)
    found = aggregate.effects([RawEntry(0, 1, data)], NOW)
    assert [(item.position, item.payload) for item in found.quarantined] == [(None, data)]
    assert (found.events, found.pools) == (0, [])

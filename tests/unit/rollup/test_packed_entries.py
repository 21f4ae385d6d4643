"""Entries by columns and by rows, as the till's script writes them: the same to the rollup as item by item."""

import struct
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import packed_log, usage_log
from tallybook.core.usage_log import Applied, Kind, Opening, Record
from tallybook.rollup import aggregate, copy_rows, decoding
from tallybook.rollup.model import RawEntry
from tests.support import copy_format
from tests.support import log_builder as log

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_FINGERPRINTS = (b"payload!" + bytes(4), b"payload?" + b"key1")


def account_of(record: Record) -> packed_log.Account:
    return packed_log.account(record.tenant_id, record.customer_id, record.feature_id, record.period_start_s, record.pool)


def packed(records: list[Record], left_out: list[int], beside: list[tuple[int, str, str, str]], *openings: Opening) -> bytes:
    """An entry as the script assembles it, where 7 is left after each accepted record."""
    told = packed_log.identities([record.digest for record in records], [record.fingerprint for record in records])
    are_named = all(record.kind == Kind.USAGE and record.event_id is not None for record in records)
    columns = packed_log.pack(records, told, [account_of(record) for record in records], [1] * len(records), are_named=are_named)
    return written(usage_log.PACKED, columns, len(records), left_out, beside, *openings)


def by_rows(records: list[Record], left_out: list[int], beside: list[tuple[int, str, str, str]], *openings: Opening) -> bytes:
    """The same with the records one after the other."""
    return written(usage_log.ROWS, packed_log.pack_rows(records), len(records), left_out, beside, *openings)


def written(
    form: int, body: bytes, count: int, left_out: list[int], beside: list[tuple[int, str, str, str]], *openings: Opening
) -> bytes:
    lefts = struct.pack(f">{count - len(left_out)}q", *[7] * (count - len(left_out)))
    return msgspec.msgpack.encode((form, log.ACCEPTED_MS, left_out, lefts, beside, openings, msgspec.Raw(body)))


FORMS = pytest.mark.parametrize("make", [packed, by_rows], ids=["columns", "rows"])
Make = Callable[..., bytes]
_RECORDS = st.builds(
    log.usage,
    st.sampled_from(["a", "event-1", "event-27", ""]),
    st.integers(0, 10**15),
    customer_id=st.integers(1, 2**40),
    pool=st.sampled_from([log.POOL, "credits", "", "9.f3.5"]),
    matched_by=st.sampled_from([None, "exact"]),
    model=st.sampled_from([None, "openai/gpt-4o"]),
    price_id=st.integers(0, 3),
    input_pico=st.integers(0, 2**40),
    input_tokens=st.integers(0, 10**9),
    output_tokens=st.integers(0, 10**9),
    quantity_nano=st.integers(0, 10**18),
    occurred_at_ms=st.integers(0, 10**12),
    properties=st.sampled_from([None, {"region": "eu"}]),
    fingerprint=st.sampled_from(_FINGERPRINTS),
)
_OTHERS = st.sampled_from(
    [log.change(Kind.ADJUSTMENT, -5), log.change(Kind.EXPIRY), log.tick(), Record(0, 1, 1, b"d" * 16, "p", 0)]
)


@FORMS
@given(records=st.lists(st.one_of(_RECORDS, _OTHERS), min_size=1, max_size=20), data=st.data())
def test_what_is_packed_comes_out_again_and_only_what_was_accepted(
    make: Make, records: list[Record], data: st.DataObject
) -> None:
    left_out = sorted(data.draw(st.sets(st.integers(0, len(records) - 1), max_size=len(records) - 1)))
    entry = usage_log.decode_entry(make(records, left_out, []))
    kept = [record for place, record in enumerate(records) if place not in left_out]
    assert entry.applied == [Applied(record, "", "7", "0") for record in kept]


@FORMS
@given(records=st.lists(_RECORDS, min_size=1, max_size=20))
def test_the_rollup_does_the_same_as_with_items(make: Make, records: list[Record]) -> None:
    opening = Opening("1", "1", log.POOL, "", "9007199254740993")
    data = make(records, [0], [], opening) if len(records) > 1 else make(records, [], [], opening)
    raw = RawEntry(0, 1, data)
    plain = RawEntry(0, 1, msgspec.msgpack.encode(usage_log.decode_entry(data)))
    assert decoding.table([raw]) is not None
    assert aggregate.effects([raw], NOW) == aggregate.effects([plain], NOW)


@FORMS
def test_no_record_is_made_of_what_can_be_taken_by_columns(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_arguments: object, **_options: object) -> None:
        pytest.fail("taken apart item by item")

    monkeypatch.setattr(decoding, "decode", decode)
    assert aggregate.effects([RawEntry(0, 1, make([log.usage("a", 5), log.usage("b", 6)], [0], []))], NOW).events == 1


@FORMS
def test_what_does_not_fit_numbers_stands_beside_in_text(make: Make) -> None:
    large = str(4 * 10**18)
    data = make([log.usage("a", 5), log.usage("b", 5)], [], [(1, "3", large, "")])
    first, second = usage_log.decode_entry(data).applied
    assert (first.left, first.outcome, first.spare_left) == ("7", "", "0")
    assert (second.left, second.outcome, second.spare_left) == ("", "3", large)
    rows = copy_format.rows(aggregate.effects([RawEntry(0, 1, data)], NOW).event_rows, copy_rows.COLUMNS)
    assert [(row["pool_left"], row["spare_left"]) for row in rows if row["position"] == 1] == [(0, int(large))]


@FORMS
@pytest.mark.parametrize(
    ("left_out", "beside"), [([5, 6], []), ([0, 1, 2, 3, 4, 5, 6], []), ([], [(9, "", "0", "1")]), ([], [(-1, "", "0", "1")])]
)
def test_parts_that_do_not_fit_together_are_no_entry_and_go_to_quarantine_whole(
    make: Make, left_out: list[int], beside: list[tuple[int, str, str, str]]
) -> None:
    data = make([log.usage("a", 5)], [], [])
    broken = msgspec.msgpack.decode(data)
    broken[2], broken[4] = left_out, beside
    if left_out:
        broken[3] = bytes(16)
    data = msgspec.msgpack.encode(broken)
    with pytest.raises(msgspec.MsgspecError):
        usage_log.decode_entry(data)
    found = aggregate.effects([RawEntry(0, 1, data)], NOW)
    assert [(item.position, item.payload) for item in found.quarantined] == [(None, data)]
    assert (found.events, found.pools) == (0, [])


def test_parts_that_add_up_to_more_than_64_bits_go_to_quarantine_whole() -> None:
    """Fails when they stop the pass, and with it every partition of its worker."""
    entry = usage_log.decode_written(packed([log.usage("a", 5), log.usage("b", 6)], [], []))
    assert isinstance(entry.body, packed_log.Packed)
    columns = msgspec.structs.replace(entry.body.columns, occurred_from_ms=2**63, occurred_ms=2**63)
    body = msgspec.structs.replace(entry.body, columns=columns)
    data = msgspec.msgpack.encode(msgspec.structs.replace(entry, body=body))
    found = aggregate.effects([RawEntry(0, 1, data), log.raw(1, [log.usage("good", 4)], partition=1)], NOW)
    assert [(item.position, item.payload, item.booked) for item in found.quarantined] == [(None, data, False)]
    assert (found.events, found.pools[0][4]) == (1, 4)


@FORMS
def test_a_packed_record_that_cannot_be_stored_is_quarantined_alone_and_its_pool_is_charged(make: Make) -> None:
    found = aggregate.effects([RawEntry(0, 4, make([log.usage("good", 2), log.usage("nul\0", 3)], [], []))], NOW)
    assert (found.events, found.pools[0][4]) == (1, 5)
    assert [(item.position, item.booked) for item in found.quarantined] == [(1, True)]
    assert msgspec.msgpack.decode(found.quarantined[0].payload)[0][5] == 3

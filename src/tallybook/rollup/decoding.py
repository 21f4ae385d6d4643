"""Log bytes to records, one quarantine row for each thing that is none. Pure."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from tallybook.core import clock, usage_log
from tallybook.core.usage_log import Applied, Entry, Opening, Record, Written
from tallybook.rollup import copy_rows, rules
from tallybook.rollup.model import Quarantined, RawEntry

OpeningRow = tuple[int, int, int, int, str, int]
"""seq, accepted_at_ms, tenant, customer, pool, change of the opening amount."""


class UnstorableError(Exception):
    """Some record holds a value that its column cannot; the columns do not say which."""


class _LooseEntry(msgspec.Struct, array_like=True, frozen=True):
    """An entry whose items are not decoded yet, so that one bad item does not take its neighbours along."""

    version: int
    accepted_at_ms: int
    applied: list[msgspec.Raw]
    openings: list[msgspec.Raw]


_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, OverflowError)
"""What bytes raise that are no entry, or none any more, or whose parts add up to more than 64 bits."""
_decode_loose = msgspec.msgpack.Decoder(_LooseEntry).decode
_decode_applied = msgspec.msgpack.Decoder(Applied).decode
_decode_opening = msgspec.msgpack.Decoder(Opening).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Decoded:
    """Parallel lists, one place a record. `kept` is False where only the effect on the pool can be booked."""

    records: list[Record] = field(default_factory=list[Record])
    outcomes: list[str] = field(default_factory=list[str])
    lefts: list[str] = field(default_factory=list[str])
    spare_lefts: list[str] = field(default_factory=list[str])
    kept: list[bool] = field(default_factory=list[bool])
    partitions: list[int] = field(default_factory=list[int])
    seqs: list[int] = field(default_factory=list[int])
    positions: list[int] = field(default_factory=list[int])
    accepted_ms: list[int] = field(default_factory=list[int])
    openings: list[OpeningRow] = field(default_factory=list[OpeningRow])
    quarantined: list[Quarantined] = field(default_factory=list[Quarantined])
    last_accepted_ms: dict[int, int] = field(default_factory=dict[int, int])
    """By partition: when the till took the last readable entry."""
    oldest_accepted_ms: int | None = None


@dataclass(slots=True)
class Table:
    """What entries written by the script hold, by column: the fields of `Record`, and those of `Decoded` beside its records."""

    fields: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in Record.__struct_fields__})
    outcomes: list[int] = field(default_factory=list[int])
    lefts: list[int] = field(default_factory=list[int])
    spare_lefts: list[int] = field(default_factory=list[int])
    beside: Decoded = field(default_factory=Decoded)
    """All but records, outcomes and what is left."""


def table(entries: Iterable[RawEntry]) -> Table | None:
    """The entries by column, without a record being made; None when one of them has to be looked at piece by piece."""
    found = Table()
    for raw in entries:
        if not usage_log.is_written(raw.data):
            return None
        try:
            entry = usage_log.decode_written(raw.data)
            if not rules.arrival_is_plausible(entry.accepted_at_ms):
                return None
            _add(raw, entry, found)
        except (*_UNREADABLE, _UnclearError):
            return None
    return found


class _UnclearError(Exception):
    """A text is no amount."""


def _add(raw: RawEntry, entry: Written, found: Table) -> None:
    places, count = entry.places(), len(entry)
    lefts, outcomes, spare_lefts = list(entry.left()), [0] * count, [0] * count
    for number, *texts in entry.beside:
        outcome, spare_left, left = map(rules.amount, texts)
        if outcome is None or spare_left is None or left is None or not 0 <= number < count:
            raise _UnclearError
        outcomes[number], spare_lefts[number], lefts[number] = outcome, spare_left, left
    for name, values in entry.fields().items():
        found.fields[name] += [values[place] for place in places] if entry.left_out else values
    found.outcomes += outcomes
    found.lefts += lefts
    found.spare_lefts += spare_lefts
    found.beside.kept += [True] * count
    found.beside.positions += range(count)
    _take_place(raw, entry.accepted_at_ms, count, found.beside)
    _note_arrival(raw, entry.accepted_at_ms, found.beside)
    for index, opening in enumerate(entry.openings):
        _take_opening(raw, entry.accepted_at_ms, index, opening, found.beside)


def by_column(decoded: Decoded) -> Table:
    """The same by column. Raises UnstorableError when a text is no amount."""
    columns = zip(*map(msgspec.structs.astuple, decoded.records), strict=True)
    fields = {name: list(values) for name, values in zip(Record.__struct_fields__, columns, strict=False)}
    outcomes, lefts, spare_lefts = map(_amounts, (decoded.outcomes, decoded.lefts, decoded.spare_lefts))
    return Table(fields or Table().fields, outcomes, lefts, spare_lefts, decoded)


def _amounts(texts: Iterable[str]) -> list[int]:
    found = [rules.amount(text) for text in texts]
    if None in found:
        raise UnstorableError
    return cast("list[int]", found)


def decode(entries: Iterable[RawEntry], *, distrust: bool = False) -> Decoded:
    """All records of the entries in log order.

    With `distrust` every single record is checked against what the book can hold; without it only the shape is, and
    the caller checks the columns at once, which costs a fraction.
    """
    decoded = Decoded()
    for raw in entries:
        try:
            entry = None if distrust else usage_log.decode_entry(raw.data)
        except _UNREADABLE:
            entry = None
        if entry is None or not _is_current(entry.version, entry.accepted_at_ms):
            _decode_piecewise(raw, decoded)
        else:
            _take_entry(raw, entry, decoded)
    return decoded


def decode_item(item: Quarantined) -> Decoded:
    """What was quarantined, decoded anew; what still is no record is in `quarantined` again."""
    if item.position is None:
        return decode([RawEntry(item.partition, item.seq, item.payload)], distrust=True)
    assert item.accepted_at is not None
    payload = [msgspec.Raw(item.payload)]
    applied, openings = (payload, None) if item.position >= 0 else (None, payload)
    data = msgspec.msgpack.encode((usage_log.PLAIN, clock.to_ms(item.accepted_at), applied or (), openings or ()))
    decoded = decode([RawEntry(item.partition, item.seq, data)], distrust=True)
    decoded.positions = [item.position] * len(decoded.positions)
    decoded.quarantined = [dataclasses.replace(again, position=item.position) for again in decoded.quarantined]
    return decoded


def customers_of(item: Quarantined) -> set[int] | None:
    """Whose pools an item changes; None when that can't be told of all of it."""
    decoded = decode_item(item)
    if any(not again.booked for again in decoded.quarantined):
        return None
    return {record.customer_id for record in decoded.records} | {opening[3] for opening in decoded.openings}


def _is_current(version: int, accepted_at_ms: int) -> bool:
    return version == usage_log.PLAIN and rules.arrival_is_plausible(accepted_at_ms)


def _take_entry(raw: RawEntry, entry: Entry, decoded: Decoded) -> None:
    count = len(entry.applied)
    decoded.records += [applied.record for applied in entry.applied]
    decoded.outcomes += [applied.outcome for applied in entry.applied]
    decoded.lefts += [applied.left for applied in entry.applied]
    decoded.spare_lefts += [applied.spare_left for applied in entry.applied]
    decoded.kept += [True] * count
    decoded.positions += range(count)
    _take_place(raw, entry.accepted_at_ms, count, decoded)
    _note_arrival(raw, entry.accepted_at_ms, decoded)
    for index, opening in enumerate(entry.openings):
        _take_opening(raw, entry.accepted_at_ms, index, opening, decoded)


def _take_place(raw: RawEntry, accepted_at_ms: int, count: int, decoded: Decoded) -> None:
    decoded.partitions += [raw.partition] * count
    decoded.seqs += [raw.seq] * count
    decoded.accepted_ms += [accepted_at_ms] * count


def _note_arrival(raw: RawEntry, accepted_at_ms: int, decoded: Decoded) -> None:
    decoded.last_accepted_ms[raw.partition] = accepted_at_ms
    if decoded.oldest_accepted_ms is None or accepted_at_ms < decoded.oldest_accepted_ms:
        decoded.oldest_accepted_ms = accepted_at_ms


def _take_opening(raw: RawEntry, accepted_at_ms: int, index: int, opening: Opening, decoded: Decoded) -> None:
    old, new = rules.amount(opening.old), rules.amount(opening.new)
    tenant, customer = rules.amount(opening.tenant_id), rules.amount(opening.customer_id)
    unnamed = "\0" in opening.pool or not 0 < len(opening.pool) <= rules.POOL_NAME_MAX
    if unnamed or old is None or new is None or not tenant or not customer or not 0 < tenant <= rules.INT32_MAX or customer < 0:
        payload = msgspec.msgpack.encode(opening)
        moment = clock.from_ms(accepted_at_ms)
        decoded.quarantined.append(Quarantined(raw.partition, raw.seq, -1 - index, "opening is no opening", payload, moment))
    else:
        decoded.openings.append((raw.seq, accepted_at_ms, tenant, customer, opening.pool, new - old))


def _decode_piecewise(raw: RawEntry, decoded: Decoded) -> None:
    try:
        entry = _loosened(raw.data)
    except _UNREADABLE as error:
        decoded.quarantined.append(Quarantined(raw.partition, raw.seq, None, f"no log entry: {error}", raw.data))
        return
    if not _is_current(entry.version, entry.accepted_at_ms):
        reason = f"version {entry.version} accepted at {entry.accepted_at_ms} is not read here"
        decoded.quarantined.append(Quarantined(raw.partition, raw.seq, None, reason, raw.data))
        return
    _note_arrival(raw, entry.accepted_at_ms, decoded)
    for position, item in enumerate(entry.applied):
        _take_distrusted(raw, entry.accepted_at_ms, position, bytes(item), decoded)
    for index, item in enumerate(entry.openings):
        try:
            opening = _decode_opening(item)
        except _UNREADABLE as error:
            reason = f"no opening: {error}"
            moment = clock.from_ms(entry.accepted_at_ms)
            decoded.quarantined.append(Quarantined(raw.partition, raw.seq, -1 - index, reason, bytes(item), moment))
        else:
            _take_opening(raw, entry.accepted_at_ms, index, opening, decoded)


def _loosened(data: bytes) -> _LooseEntry:
    """An entry in either form, with its items still to be decoded. Raises msgspec.MsgspecError for what is no entry."""
    if not usage_log.is_written(data):
        return _decode_loose(data)
    entry = usage_log.decode_entry(data)
    applied, openings = ([msgspec.Raw(_encode(item)) for item in items] for items in (entry.applied, entry.openings))
    return _LooseEntry(entry.version, entry.accepted_at_ms, applied, openings)


def _take_distrusted(raw: RawEntry, accepted_at_ms: int, position: int, item: bytes, decoded: Decoded) -> None:
    """Book the record, or its effect on the pool alone, or nothing; what is not booked whole is quarantined whole."""
    moment = clock.from_ms(accepted_at_ms)
    try:
        applied = _decode_applied(item)
    except _UNREADABLE as error:
        decoded.quarantined.append(Quarantined(raw.partition, raw.seq, position, f"no record: {error}", item, moment))
        return
    record = applied.record
    unknown_effect = rules.effect_problem(record, applied.outcome)
    reason = unknown_effect or rules.detail_problem(record) or rules.memory_problem(applied) or copy_rows.refusal(record)
    if reason is not None:
        booked = unknown_effect is None
        decoded.quarantined.append(Quarantined(raw.partition, raw.seq, position, reason, item, moment, booked))
        record = Record(record.kind, record.tenant_id, record.customer_id, b"", record.pool, record.amount)
    if unknown_effect is None:
        decoded.records.append(record)
        decoded.outcomes.append(applied.outcome)
        decoded.lefts.append(applied.left if reason is None else "")
        decoded.spare_lefts.append(applied.spare_left if reason is None else "")
        decoded.kept.append(reason is None)
        decoded.positions.append(position)
        _take_place(raw, accepted_at_ms, 1, decoded)

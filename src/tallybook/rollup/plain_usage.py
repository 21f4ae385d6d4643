"""Usage of the usual kind: from the log's columns to those of the book, without an object a record. Pure.

Nearly all of a log is usage that one pool paid, in a form that the script writes. `read` takes the partitions that hold nothing else, and
leaves the others to `decoding`. What was read may still hold a value that no column can.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple, cast

import msgspec

from tallybook.core import ids, money, packed_log, usage_log
from tallybook.core.packed_log import Columns, Packed, pieces, spread
from tallybook.core.records import DIGEST_BYTES, IDEMPOTENCY_BYTES, PAYLOAD_BYTES, Kind, Record
from tallybook.core.usage_log import Written
from tallybook.rollup import copy_rows, rules
from tallybook.rollup.model import RawEntry

Account = tuple[int, int, int, int, str]
"""tenant, customer, feature, period_start_s, pool."""
_NO_DIGEST = bytes(DIGEST_BYTES)
_FINGERPRINT_BYTES = PAYLOAD_BYTES + IDEMPOTENCY_BYTES
_account_of, _price_of, _rare_of = (attrgetter(*names) for names in (copy_rows.ACCOUNT_OF, copy_rows.PRICE_OF, copy_rows.RARE_OF))
_said_of = attrgetter(*packed_log.Account._fields)
_WHO = copy_rows.ACCOUNT_OF[:-1]
_kind_of = attrgetter("kind")
_MEASURES = ("amount", "cost_nano", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_measures_of = attrgetter(*_MEASURES)
_INPUTS = _MEASURES.index("input_tokens")
_own_of = attrgetter("price_id", "occurred_at_ms", "quantity_nano", *_MEASURES, "digest", "fingerprint", "event_id")


class UnusualError(Exception):
    """Something that has to be looked at piece by piece."""


class Own(NamedTuple):
    """What records say, a value each. `account` is its number; `middle` is what a row of the book says behind the account.

    `quantity_beyond` is the quantity less the tokens in and out, as in the log's columns.
    """

    account: Sequence[int]
    middle: Sequence[bytes]
    price_id: Sequence[int]
    occurred_us: Sequence[int]
    quantity_beyond: Sequence[int]
    amount: Sequence[int]
    cost_nano: Sequence[int]
    input_tokens: Sequence[int]
    output_tokens: Sequence[int]
    cache_read_tokens: Sequence[int]
    cache_write_tokens: Sequence[int]
    digest: Sequence[bytes]
    fingerprint: Sequence[bytes]
    event_id: Sequence[str | None]


class _Numbers(dict[Account, int]):
    """Numbers of accounts from 0 on, in the order they come."""

    def __init__(self) -> None:
        super().__init__()
        self.digests: list[Callable[[str], bytes]] = []
        """By number, what makes identities of event ids."""

    def __missing__(self, account: Account) -> int:
        number = self[account] = len(self)
        self.digests.append(ids.event_digests(*account[:2]))
        return number


class _Said(dict[tuple[Any, ...], int]):
    """The same by accounts as a table of accounts says them."""

    def __init__(self, numbers: _Numbers) -> None:
        super().__init__()
        self._numbers = numbers

    def __missing__(self, said: tuple[Any, ...]) -> int:
        account = packed_log.Account(*said)
        pool = packed_log.whole_pool(account.pool_of, account.pool, account.period_start_s)
        number = self[said] = self._numbers[(*said[: len(_WHO)], pool)]
        return number


class Usage:
    """What was read, by accepted record: the columns of `Own`, places in entries, what was left, when the entries were accepted."""

    def __init__(self, rolled_at: datetime) -> None:
        self.columns: tuple[list[Any], ...] = tuple([] for _ in Own._fields)
        self.positions: list[int] = []
        self.lefts: list[int] = []
        self.accepted_ms: list[int] = []
        self.last_accepted_ms: dict[int, int] = {}
        """By partition."""
        self.accounts = _Numbers()
        self._said = _Said(self.accounts)
        self._prices = copy_rows.Made(copy_rows.price)
        self._rares = copy_rows.Made(_rare)
        self._rolled = copy_rows.moment(rolled_at)

    @property
    def own(self) -> Own:
        """The columns by name."""
        return Own(*self.columns)

    def add(self, raw: RawEntry, entry: Written) -> None:
        """Take a usual entry. Raises UnusualError, and whatever values raise that are not as they must be."""
        places, body = entry.places(), entry.body
        came = copy_rows.entry(raw.partition, raw.seq, entry.accepted_at_ms) + self._rolled
        own = self._of_packed(body, came) if isinstance(body, Packed) else self._of_rows(body or [], came)
        for column, values in zip(self.columns, own, strict=True):
            column.extend([values[place] for place in places] if entry.left_out else values)
        self.positions += range(len(places))
        self.lefts += entry.left()
        self.accepted_ms += [entry.accepted_at_ms] * len(places)
        self.last_accepted_ms[raw.partition] = entry.accepted_at_ms

    def _of_packed(self, body: Packed, came: bytes) -> Own:
        count, columns = len(body), body.columns
        if _NO_DIGEST in body.digests:
            raise UnusualError
        accounts, event_ids = self._accounts(columns, count), _event_ids(columns, count)
        price_ids, middles = self._priced(columns, count, came)
        first_us = copy_rows.micros(columns.occurred_from_ms)
        amounts, costs, inputs, outputs, cache_reads, cache_writes = (spread(column, count) for column in _measures_of(columns))
        return Own(
            accounts,
            middles,
            price_ids,
            [first_us + 1000 * ms for ms in spread(columns.occurred_ms, count)],
            spread(columns.quantity_beyond, count),
            amounts,
            costs,
            inputs,
            outputs,
            cache_reads,
            cache_writes,
            pieces(body.digests, DIGEST_BYTES, count) if body.digests else self._named(accounts, event_ids),
            _fingerprints(body, count),
            event_ids,
        )

    def _accounts(self, columns: Columns, count: int) -> Sequence[int]:
        counts = columns.counts
        many = len(counts) if isinstance(counts, list) else count // max(counts, 1)
        numbers = list(map(self._said.__getitem__, _rows(_said_of(columns.accounts), many)))
        if counts != 1:
            numbers = [number for number, repeats in zip(numbers, spread(counts, many), strict=True) for _ in range(repeats)]
        if len(numbers) != count:
            raise UnusualError
        return numbers

    def _named(self, accounts: Sequence[int], event_ids: Sequence[str | None]) -> list[bytes]:
        """The identities of records that are named, by numbers of accounts and event ids."""
        if None in event_ids:
            raise UnusualError
        digests = self.accounts.digests
        return [digests[number](event_id) for number, event_id in zip(accounts, cast("Sequence[str]", event_ids), strict=True)]

    def _priced(self, columns: Columns, count: int, came: bytes) -> tuple[Sequence[int], Sequence[bytes]]:
        """By record the price row, and the middle of the book's row."""
        table = _price_of(columns.prices)
        places: list[int] = spread(columns.price, count)
        prices = list(_rows(table, max(map(_length, table))))
        price_ids, rare = [price[0] for price in prices], _rare_of(columns)
        priced = [self._prices[price] + came for price in prices]
        if list in map(type, rare):
            rares = [self._rare(*one) for one in _rows(rare, count)]
            return [price_ids[place] for place in places], [priced[place] + one for place, one in zip(places, rares, strict=True)]
        shared = self._rare(*rare)
        middles = [beginning + shared for beginning in priced]
        return [price_ids[place] for place in places], [middles[place] for place in places]

    def _rare(self, belongs_to_s: int, properties: dict[str, str] | None, *others: Any) -> bytes:  # noqa: ANN401 - as in Record
        return self._rares[(belongs_to_s, copy_rows.json_of(properties), *others)]

    def _of_rows(self, records: Sequence[Record], came: bytes) -> Own:
        if {len(record.digest) for record in records} != {DIGEST_BYTES}:
            raise UnusualError
        if {len(record.fingerprint) for record in records} != {_FINGERPRINT_BYTES}:
            raise UnusualError
        prices, rares = map(_price_of, records), map(_rare_of, records)
        middles = [self._prices[price] + came + self._rare(*rare) for price, rare in zip(prices, rares, strict=True)]
        accounts, columns = map(self.accounts.__getitem__, map(_account_of, records)), zip(*map(_own_of, records), strict=True)
        price_ids, occurred_ms, quantities, *others = columns
        occurred_us = list(map(copy_rows.micros, occurred_ms))
        taken, given = others[_INPUTS], others[_INPUTS + 1]
        beyond = [quantity - (one + other) * money.NANO for quantity, one, other in zip(quantities, taken, given, strict=True)]
        return Own(list(accounts), middles, price_ids, occurred_us, beyond, *others)


def read(entries: Iterable[RawEntry], rolled_at: datetime) -> tuple[Usage, list[RawEntry]]:
    """What the partitions hold that hold nothing unusual, and the entries of the others.

    Raises UnusualError, msgspec.MsgspecError and others when a value is not as it must be.
    """
    usage, rest = Usage(rolled_at), list[RawEntry]()
    by_partition: dict[int, list[RawEntry]] = {}
    for raw in entries:
        by_partition.setdefault(raw.partition, []).append(raw)
    for raws in by_partition.values():
        found = [(raw, entry) for raw in raws if (entry := _usual(raw.data)) is not None]
        if len(found) < len(raws):
            rest += raws
        else:
            for raw, entry in found:
                usage.add(raw, entry)
    return usage, rest


def _usual(data: bytes) -> Written | None:
    """The entry if it holds nothing but usage that one pool paid."""
    if not usage_log.is_written(data):
        return None
    try:
        entry = usage_log.decode_written(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    body = entry.body
    if body is None or not len(entry) or entry.beside or entry.openings or not rules.arrival_is_plausible(entry.accepted_at_ms):
        return None
    is_usage = body.columns.kind == Kind.USAGE if isinstance(body, Packed) else not any(map(_kind_of, body))
    return entry if is_usage else None


def _rows(columns: Iterable[Any], count: int) -> Iterator[tuple[Any, ...]]:
    """Columns of an entry as rows; raises ValueError when they are not as long."""
    lists: list[list[Any]] = [column if type(column) is list else [column] * count for column in columns]
    return zip(*lists, strict=True)


def _length(column: Any) -> int:  # noqa: ANN401 - a column of any type
    return len(cast("list[Any]", column)) if type(column) is list else 1


def _rare(belongs_to_s: int, properties: bytes | None, *others: Any) -> bytes:  # noqa: ANN401 - as `Usage._rare` has them
    if not 0 <= belongs_to_s <= rules.MOMENT_MS_MAX // 1000:
        raise UnusualError
    return copy_rows.rare(Kind.USAGE, belongs_to_s, properties, *others, spare_left=0, spare_amount=0)


def _fingerprints(body: Packed, count: int) -> list[bytes]:
    """Without an Idempotency-Key only the first bytes of each: a row is filled with zeros."""
    payloads = pieces(body.payloads, PAYLOAD_BYTES, count)
    if not body.keys:
        return payloads
    return [payload + key for payload, key in zip(payloads, pieces(body.keys, IDEMPOTENCY_BYTES, count), strict=True)]


def _event_ids(columns: Columns, count: int) -> Sequence[str | None]:
    rests, prefix = spread(columns.event_id, count), columns.id_prefix
    return [None if rest is None else prefix + rest for rest in rests] if prefix else rests

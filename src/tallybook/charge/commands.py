"""What one request asks of the till, and what the till answers. Plain values; the script in `charge.lua` gives them meaning."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# msgpack carries no types; `unpack` below is its only user.

import hashlib
import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import islice
from typing import NamedTuple, cast

import msgpack
import msgspec

from tallybook.charge import identities, states
from tallybook.charge.identities import NO_KEY
from tallybook.core import packed_log, usage_log

FINGERPRINT_BYTES = usage_log.PAYLOAD_BYTES
IDEMPOTENCY_BYTES = usage_log.IDEMPOTENCY_BYTES
_HEAD_BYTES = FINGERPRINT_BYTES + IDEMPOTENCY_BYTES


class Outcome(IntEnum):
    """How the till settled one command. The numbers are the script's."""

    ACCEPTED = 0
    DUPLICATE = 1
    """The identity is known with the same payload; the receipt is the original's."""
    CONFLICT = 2
    """The identity is known with another payload; the receipt is the original's."""
    REFUSED = 3
    """The pool does not cover it and blocks. Nothing was recorded."""
    STALE = 4
    """Priced with terms that have changed since. Nothing was recorded."""
    LIMIT = 5
    """The pool would leave the range in which it is exact (4e18). Nothing was recorded."""
    FROZEN = 6
    """The customer's pools did not reconcile and take nothing until somebody thaws them. Nothing was recorded."""


class Charge(msgspec.Struct, frozen=True, gc=False):
    """One command to the till: a usage event, or a change of a pool.

    `amount` is signed, in 1e-9 of the pool's unit: what is added to the pool, so usage is negative. `opening` is what the terms grant
    the pool. `blocks`: the pool may not be left below zero. `spare_pool` pays what `pool` can't, or is ""; a void gives `for_spare` back
    to it, and an adjustment, which must be negative then, takes from it before it takes from `pool`. `is_named`: the record's identity is
    that of its event id, so the log need not repeat it.
    """

    partition: int
    record: usage_log.Record
    amount: int
    opening: int = 0
    blocks: bool = False
    spare_pool: str = ""
    tenant_version: int = 0
    customer_version: int = 0
    for_spare: int = 0
    is_named: bool = False


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The till's answer to one command. Amounts are 1e-9 of the pool's unit.

    `found` is what the script met while applying it: for usage the part that the spare pool paid (a void: got, an adjustment: gave,
    both negative), for SET and EXPIRY what was left before. For DUPLICATE and CONFLICT all fields but `outcome` tell of the original;
    `same_request` says that it came with the same idempotency key.
    """

    outcome: Outcome
    amount: int
    left: int = 0
    spare_left: int = 0
    found: int = 0
    accepted_at_ms: int = 0
    same_request: bool = False
    reason: str = ""
    """Why a customer is frozen; it names the pool."""


def pack(charges: Sequence[Charge]) -> tuple[bytes, bytes]:
    """The script's arguments for the charges of one partition: runs of what they have in common but for the amounts, and their records.

    They keep their order: of two charges in one call, the first may make the other one stale, or leave it nothing. Few records go
    into the log as rows, many by columns.
    """
    records = [charge.record for charge in charges]
    heads, counts = _runs(charges)
    amounts = [charge.amount for charge in charges]
    told = packed_log.identities([record.digest for record in records], [record.fingerprint for record in records])
    if len(records) > ROWS_MAX:
        are_named = all(charge.is_named for charge in charges)
        body = packed_log.pack(records, told, [head.account for head in heads], counts, are_named=are_named)
        form = usage_log.PACKED
    else:
        body, form = packed_log.pack_rows(records), usage_log.ROWS
    numbers = struct.pack(f">BI{len(amounts)}q", form, len(amounts), *amounts)
    return b"".join((numbers, told.packed(), *_who(heads), *_in_words(heads, counts, amounts))), body


def _runs(charges: Sequence[Charge]) -> tuple[list["_Head"], list[int]]:
    """What follows each other and differs in the amount alone, and how often it does."""
    heads: list[_Head] = []
    counts: list[int] = []
    last: _Head | None = None
    for charge in charges:
        record = charge.record
        common = (
            record.customer_id,
            record.tenant_id,
            record.pool,
            record.kind,
            record.feature_id,
            record.period_start_s,
            charge.tenant_version,
            charge.customer_version,
            charge.blocks,
            charge.opening,
            charge.spare_pool,
            charge.for_spare,
        )
        head = _heads.get(common) or _head_of(common)
        if head is last:
            counts[-1] += 1
        else:
            heads.append(head)
            counts.append(1)
            last = head
    return heads, counts


def _who(heads: Sequence["_Head"]) -> list[bytes]:
    """Whom the runs are of: fields of the partition's states, and which of them is whose.

    How many runs, tenants and terms there are (2 bytes each), and whether runs share customers; the customer of each run, then the tenants;
    of each terms the place of the tenant and the version; then the place of each run's customer if they share some, and which
    terms each run was priced with if there are several.
    """
    customers, terms = [head.customer for head in heads], dict.fromkeys([head.terms for head in heads])
    tenants: dict[bytes, int] = {}
    versions = [
        _TERMS.pack(tenants.setdefault(tenant, len(heads) + len(tenants) + 1), version >> 32, version & _LOW)
        for tenant, version in terms
    ]
    shared = len(set(customers)) < len(customers)
    found = [_COUNTS.pack(len(heads), len(tenants), len(terms), shared), *customers, *tenants, *versions]
    if shared:
        places: dict[bytes, int] = {}
        found.append(_numbers([places.setdefault(name, place) for place, name in enumerate(customers, 1)]))
    if len(terms) > 1:
        numbers = {one: number for number, one in enumerate(terms, 1)}
        found.append(_numbers([numbers[head.terms] for head in heads]))
    return found


def _numbers(numbers: Sequence[int]) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


_COUNTS = struct.Struct(">HHHB")
_TERMS = struct.Struct(">HHI")
_LOW = 2**32 - 1


def _in_words(heads: Sequence["_Head"], counts: Sequence[int], amounts: Sequence[int]) -> list[bytes]:
    """The runs. One with an amount that is too large for the script's numbers says its amounts again, in text."""
    runs = zip(heads, counts, strict=True)
    if _are_numbers(amounts):
        return [head.once if count == 1 else _run(count, head) for head, count in runs]
    rest = iter(amounts)
    return [_run_of(head, list(islice(rest, count))) for head, count in runs]


def _are_numbers(amounts: Sequence[int]) -> bool:
    return max(amounts) <= _AMOUNT_MAX and min(amounts) >= -_AMOUNT_MAX


def _run_of(head: "_Head", amounts: Sequence[int]) -> bytes:
    if _are_numbers(amounts):
        return _run(len(amounts), head)
    return _run(len(amounts), head, _HAS_TEXTS) + b"".join(_short(str(amount)) for amount in amounts)


def _run(count: int, head: "_Head", more: int = 0) -> bytes:
    return count.to_bytes(2, "big") + bytes((head.kind, head.flags | more)) + head.words


ROWS_MAX = 16
"""Up to here records go as rows: columns take 15 µs more a call and partition, and down to half the bytes."""
_Common = tuple[int, int, str, int, int, int, int, int, bool, int, str, int]
_AMOUNT_MAX = 2**53 - 1
"""Up to here the script takes amounts as numbers."""
_HEADS_MAX = 50_000


_BLOCKS, _HAS_SPARE, _HAS_TEXTS = 1, 2, 4


class _Head(NamedTuple):
    """What a run says of its charges, the whole run when it is one charge, and the account of its records in the log."""

    customer: bytes
    terms: tuple[bytes, int]
    kind: int
    flags: int
    words: bytes
    once: bytes
    account: packed_log.Account


_heads: dict[_Common, _Head] = {}
"""Customers come again and again; it is emptied when it has `_HEADS_MAX`."""


def _head_of(common: _Common) -> _Head:
    if len(_heads) >= _HEADS_MAX:
        _heads.clear()
    head = _heads[common] = _make_head(common)
    return head


def _make_head(common: _Common) -> _Head:
    customer_id, tenant_id, pool, kind, feature_id, period_start_s = common[:6]
    tenant_version, customer_version, blocks, opening, spare_pool, for_spare = common[6:]
    words = _short(states.beginning(customer_version, pool, opening))
    flags = _BLOCKS if blocks else 0
    if spare_pool:
        flags |= _HAS_SPARE
        words += _short(spare_pool) + _short(str(for_spare))
    terms = (_short(states.tenant_field(tenant_id)), tenant_version)
    account = packed_log.account(tenant_id, customer_id, feature_id, period_start_s, pool)
    once = b"\0\1" + bytes((kind, flags)) + words
    return _Head(_short(states.customer_field(customer_id)), terms, kind, flags, words, once, account)


def _short(text: str) -> bytes:
    """Text that begins with its length."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


Answer = tuple[int, int, bytes, list[tuple[int, bytes, bytes, bytes]], list[list[int | bytes]]]
"""Of one partition: its sequence or 0, its time in ms, what is left after each accepted charge, those of them whose outcome or rest is
not as usual (number, outcome, spare rest, rest in text), and the charges that were not accepted (place, status, more)."""


def unpack(reply: bytes) -> list[Answer]:
    """The script's reply, partition by partition."""
    return cast("list[Answer]", msgpack.unpackb(reply, raw=True))


def receipts(charges: Sequence[Charge], answer: Answer) -> list[Receipt]:
    """What the answer says of each charge, in the order they were sent."""
    _sequence, now_ms, lefts, beside, others = answer
    not_accepted = {int(other[0]): other for other in others}
    accepted = [charge for place, charge in enumerate(charges) if place not in not_accepted] if others else charges
    left = struct.unpack(f">{len(accepted)}q", lefts)
    found = [Receipt(_ACCEPTED, charge.amount, rest, 0, 0, now_ms) for charge, rest in zip(accepted, left, strict=True)]
    for number, outcome, spare_left, text in beside:
        found[number] = Receipt(_ACCEPTED, found[number].amount, _amount(text), _amount(spare_left), _amount(outcome), now_ms)
    if not others:
        return found
    rest = iter(found)
    return [
        _other(charge, not_accepted[place], now_ms) if place in not_accepted else next(rest)
        for place, charge in enumerate(charges)
    ]


_ACCEPTED = Outcome.ACCEPTED


def _other(charge: Charge, answer: Sequence[int | bytes], now_ms: int) -> Receipt:
    """Of a charge that was not accepted, or changed nothing."""
    outcome, more = Outcome(int(answer[1])), [word for word in answer[2:] if isinstance(word, bytes)]
    if outcome in (Outcome.DUPLICATE, Outcome.CONFLICT):
        original = identities.read(more[0])
        same_request = original.key == charge.record.fingerprint[FINGERPRINT_BYTES:] != NO_KEY
        return Receipt(
            outcome,
            original.amount,
            original.left,
            original.spare_left,
            original.found,
            original.accepted_at_ms,
            same_request,
        )
    if outcome is Outcome.FROZEN:
        return Receipt(outcome, charge.amount, reason=more[0].decode())
    if not more:
        return Receipt(outcome, charge.amount)
    left, spare_left = map(_amount, more)
    return Receipt(outcome, charge.amount, left, spare_left, 0, now_ms)


def fingerprint(content: str) -> bytes:
    """A record's fingerprint from a text that says all about its payload, without an idempotency key."""
    return hashlib.blake2b(content.encode(), digest_size=FINGERPRINT_BYTES).digest() + NO_KEY


def idempotency_hash(key: str | None) -> bytes:
    """What of a request's Idempotency-Key is kept with an identity; zeros without one."""
    return NO_KEY if key is None else hashlib.blake2b(key.encode(), digest_size=IDEMPOTENCY_BYTES).digest()


def is_same_request(remembered: bytes, now: bytes) -> bool:
    """Whether two fingerprints came with the same idempotency key. Either may be followed by something else."""
    key = slice(FINGERPRINT_BYTES, _HEAD_BYTES)
    return remembered[key] == now[key] != NO_KEY


def _amount(text: bytes) -> int:
    return int(text or b"0")

"""What one request asks of the till, and what the till answers. Plain values; the script in `charge.lua` gives them meaning."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# msgpack carries no types; `pack` and `unpack` below are the only users.

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import cast

import msgpack
import msgspec

from tallybook.core import usage_log

FINGERPRINT_BYTES = usage_log.PAYLOAD_BYTES
IDEMPOTENCY_BYTES = usage_log.IDEMPOTENCY_BYTES
_HEAD_BYTES = FINGERPRINT_BYTES + IDEMPOTENCY_BYTES
_TIME_BYTES = 6
_NO_KEY = bytes(IDEMPOTENCY_BYTES)


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
    to it, and an adjustment, which must be negative then, takes from it before it takes from `pool`.
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


def pack(charges: Sequence[Charge]) -> bytes:
    """The script argument for the charges of one partition. Bytes travel as MessagePack text: the script's decoder knows no binary."""
    return cast("bytes", msgpack.packb([_arguments(charge) for charge in charges], use_bin_type=False))


def _arguments(charge: Charge) -> tuple[object, ...]:
    record = charge.record
    arguments = (
        record.kind,
        str(record.tenant_id),
        str(record.customer_id),
        charge.tenant_version,
        charge.customer_version,
        record.digest,
        record.fingerprint,
        record.pool,
        str(charge.opening),
        str(charge.amount),
        1 if charge.blocks else 0,
        charge.spare_pool,
        usage_log.encode_record(record),
    )
    return (*arguments, str(charge.for_spare)) if record.kind == usage_log.Kind.VOID else arguments


def unpack(reply: bytes) -> list[list[object]]:
    """The script's reply: for each partition its sequence, its time and one result a charge."""
    return cast("list[list[object]]", msgpack.unpackb(reply, raw=True))


def receipt(charge: Charge, result: Sequence[object], accepted_at_ms: int) -> Receipt:
    """Read one result of the script."""
    outcome = Outcome(_integer(result[0]))
    if outcome in (Outcome.DUPLICATE, Outcome.CONFLICT):
        return _original(outcome, charge, _raw(result[1]))
    if outcome is Outcome.FROZEN:
        return Receipt(outcome, charge.amount, reason=_raw(result[1]).decode())
    if len(result) == 1:
        return Receipt(outcome, charge.amount)
    left, spare_left, found = (_amount(_raw(text)) for text in result[1:])
    return Receipt(outcome, charge.amount, left, spare_left, found, accepted_at_ms)


def _original(outcome: Outcome, charge: Charge, remembered: bytes) -> Receipt:
    same_request = is_same_request(remembered, charge.record.fingerprint)
    accepted_at_ms = int.from_bytes(remembered[_HEAD_BYTES : _HEAD_BYTES + _TIME_BYTES], "big")
    amount, left, spare_left, found = (_amount(text) for text in remembered[_HEAD_BYTES + _TIME_BYTES :].split(b","))
    return Receipt(outcome, amount, left, spare_left, found, accepted_at_ms, same_request)


def fingerprint(content: str) -> bytes:
    """A record's fingerprint from a text that says all about its payload, without an idempotency key."""
    return hashlib.blake2b(content.encode(), digest_size=FINGERPRINT_BYTES).digest() + _NO_KEY


def idempotency_hash(key: str | None) -> bytes:
    """What of a request's Idempotency-Key is kept with an identity; zeros without one."""
    return _NO_KEY if key is None else hashlib.blake2b(key.encode(), digest_size=IDEMPOTENCY_BYTES).digest()


def is_same_request(remembered: bytes, now: bytes) -> bool:
    """Whether two fingerprints came with the same idempotency key. Either may be followed by something else."""
    key = slice(FINGERPRINT_BYTES, _HEAD_BYTES)
    return remembered[key] == now[key] != _NO_KEY


def _amount(text: bytes) -> int:
    return int(text or b"0")


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


def _raw(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value

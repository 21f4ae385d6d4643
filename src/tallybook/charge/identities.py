"""Where the till keeps the identities it remembers, and what it says of each; the same rules as in `charge.lua`.

An identity is a field of a hash: first the fingerprint of its payload (8 bytes) and the time it was accepted (6), then
what was left (7) and the amount (6), and the Idempotency-Key's fingerprint (4) if there was a key. What those numbers can't say is said
in text instead, marked by a bit of the time: the key's fingerprint (4), then amount, left, left in the spare pool and found.
"""

import re
import struct
from typing import NamedTuple

from tallybook.core import ids, partitions
from tallybook.core.usage_log import IDEMPOTENCY_BYTES, PAYLOAD_BYTES

NO_KEY = bytes(IDEMPOTENCY_BYTES)
BUCKETS = 1 << 14
_SIX_BITS = bytes(range(48, 112))
KEYS = "{p*}:d:*"
"""A pattern that all of the hashes match, and perhaps others."""
_KEY_OF_BUCKET = re.compile(rb"(\{p[0-9]{2,}\}):d:([0-9]+):..", re.DOTALL)
_TIME_BYTES = 6
_LEFT_BYTES = 7
_AMOUNT_BYTES = 6
_IN_TEXT = 2**47
_LEFT_MAX = 2**53 - 1
"""What Lua's numbers can say exactly."""
_AMOUNT_MAX = 2**47 - 1
_NUMBERS = PAYLOAD_BYTES + _TIME_BYTES
_KEY = _NUMBERS + _LEFT_BYTES + _AMOUNT_BYTES


class Original(NamedTuple):
    """What was answered when the identity was first seen; amounts in 1e-9 of the pool's unit. `key` is that of its request."""

    key: bytes
    accepted_at_ms: int
    amount: int
    left: int
    spare_left: int
    found: int


def key(partition: int, generation: int, bucket: bytes) -> bytes:
    """The hash that holds one bucket of one generation."""
    return f"{partitions.prefix(partition)}:d:{generation}:".encode() + bucket


def place_of(digest: bytes) -> tuple[bytes, bytes]:
    """Bucket and field of an identity: its first 14 bits, and bytes 2 to 10."""
    return name_of(ids.bucket_of(digest)), digest[1:10]


def name_of(number: int) -> bytes:
    """The bucket with a number, as a byte and a character."""
    return bytes((number >> 6, _SIX_BITS[number & 63]))


def generation_of(key: bytes) -> tuple[bytes, int] | None:
    """Of a bucket's hash the prefix of its partition, and its generation; None for any other key."""
    found = _KEY_OF_BUCKET.fullmatch(key)
    return None if found is None else (found[1], int(found[2]))


def write(payload: bytes, original: Original) -> bytes:
    """What the till remembers of an identity."""
    request, accepted_at_ms, amount, left, spare_left, found = original
    if spare_left == found == 0 and abs(left) <= _LEFT_MAX and abs(amount) <= _AMOUNT_MAX:
        numbers = struct.pack(">q", left)[1:] + struct.pack(">q", amount)[2:]
        return payload + accepted_at_ms.to_bytes(_TIME_BYTES, "big") + numbers + (b"" if request == NO_KEY else request)
    moment = (accepted_at_ms + _IN_TEXT).to_bytes(_TIME_BYTES, "big")
    return payload + moment + request + b"%d,%d,%d,%d" % (amount, left, spare_left, found)


def read(remembered: bytes) -> Original:
    """What is remembered of an identity."""
    moment = int.from_bytes(remembered[PAYLOAD_BYTES:_NUMBERS], "big")
    if moment >= _IN_TEXT:
        text = _NUMBERS + IDEMPOTENCY_BYTES
        amount, left, spare_left, found = (int(number) for number in remembered[text:].split(b","))
        return Original(remembered[_NUMBERS:text], moment - _IN_TEXT, amount, left, spare_left, found)
    left = int.from_bytes(remembered[_NUMBERS : _NUMBERS + _LEFT_BYTES], "big", signed=True)
    amount = int.from_bytes(remembered[_NUMBERS + _LEFT_BYTES : _KEY], "big", signed=True)
    return Original(remembered[_KEY:] or NO_KEY, moment, amount, left, 0, 0)

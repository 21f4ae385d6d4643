"""Public ids (`cus_…`, `sub_…`) and the identity of an event."""

import hashlib
import secrets
from collections.abc import Callable

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGEST_BYTES = 16
_empty = hashlib.blake2b(digest_size=DIGEST_BYTES)
"""Copied for each digest, which is less than half the work of making a new one."""


def new(prefix: str) -> str:
    """A fresh public id: the prefix, an underscore and 20 random base-62 characters (119 bits)."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(20))


def event_digest(tenant_id: int, customer_id: int, event_id: str) -> bytes:
    """The identity (organization and mode, customer, event id) as 16 bytes; the same in till and book."""
    digest = _empty.copy()
    digest.update(f"{tenant_id}\0{customer_id}\0{event_id}".encode())
    return digest.digest()


def event_digests(tenant_id: int, customer_id: int) -> Callable[[str], bytes]:
    """`event_digest` of one customer's event ids, for many of them."""
    begun = _empty.copy()
    begun.update(f"{tenant_id}\0{customer_id}\0".encode())
    copy = begun.copy

    def of(event_id: str) -> bytes:
        digest = copy()
        digest.update(event_id.encode())
        return digest.digest()

    return of


def bucket_of(digest: bytes) -> int:
    """Where the till keeps an identity: the number of its bucket, which is its first 14 bits."""
    return digest[0] << 6 | digest[1] >> 2


def event_public_id(digest: bytes) -> str:
    """`evt_…`, derived from the identity so that a replay answers with the same id."""
    return "evt_" + digest.hex()


def event_digest_of(public_id: str) -> bytes | None:
    """The identity that a public id stands for, or None for what is no `evt_…`."""
    prefix, _, digits = public_id.partition("_")
    if prefix != "evt" or len(digits) != 2 * DIGEST_BYTES or not set(digits) <= set("0123456789abcdef"):
        return None
    return bytes.fromhex(digits)

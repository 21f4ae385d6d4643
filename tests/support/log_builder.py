"""Log entries as the till's script makes them, for tests that need a log without a till."""

from collections.abc import Sequence
from typing import Any

import msgspec

from tallybook.core import ids, usage_log
from tallybook.core.usage_log import Kind, Record
from tallybook.rollup.model import RawEntry

ACCEPTED_MS = 1_763_600_000_000
"""2025-11-20T00:53:20Z."""
PERIOD_S = 1_761_955_200
POOL = "7.b.1761955200"

Item = tuple[Record, str]
OpeningItem = tuple[int, int, str, str, str]


def usage(event_id: str, amount: int = 5, *, customer_id: int = 1, pool: str = POOL, **fields: Any) -> Record:  # noqa: ANN401
    """A usage record; any other field of `Record` may be given by name."""
    fields = {"feature_id": 3, "period_start_s": PERIOD_S, "occurred_at_ms": ACCEPTED_MS, "quantity_nano": 10**9} | fields
    digest = ids.event_digest(1, customer_id, event_id)
    return Record(Kind.USAGE, 1, customer_id, digest, pool, amount, event_id, **fields)


def change(kind: Kind, amount: int = 0, *, customer_id: int = 1, pool: str = POOL) -> Record:
    """An adjustment, set or expiry of a pool."""
    digest = ids.event_digest(1, customer_id, f"{kind}-{amount}-{pool}")
    return Record(kind, 1, customer_id, digest, pool, amount, occurred_at_ms=ACCEPTED_MS)


def tick() -> Record:
    """What marks a place in the log."""
    return Record(Kind.TICK, 0, 0, b"", "", 0)


def opening(old: str, new: str, *, customer_id: int = 1, pool: str = POOL, tenant_id: int = 1) -> OpeningItem:
    """A pool opened (`old` is "") or re-opened."""
    return tenant_id, customer_id, pool, old, new


def entry(items: Sequence[Item | Record], openings: Sequence[OpeningItem] = (), *, accepted_at_ms: int = ACCEPTED_MS) -> bytes:
    """The bytes of one entry; a bare record has no outcome."""
    applied = [item if isinstance(item, tuple) else (item, "") for item in items]
    opened = [(str(tenant), str(customer), pool, old, new) for tenant, customer, pool, old, new in openings]
    return msgspec.msgpack.encode((usage_log.PLAIN, accepted_at_ms, applied, opened))


def raw(seq: int, items: Sequence[Item | Record], openings: Sequence[OpeningItem] = (), *, partition: int = 0) -> RawEntry:
    """An entry as the rollup reads it."""
    return RawEntry(partition, seq, entry(items, openings))

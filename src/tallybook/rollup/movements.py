"""What one record does to pools, said one record at a time in plain Python.

`aggregate` says the same about thousands of records at once. The two are kept apart on purpose: this one is what reconciliation
checks the other by.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from tallybook.core.pools import PURCHASED_CREDITS
from tallybook.core.usage_log import Applied, Entry, Kind

OPENED: Final = "opened"
CHARGED: Final = "charged"
ADJUSTED: Final = "adjusted"
EXPIRED: Final = "expired"
_COUNTED: Final = frozenset({Kind.USAGE, Kind.VOID})
_LEDGER_KINDS: Final = {
    Kind.USAGE: "charge",
    Kind.VOID: "void",
    Kind.ADJUSTMENT: "adjustment",
    Kind.SET: "adjustment",
    Kind.EXPIRY: "expiry",
}


class Movement(NamedTuple):
    """A change of one pool. `amount` has the sign of its column: what was charged or expired is taken, the rest is added."""

    customer_id: int
    pool: str
    what: str
    amount: int

    @property
    def change(self) -> int:
        """What it adds to what is left in the pool."""
        return -self.amount if self.what in (CHARGED, EXPIRED) else self.amount


def ledger_kind(kind: int) -> str:
    """The kind of ledger row that a record's movements are counted in."""
    return _LEDGER_KINDS[Kind(kind)]


def of_entry(entry: Entry) -> Iterator[Movement]:
    """Every movement of a log entry in order: openings, then records."""
    for opening in entry.openings:
        yield Movement(int(opening.customer_id), opening.pool, OPENED, int(opening.new) - int(opening.old or 0))
    for applied in entry.applied:
        yield from of_record(applied)


def of_record(applied: Applied) -> Iterator[Movement]:
    """What a record took from or added to its pool, and the part that purchased credits paid instead."""
    record, found = applied.record, int(applied.outcome or 0)
    if record.kind in _COUNTED and found:
        yield Movement(record.customer_id, PURCHASED_CREDITS, CHARGED, found)
    if record.kind == Kind.ADJUSTMENT and found:
        yield Movement(record.customer_id, PURCHASED_CREDITS, ADJUSTED, found)
    if not record.pool:
        return
    if record.kind in _COUNTED:
        yield Movement(record.customer_id, record.pool, CHARGED, record.amount - found)
    elif record.kind in (Kind.ADJUSTMENT, Kind.SET):
        yield Movement(record.customer_id, record.pool, ADJUSTED, record.amount - found)
    elif record.kind == Kind.EXPIRY:
        yield Movement(record.customer_id, record.pool, EXPIRED, found)

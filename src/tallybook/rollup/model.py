"""What the rollup reads from the log and what it writes to the book."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One log entry as it was read: nothing in it is trusted yet."""

    partition: int
    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a partition is read: `previous` is what the book must still say for this pass to count."""

    partition: int
    previous: int
    last: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A log entry, or one item of it, that cannot be applied. `position` is None for a whole entry, -1 - i for opening i.

    `booked` says that the pools have its effect already, and only the event is missing.
    """

    partition: int
    seq: int
    position: int | None
    reason: str
    payload: bytes
    accepted_at: datetime | None = None
    booked: bool = False


HourlyTotal = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int]
"""tenant, customer, feature, hour, period_start_s, price; events, quantity, amount, cost, then input, output and cache tokens."""
PoolChange = tuple[int, str, int, int, int, int, int, bool]
"""customer, pool, tenant, opening, charged, adjusted, expired, closed."""
LedgerRow = tuple[int, str, int, str, int, int, int]
"""customer, pool, hour, kind, tenant, amount, entries."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a run of log entries does to the book. Every list is sorted by its table's primary key; hours are Unix hours."""

    events: int
    event_rows: bytes
    hourly: list[HourlyTotal]
    pools: list[PoolChange]
    ledger: list[LedgerRow]
    quarantined: list[Quarantined]
    months: list[tuple[int, int]]
    """The (year, month) pairs of arrival that `event_rows` needs a partition for."""
    accepted_at: dict[int, datetime]
    """By partition: when the till took its last readable entry."""
    oldest_accepted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PassResult:
    """What one pass did. `lag_ms` is the age of the oldest entry that was waiting when the pass began, 0 when none was."""

    events: int = 0
    entries: int = 0
    quarantined: int = 0
    lag_ms: int = 0
    more: bool = False
    """The pass was cut at its bound: the log holds more."""
    left_out: tuple[tuple[int, str], ...] = ()
    """Partitions that Redis did not let be read while it did others, with why."""

    def with_more(self, other: "PassResult") -> "PassResult":
        """Both as one pass."""
        return PassResult(
            self.events + other.events,
            self.entries + other.entries,
            self.quarantined + other.quarantined,
            max(self.lag_ms, other.lag_ms),
            self.more or other.more,
            self.left_out + other.left_out,
        )


class GapError(Exception):
    """A sequence is missing between the book's offset and the log: entries were lost, so the partition stops."""

    def __init__(self, partition: int, expected: int, found: int) -> None:
        super().__init__(f"partition {partition}: expected log entry {expected}, found {found}; refusing to skip")
        self.partition = partition
        self.expected = expected
        self.found = found


class UnknownLogError(Exception):
    """The log is not that of this installation's till, or it is an older copy of it: nothing was read."""


class OffsetMovedError(Exception):
    """Another worker has committed past this pass's starting point; nothing of the pass was written."""

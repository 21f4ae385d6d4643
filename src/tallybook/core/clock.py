"""Time comes in from outside: nothing below the entrypoints asks the operating system what time it is."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Tells the time, timezone-aware UTC."""

    def __call__(self) -> datetime:
        """What time it is."""
        ...


def real_clock() -> datetime:
    """The operating system's time in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """`2026-11-20T09:00:00.000Z`, the wire's form."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=1024)
def iso_ms(milliseconds: int) -> str:
    """`iso` of Unix milliseconds; events that arrive together share theirs."""
    return iso(from_ms(milliseconds))


def from_ms(milliseconds: int) -> datetime:
    """A UTC datetime from Unix milliseconds, exact."""
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)


def to_ms(moment: datetime) -> int:
    """Unix milliseconds, microseconds cut off."""
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000

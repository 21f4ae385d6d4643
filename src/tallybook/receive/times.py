"""When an event happened, and how far that may be from now."""

from datetime import UTC, datetime
from typing import Final

import msgspec

from tallybook.core import clock, errors

_DAY_MS: Final = 24 * 3600 * 1000
PAST_MS: Final = 35 * _DAY_MS
"""How old an event may be: as long as event ids are remembered."""
FUTURE_MS: Final = 5 * 60 * 1000
"""How far a sender's clock may run ahead."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PRINTABLE_MS: Final = range(253_402_300_800_000)
"""1970 up to the end of the year 9999: what a datetime can show."""


def unix_ms(moment: datetime) -> int:
    """Unix milliseconds of an aware datetime, rounded down; exact at both ends of the calendar."""
    since = moment - _EPOCH
    return since.days * _DAY_MS + since.seconds * 1000 + since.microseconds // 1000


def from_text(text: str) -> int | None:
    """Unix milliseconds of an ISO 8601 moment with `Z` or an offset, or None. Finer digits are cut off."""
    try:
        moment = msgspec.convert(text, datetime)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return None
    return None if moment.tzinfo is None else unix_ms(moment)


def check_time(occurred_at_ms: int | None, now_ms: int, field: str = "timestamp", past_ms: int = PAST_MS) -> None:
    """Refuse a moment more than `past_ms` (whole days) before or 5 minutes after `now_ms`; both ends are allowed.

    Raises ValidationError that names the moment and both bounds. `field` is the path the error names: `events[3].timestamp`.
    """
    if occurred_at_ms is None or now_ms - past_ms <= occurred_at_ms <= now_ms + FUTURE_MS:
        return
    earliest, latest = _shown(now_ms - past_ms), _shown(now_ms + FUTURE_MS)
    raise errors.invalid(
        field,
        f"{field}: got {_shown(occurred_at_ms)}; must be from {earliest} ({past_ms // _DAY_MS} days before now) "
        f"to {latest} (5 minutes after now)",
    )


def _shown(moment_ms: int) -> str:
    return clock.iso(clock.from_ms(moment_ms)) if moment_ms in _PRINTABLE_MS else f"{moment_ms} ms after 1970"

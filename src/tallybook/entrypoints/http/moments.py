"""Points in time as callers write them. Pure."""

import re
from datetime import UTC, datetime

from tallybook.core import errors

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})")
CHARACTERS_MAX = 40


def parse(field: str, text: str) -> datetime:
    """`2026-11-20T09:00:00Z`, with any offset, or a bare date for midnight UTC. Raises ValidationError for anything else."""
    if not _DATE.fullmatch(text) and not _MOMENT.fullmatch(text):
        raise _not_a_moment(field, text)
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _not_a_moment(field, text) from error


def _not_a_moment(field: str, text: str) -> errors.ValidationError:
    return errors.invalid(field, f"{field} is {text[:CHARACTERS_MAX]!r}; write it as 2026-11-20T09:00:00Z.")

"""Cursors of lists: the id of the last row a page showed, opaque to the caller. A page is read by asking for one row too many."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from tallybook.core import errors

LIMIT_DEFAULT = 25
LIMIT_MAX = 100
_TEXT_MAX = 64
_ID_MAX = 2**63 - 1

Row = TypeVar("Row")


def encode(row: int | str) -> str:
    """The cursor that continues after a row: its integer key, or its public id where rows have no other."""
    return base64.urlsafe_b64encode(str(row).encode()).decode().rstrip("=")


def decode(cursor: str) -> int:
    """The integer key in a cursor. Raises ValidationError for anything `encode` did not make."""
    text = decode_text(cursor)
    if not (text.isascii() and text.isdigit()) or int(text) > _ID_MAX:
        raise _not_a_cursor()
    return int(text)


def decode_text(cursor: str) -> str:
    """The public id in a cursor. Raises ValidationError for anything `encode` did not make."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise _not_a_cursor() from error
    if not text.isprintable() or len(text) > _TEXT_MAX or encode(text) != cursor:
        raise _not_a_cursor()
    return text


def cut(rows: Sequence[Row], limit: int, key: Callable[[Row], int | str]) -> tuple[Sequence[Row], str | None]:
    """Split what a query for `limit + 1` rows found into the page and the next cursor, which is None on the last page."""
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    return page, encode(key(page[-1]))


def _not_a_cursor() -> errors.ValidationError:
    return errors.invalid("cursor", "cursor must be a nextCursor of an earlier page of this list.")

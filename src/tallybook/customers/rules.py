"""Which customers are valid."""

import dataclasses
import math
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET

from tallybook.core.errors import FieldError, ValidationError
from tallybook.customers.model import Customer, CustomerChange, NewCustomer

EMAIL_LENGTH_MAX = 254
METADATA_KEYS_MAX = 50
METADATA_BYTES_MAX = 16_384
METADATA_DEPTH_MAX = 10
METADATA_NUMBER_MAX = 2**63
_EMAIL = re.compile(r"[^\s@\x00-\x20\x7f]{1,64}@[^\s@.\x00-\x20\x7f]+(\.[^\s@.\x00-\x20\x7f]+)+")
_NUL_IN_JSON = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def check(customer: NewCustomer | CustomerChange) -> None:
    """Raises ValidationError with every broken rule: email, timezone, metadata."""
    problems = list(_problems(customer))
    if problems:
        raise ValidationError(problems)


def changed(customer: Customer, change: CustomerChange) -> Customer:
    """The customer with what the change gives."""
    given = {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}
    return dataclasses.replace(customer, **{name: value for name, value in given.items() if value is not UNSET})


def _problems(customer: NewCustomer | CustomerChange) -> Iterator[FieldError]:
    if customer.email is not UNSET and not _is_email(customer.email):
        yield FieldError("email", f"{_shown(customer.email)} is not an email address (name@domain.tld, at most {EMAIL_LENGTH_MAX} characters).")
    if customer.timezone and customer.timezone not in _timezones():
        yield FieldError("timezone", f"{_shown(customer.timezone)} is not a time zone of the IANA database, such as Europe/Berlin.")
    if customer.metadata:
        problem = metadata_problem(customer.metadata)
        if problem:
            yield FieldError("metadata", problem)


def _is_email(text: str) -> bool:
    return len(text) <= EMAIL_LENGTH_MAX and _EMAIL.fullmatch(text) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")  # noqa: PLR2004 - enough of it to be recognized


@cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() | {"UTC"})


def metadata_problem(metadata: Mapping[str, Any]) -> str | None:
    """Why metadata cannot be kept, or None."""
    if len(metadata) > METADATA_KEYS_MAX:
        return f"metadata has {len(metadata)} keys; at most {METADATA_KEYS_MAX} are kept."
    if not _is_storable(metadata, METADATA_DEPTH_MAX):
        return f"metadata is nested deeper than {METADATA_DEPTH_MAX} levels, or holds a number beyond 2^63."
    encoded = msgspec.json.encode(metadata)
    if len(encoded) > METADATA_BYTES_MAX:
        return f"metadata is {len(encoded)} bytes of JSON; at most {METADATA_BYTES_MAX} are kept."
    if _NUL_IN_JSON.search(encoded):
        return "metadata contains a NUL character."
    return None


def _is_storable(value: object, levels: int) -> bool:
    match value:
        case bool() | str() | None:
            return True
        case int() | float():
            return math.isfinite(value) and abs(value) < METADATA_NUMBER_MAX
        case Mapping():
            values: Sequence[object] = list(value.values())
        case _:
            values = value if isinstance(value, list) else [value]
    return levels > 0 and all(_is_storable(inner, levels - 1) for inner in values)

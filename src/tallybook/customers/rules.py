"""Which customers are valid."""

import dataclasses
import re
import zoneinfo
from collections.abc import Iterator
from functools import cache

import msgspec
from msgspec import UNSET

from tallybook.core.errors import FieldError, ValidationError
from tallybook.customers.model import Customer, CustomerChange, NewCustomer

EMAIL_LENGTH_MAX = 254
EXTERNAL_ID_BYTES_MAX = 128
METADATA_BYTES_MAX = 16_384
_EMAIL = re.compile(r"[^\s@\x00-\x20\x7f]{1,64}@[^\s@.\x00-\x20\x7f]+(\.[^\s@.\x00-\x20\x7f]+)+")


def check(customer: NewCustomer | CustomerChange) -> None:
    """Raises ValidationError with every broken rule: email, external id, timezone, size of the metadata."""
    problems = list(_problems(customer))
    if problems:
        raise ValidationError(problems)


def changed(customer: Customer, change: CustomerChange) -> Customer:
    """The customer with what the change gives."""
    given = {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}
    return dataclasses.replace(customer, **{name: value for name, value in given.items() if value is not UNSET})


def _problems(customer: NewCustomer | CustomerChange) -> Iterator[FieldError]:
    if customer.email is not UNSET and not _is_email(customer.email):
        yield FieldError("email", f"{_shown(customer.email)} is no email address (name@domain.tld, at most {EMAIL_LENGTH_MAX}).")
    if isinstance(customer.timezone, str) and customer.timezone not in _timezones():
        yield FieldError("timezone", f"{_shown(customer.timezone)} is no IANA time zone, such as Europe/Berlin.")
    if isinstance(customer.external_id, str) and not _is_id(customer.external_id):
        yield FieldError("externalId", f"{_shown(customer.external_id)} is not 1 to {EXTERNAL_ID_BYTES_MAX} bytes, printable.")
    size = len(msgspec.json.encode(customer.metadata or None))
    if size > METADATA_BYTES_MAX:
        yield FieldError("metadata", f"metadata is {size} bytes of JSON; at most {METADATA_BYTES_MAX} are kept.")


def _is_email(text: str) -> bool:
    return len(text) <= EMAIL_LENGTH_MAX and _EMAIL.fullmatch(text) is not None


def _is_id(text: str) -> bool:
    return text.isprintable() and 1 <= len(text.encode()) <= EXTERNAL_ID_BYTES_MAX


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")  # noqa: PLR2004 - enough of it to be recognized


@cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() | {"UTC"})

"""A customer, and what a caller may say about one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is billed. `public_id` is ours (`cus_…`), `external_id` the caller's; both name the customer everywhere."""

    id: int
    tenant_id: int
    public_id: str
    external_id: str | None
    email: str
    full_name: str | None
    tax_document: str | None
    timezone: str | None
    metadata: Mapping[str, Any] | None
    address: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    ai_margin_bps: int | None = None
    """The margin on AI usage in basis points, instead of the plans' margins; None: theirs."""


@dataclass(frozen=True, slots=True)
class NewCustomer:
    """What a customer is made from."""

    email: str
    external_id: str | None = None
    full_name: str | None = None
    tax_document: str | None = None
    timezone: str | None = None
    metadata: Mapping[str, Any] | None = None
    address: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CustomerChange:
    """What changes of a customer: UNSET stays as it is, None is removed."""

    email: str | UnsetType = UNSET
    external_id: str | UnsetType | None = UNSET
    full_name: str | UnsetType | None = UNSET
    tax_document: str | UnsetType | None = UNSET
    timezone: str | UnsetType | None = UNSET
    metadata: Mapping[str, Any] | UnsetType | None = UNSET
    address: Mapping[str, Any] | UnsetType | None = UNSET


@dataclass(frozen=True, slots=True)
class Filter:
    """Which customers a list shows: all of them, one external id, or those whose name, email or id contains `search`."""

    external_id: str | None = None
    search: str | None = None
    before_id: int | None = None

"""Values of tenancy: keys, what they allow, and changes of terms that wait for the till."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tallybook.core.tenant import Tenant

Permissions = Mapping[str, frozenset[str]]
"""Resource → the subset of {"read", "write"} it may be used for. Writing needs both."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key, without its secret. `permissions` None: full access; `expires_at` None: never."""

    id: str
    tenant_id: int
    name: str
    public_part: str
    permissions: Permissions | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuthenticatedKey:
    """Who sent a request and what they may do; from the key alone."""

    id: str
    tenant: Tenant
    permissions: Permissions | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key taken apart: the public part finds the row, the secret proves it. Its repr shows no secret."""

    public_part: str
    secret_sha256: bytes


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made, with the only copy of its text there will ever be."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        """Everything but the text, so that no log can hold it."""
        return f"NewApiKey({self.key!r})"


@dataclass(frozen=True, slots=True)
class TermsBump:
    """A change of terms that the till may not know yet. `customer_id` None: all customers of the tenant."""

    id: int
    tenant: Tenant
    customer_id: int | None
    version: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """A row of the outbox that nobody has been told of yet. `created_at` is the real time."""

    id: int
    tenant: Tenant
    topic: str
    payload: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What was answered to the first request with an idempotency key."""

    fingerprint: bytes
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Installation:
    """What is fixed for an installation. `till_made`: the till was given the epoch, and one without it has been lost.

    A till that is made anew gets another epoch; `former_epoch` is the one before.
    """

    epoch: str
    partitions: int
    till_made: bool = False
    former_epoch: str | None = None

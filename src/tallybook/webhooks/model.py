"""Where webhooks go, and what became of each. Frozen values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What may be changed of an endpoint. `api_version` None: the newest; `is_active` False: it is sent nothing."""

    url: str
    events: tuple[str, ...]
    description: str | None
    api_version: str | None
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that is told of events. `failures`: events in a row that could not be delivered."""

    id: int
    tenant_id: int
    public_id: str
    settings: EndpointSettings
    disabled_reason: str | None
    failures: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A signing secret as it is stored: sealed, or plain where the installation has no key to seal with."""

    content: bytes
    is_sealed: bool


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to an endpoint: `body` to the byte. `event_id` is the same for all endpoints and attempts."""

    event_id: str
    topic: str
    emitted_at: datetime
    body: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to one endpoint, or at its end. `outbox_id` None: a test."""

    id: int
    public_id: str
    endpoint_id: int
    message: Message
    state: State
    attempts: int
    next_attempt_at: datetime | None
    attempted_at: datetime | None
    response_status: int | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be attempted now, with all that an attempt needs."""

    delivery: Delivery
    url: str
    secret: StoredSecret


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt came to: the status of the answer, or why there was none, by code."""

    status: int | None
    error: str | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the endpoint took it: any 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own classes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an attempt. `next_attempt_at` is set while the delivery is pending."""

    state: State
    next_attempt_at: datetime | None

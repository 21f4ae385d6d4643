"""The Python client of Tallybook: `Tallybook`, `AsyncTallybook`, and `tracked()` for AI clients. See README.md beside this file."""

from tallybook.client.client import AsyncTallybook, CustomerScope, Tallybook
from tallybook.client.errors import (
    APIError,
    Conflict,
    ConnectionFailed,
    Duplicate,
    Forbidden,
    GateClosed,
    NotFound,
    QueueFull,
    RateLimited,
    Refused,
    ServiceError,
    TallybookError,
    Unauthorized,
    ValidationError,
)
from tallybook.client.meter.outbox import MeterSettings
from tallybook.client.meter.problems import Problem
from tallybook.client.models import Address, NewCustomer, Overage
from tallybook.client.requests import UNSET
from tallybook.client.tracking.attribution import attribution
from tallybook.client.tracking.tracked import tracked
from tallybook.client.webhooks import UntrustedWebhook, verify_webhook

__all__ = [
    "UNSET",
    "APIError",
    "Address",
    "AsyncTallybook",
    "Conflict",
    "ConnectionFailed",
    "CustomerScope",
    "Duplicate",
    "Forbidden",
    "GateClosed",
    "MeterSettings",
    "NewCustomer",
    "NotFound",
    "Overage",
    "Problem",
    "QueueFull",
    "RateLimited",
    "Refused",
    "ServiceError",
    "Tallybook",
    "TallybookError",
    "Unauthorized",
    "UntrustedWebhook",
    "ValidationError",
    "attribution",
    "tracked",
    "verify_webhook",
]

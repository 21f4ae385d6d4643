"""Who a request speaks for. It comes from the API key alone and is in every key, row and query."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tenant:
    """One organization in one mode. `id` is the integer that stands for both in tables and keys."""

    id: int
    organization_id: str
    livemode: bool

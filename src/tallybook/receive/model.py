"""What a request about usage says once every bound has been checked. Quantities are nano-units, times Unix milliseconds."""

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Who used how much of what: a plain quantity, or (`model` is set) the tokens of one AI request.

    `customer_id` is the caller's reference: `cus_…` or its own id. `cache_write_1h_tokens` is a part of `cache_write_tokens`.
    """

    feature_code: str
    customer_id: str
    quantity_nano: int
    model: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    service_tier: str | None
    web_search_requests: int
    input_tokens_include_cache: bool


class Event(Usage, frozen=True, gc=False):
    """One usage event. `fingerprint` (8 bytes) is equal for equal meaning, however the body was spelled; see `fingerprints`."""

    event_id: str | None
    occurred_at_ms: int | None
    properties: dict[str, str] | None
    fingerprint: bytes


class Check(Usage, frozen=True, gc=False):
    """A question: may this be used, and what would it cost."""


class PeriodTotal(msgspec.Struct, frozen=True, gc=False):
    """What the period's total of a metered feature is to be, in nano-units."""

    feature_code: str
    customer_id: str
    quantity_nano: int
    reason: str | None

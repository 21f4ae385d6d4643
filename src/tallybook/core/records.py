"""What one event or pool change is, on its way through the till and its log."""

from enum import IntEnum

import msgspec

DIGEST_BYTES = 16
PAYLOAD_BYTES = 8
IDEMPOTENCY_BYTES = 4
NO_FINGERPRINT = bytes(PAYLOAD_BYTES + IDEMPOTENCY_BYTES)


class Kind(IntEnum):
    """What a record does to its pool."""

    USAGE = 0
    """Takes `amount` from the pool."""
    ADJUSTMENT = 1
    """Adds `amount` (signed) to the pool: a top-up, a grant, a correction. What is taken away may come from purchased credits first;
    the outcome is that part, negative."""
    SET = 2
    """Sets what is left in the pool to `amount`; the outcome is what was left before, in text."""
    EXPIRY = 3
    """Removes the pool of a closed period; the outcome is what was left, in text."""
    TICK = 4
    """Changes nothing: marks a place in the log, so that the book can prove how far it has read."""
    VOID = 5
    """Takes a usage event back: all of its measures with the other sign, so that sums over both are as if neither had been.

    The outcome is, with its sign, the part that goes back to purchased credits."""


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One event or pool change. Amounts are 1e-9 of the pool's unit, times Unix milliseconds, prices pico-USD per token.

    `fingerprint` is what the till keeps beside the identity, to know a repeat again: 8 bytes of the payload, then 4 of the request's
    Idempotency-Key (zeros without one). `voids` names the place in the log of what a VOID takes back, by `place`.
    """

    kind: int
    tenant_id: int
    customer_id: int
    digest: bytes
    pool: str
    amount: int
    event_id: str | None = None
    feature_id: int = 0
    period_start_s: int = 0
    belongs_to_s: int = 0
    occurred_at_ms: int = 0
    quantity_nano: int = 0
    properties: dict[str, str] | None = None
    reason: str | None = None
    model: str | None = None
    matched_by: str | None = None
    service_tier: str | None = None
    price_id: int = 0
    margin_bps: int = 0
    cost_nano: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    web_searches: int = 0
    input_pico: int = 0
    output_pico: int = 0
    cache_read_pico: int = 0
    cache_write_pico: int = 0
    cache_write_1h_pico: int = 0
    web_search_pico: int = 0
    """Per call."""
    catalog_version: int = 0
    """Of the price book that the event was priced with; 0 for what no book priced."""
    fingerprint: bytes = NO_FINGERPRINT
    voids: str | None = None

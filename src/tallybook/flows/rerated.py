"""What re-ratings took for a single event, so that a void gives back what is charged for it now.

A re-rating adjusts by hour, so no row says what it took for one event. But its adjustment says which price rows it used and how far
it had read the log, and rows are never edited: what it took for an event is the event's charge by that row less what the event took.

A void of such an event is two records of one call to the till: the void, with the event's own amount, and an adjustment of its hour by
the rest, with the other sign. Sums over usage and voids stay as if neither had been, and the next re-rating of the hour finds
nothing to do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tallybook.ai_models import locks
from tallybook.ai_models import store as ai_models
from tallybook.catalog import store as catalog
from tallybook.charge import commands
from tallybook.charge.commands import Charge
from tallybook.core import clock, errors, ids, pools, usage_log
from tallybook.pricing import cost
from tallybook.pricing.cost import TokenUsage
from tallybook.rollup import model_usage
from tallybook.rollup.events import Booked
from tallybook.rollup.model_usage import ModelUsage
from tallybook.storage.postgres import Connection

HOUR_MS = 3_600_000
_NOT_BEGUN = timedelta(days=400)
"""Longer than any period: the end of one that the book does not have yet."""


@dataclass(slots=True)
class Inclusion:
    """Which usage a plan includes without limit, by the terms of the period that paid. Remembers what it has read."""

    _unlimited: dict[tuple[int, datetime], frozenset[int]] = field(default_factory=dict[tuple[int, datetime], frozenset[int]])

    async def holds(self, connection: Connection, pool: str, period_start: datetime, feature_id: int) -> bool:
        """Whether the feature was unlimited in the period."""
        key = (pools.parse(pool).subscription_id, period_start)
        if key not in self._unlimited:
            self._unlimited[key] = await _unlimited_features(connection, *key)
        return feature_id in self._unlimited[key]


async def _unlimited_features(connection: Connection, subscription_id: int, period_start: datetime) -> frozenset[int]:
    edition = await model_usage.edition(connection, subscription_id, period_start)
    if edition is None:
        return frozenset()
    until = edition.ends_at or period_start + _NOT_BEGUN
    terms = await catalog.features_of_period(connection, edition.plan_id, period_start, until, edition.feature_revision)
    return frozenset(each.feature_id for each in terms if each.unlimited)


def tokens(event: ModelUsage | usage_log.Record) -> TokenUsage:
    """What an event used; its input is the total already."""
    return TokenUsage(
        event.input_tokens,
        event.output_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.cache_write_1h_tokens,
        event.web_searches,
        event.service_tier,
    )


async def wait_for_no_rerate(connection: Connection) -> None:
    """Keep re-ratings from beginning until the transaction ends. Raises Unavailable while one runs: what it takes is not known yet."""
    if not await locks.try_share_rerate_lock(connection):
        raise errors.Unavailable(
            "rerate_in_progress", "Past usage is being priced again; send the same request when that is done."
        )


async def share(connection: Connection, event: Booked, inclusion: Inclusion | None = None) -> int:
    """What re-ratings took for one event on top of its own amount, in nano-USD; negative: what they gave back."""
    record = event.record
    if not record.price_id or record.model is None:
        return 0
    hour = clock.from_ms(record.occurred_at_ms // HOUR_MS * HOUR_MS)
    last = await model_usage.last_rerate(connection, record.customer_id, hour)
    if last is None or event.seq > last.through:
        return 0
    begun = [price_id for from_ms, price_id in last.prices.get(record.model, ()) if from_ms <= record.occurred_at_ms]
    row = await ai_models.price_row(connection, begun[-1], record.model) if begun else None
    if row is None or (record.amount == 0 and await _is_included(connection, record, inclusion or Inclusion())):
        return 0
    try:
        return cost.price(row, tokens(record), record.margin_bps).charge_nano - record.amount
    except errors.TallybookError:
        # The re-rating had no price for it either, and left it as it was.
        return 0


async def _is_included(connection: Connection, record: usage_log.Record, inclusion: Inclusion) -> bool:
    if record.cost_nano:
        return True
    return await inclusion.holds(connection, record.pool, clock.from_ms(record.period_start_s * 1000), record.feature_id)


async def shares(connection: Connection, events: Iterable[Booked]) -> dict[str, int]:
    """The same for some events: by place in the log, without those for which nothing was taken."""
    inclusion = Inclusion()
    found = {event.place: await share(connection, event, inclusion) for event in events}
    return {place: nano for place, nano in found.items() if nano}


def taken_back(void: Charge, share_nano: int) -> Charge:
    """What goes beside a void: the adjustment that gives back (or takes again) what re-ratings took for its event."""
    record = void.record
    hour_s = record.occurred_at_ms // HOUR_MS * HOUR_MS // 1000
    adjustment = usage_log.Record(
        kind=usage_log.Kind.ADJUSTMENT,
        tenant_id=record.tenant_id,
        customer_id=record.customer_id,
        digest=ids.event_digest(record.tenant_id, record.customer_id, f"\x01rerate-void\x01{record.voids}"),
        pool=record.pool,
        amount=share_nano,
        period_start_s=record.period_start_s,
        belongs_to_s=hour_s if hour_s < record.period_start_s else 0,
        occurred_at_ms=hour_s * 1000,
        properties={model_usage.RERATED_HOUR: clock.iso(clock.from_ms(hour_s * 1000))},
        reason=record.reason,
        fingerprint=commands.fingerprint(f"{record.pool}\0{share_nano}"),
    )
    return Charge(
        partition=void.partition,
        record=adjustment,
        amount=share_nano,
        opening=void.opening,
        tenant_version=void.tenant_version,
        customer_version=void.customer_version,
    )

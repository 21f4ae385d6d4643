"""The second tier of deduplication: an event so old that the till may have forgotten its id is looked up in the book first.

The till remembers an id for at least the hot window after it took it, and takes nothing dated more than a few minutes ahead. So an
event dated within the hot window can't be the repeat of a forgotten one, and costs nothing here. An event without a date can be;
`repeats` finds it afterwards.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from tallybook.charge import commands
from tallybook.charge.commands import FINGERPRINT_BYTES, Outcome, Receipt
from tallybook.core import clock, errors
from tallybook.flows.price_event import PricedEvent
from tallybook.flows.services import Services
from tallybook.receive import times
from tallybook.rollup import events
from tallybook.rollup.events import Booked
from tallybook.settings import Settings
from tallybook.storage import postgres

SKEW_MS: Final = 60_000
"""How far the clocks of API and till may be apart; beyond it a process is not ready."""
_MARGIN: Final = timedelta(days=1)
_HOUR_MS: Final = 3_600_000
_ACQUIRE_S: Final = 2.0

Known = Receipt | errors.TallybookError


async def look_up(services: Services, priced: Sequence[PricedEvent]) -> Mapping[bytes, Known]:
    """By digest: the original result of those that the book has, and for all that had to be looked up in vain why.

    What is not in it is new, or young enough for the till to decide.
    """
    old = [one for one in priced if one.event.occurred_at_ms is not None]
    if old:
        now_ms, memory_ms = clock.to_ms(services.clock()), _memory_ms(services.settings)
        old = [one for one in old if _may_be_forgotten(one, now_ms, memory_ms)]
    if not old:
        return {}
    by_digest = {one.charge.record.digest: one for one in old}
    try:
        async with services.database.acquire(timeout=_ACQUIRE_S) as connection:
            found = await events.originals(connection, by_digest, services.clock() - retention(services.settings))
    except postgres.TRANSIENT_ERRORS:
        message = "The event is older than what the till remembers, and the database did not answer; send the same id again."
        return dict.fromkeys(by_digest, errors.Unavailable("database_unavailable", message))
    return {digest: receipt(booked, by_digest[digest].charge.record.fingerprint) for digest, booked in found.items()}


def retention(settings: Settings) -> timedelta:
    """How long an id never pays twice: as old as an event may be, and a little more for clocks."""
    return max(timedelta(days=settings.retention_days), timedelta(milliseconds=times.PAST_MS)) + _MARGIN


def _memory_ms(settings: Settings) -> int:
    """How long before now an event may be dated and still surely be remembered."""
    return settings.hot_window_h * _HOUR_MS - times.FUTURE_MS - SKEW_MS


def _may_be_forgotten(one: PricedEvent, now_ms: int, memory_ms: int) -> bool:
    occurred_at_ms, simulated_at = one.event.occurred_at_ms, one.tariff.simulated_at
    latest_ms = now_ms if simulated_at is None else max(now_ms, clock.to_ms(simulated_at))
    return occurred_at_ms is not None and occurred_at_ms <= latest_ms - memory_ms


def receipt(booked: Booked, now: bytes) -> Receipt:
    """What the till would answer, had it not forgotten, to an event with the fingerprint `now`."""
    first = booked.record.fingerprint
    return Receipt(
        Outcome.DUPLICATE if first[:FINGERPRINT_BYTES] == now[:FINGERPRINT_BYTES] else Outcome.CONFLICT,
        -booked.record.amount,
        booked.left,
        booked.spare_left,
        booked.spare_amount,
        clock.to_ms(booked.accepted_at),
        commands.is_same_request(first, now),
    )

"""When a repeated event occurred, for a sandbox with a test clock: the clock may have moved since, and the till does not remember.

Elsewhere an event without a time occurred when the till took it, which the till does remember. Here the book is asked, and waited for
if it has not read the event yet.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from tallybook.charge.commands import Outcome
from tallybook.flows import booked_events
from tallybook.flows.services import Services
from tallybook.flows.usage import Result, Settled


async def as_recorded(services: Services, results: Sequence[Result]) -> Sequence[Result]:
    """The results, repeats of undated events with the time of the original; Unavailable in place of one that can't be known yet."""
    asked = {result.priced.charge.record.digest for result in results if isinstance(result, Settled) and _is_asked(result)}
    if not asked:
        return results
    known = _taken_now(results)
    if asked - known.keys():
        known = known | await _recorded(services, asked - known.keys())
    return [_dated(result, known) if isinstance(result, Settled) and _is_asked(result) else result for result in results]


def _is_asked(settled: Settled) -> bool:
    priced = settled.priced
    is_repeat = settled.receipt.outcome is Outcome.DUPLICATE
    return is_repeat and priced.event.occurred_at_ms is None and priced.tariff.simulated_at is not None


def _taken_now(results: Sequence[Result]) -> dict[bytes, int]:
    """Unix milliseconds by digest of events that this very request recorded."""
    records = [
        result.priced.charge.record
        for result in results
        if isinstance(result, Settled) and result.receipt.outcome is Outcome.ACCEPTED
    ]
    return {record.digest: record.occurred_at_ms for record in records}


async def _recorded(services: Services, asked: Collection[bytes]) -> dict[bytes, int]:
    """Unix milliseconds by digest, as far as the book comes to know them soon."""
    found = await booked_events.originals(services, asked)
    return {digest: booked.record.occurred_at_ms for digest, booked in found.items()}


def _dated(settled: Settled, known: Mapping[bytes, int]) -> Result:
    charge = settled.priced.charge
    occurred_at_ms = known.get(charge.record.digest)
    if occurred_at_ms is None:
        return booked_events.not_read_yet()
    record = msgspec.structs.replace(charge.record, occurred_at_ms=occurred_at_ms)
    replace = msgspec.structs.replace
    return replace(settled, priced=replace(settled.priced, charge=replace(charge, record=record)))

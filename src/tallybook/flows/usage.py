"""The path of a usage event: receive → price → charge. Read this file first.

The body has been decoded (`receive`). Each event is priced with the customer's terms (`price_event`, pure), and the charges go
to the till, which deduplicates, checks, deducts and logs them in one atomic step and answers when they are on disk. When the till
says that the terms are stale, they are loaded again and only the events it did not take are priced anew.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tallybook.charge import commands
from tallybook.charge.commands import Outcome, Receipt
from tallybook.core import clock, errors, ids
from tallybook.core.tenant import Tenant
from tallybook.flows import current_book, freezing, old_ids, price_event, unknown_features
from tallybook.flows.price_event import Arrival, PricedEvent
from tallybook.flows.services import Services
from tallybook.receive import times
from tallybook.receive.model import Event
from tallybook.subscriptions.terms import ConsumptionModel

_ATTEMPTS = 5
"""How often an event is priced anew when its terms change under it before the caller is asked to come back."""
_BOOK_LACKS = frozenset({"ambiguous_model", "model_not_found", "model_unpriced", "price_not_listed"})
"""What a newer price book, with an alias or a price that was just set, may know."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who sent the events, the request's idempotency key, if it had one, and whether it is a batch (errors name the place then)."""

    tenant: Tenant
    idempotency_key: str | None = None
    is_batch: bool = False

    def field(self, place: int, name: str) -> str:
        """The path of a field as the caller wrote it."""
        return f"events[{place}].{name}" if self.is_batch else name


class Settled(msgspec.Struct, frozen=True, gc=False):
    """An event the till has decided about, or known before. `repeated` says that its id stood earlier in the same request."""

    priced: PricedEvent
    receipt: Receipt
    repeated: bool = False


Result = Settled | errors.TallybookError


async def track(services: Services, source: Source, events: Sequence[Event | errors.TallybookError]) -> list[Result]:
    """Count, price and deduct events: one result each, same order; an event that can't be taken never costs its neighbours.

    Raises what the till raises when nothing is known about any of them (RateLimited, Unavailable).
    """
    pending = [
        _Pending(place, event, _identity(source, place, event)) for place, event in enumerate(events) if isinstance(event, Event)
    ]
    results: dict[int, Result] = {place: event for place, event in enumerate(events) if not isinstance(event, Event)}
    for attempt in range(_ATTEMPTS):
        loaded = await _load_terms(services, source.tenant, pending, reload=attempt > 0)
        priced = await _price_each(services, source, pending)
        priced = await _doubt_refusals(services, source.tenant, priced, loaded)
        results |= {one.place: error for one, error in priced if isinstance(error, errors.TallybookError)}
        pending = await _charge(services, [(one, good) for one, good in priced if isinstance(good, PricedEvent)], results)
        pending += [one for one, again in priced if again is None]
        if not pending:
            break
    results |= {one.place: _terms_keep_changing() for one in pending}
    results |= await _unknown_features(services, source, events, results)
    return _mark_repeats([results[place] for place in range(len(events))])


class _Pending(msgspec.Struct, frozen=True, gc=False):
    place: int
    event: Event
    identity: str


_Priced = tuple[_Pending, PricedEvent | errors.TallybookError | None]
"""An event with its price, with why it is refused, or with None when it has to be priced again with newer terms."""


def _identity(source: Source, place: int, event: Event) -> str:
    """The caller's event id; without one the request's key and the place in it; without either this delivery is its own event."""
    if event.event_id is not None:
        return event.event_id
    return f"\x01event\x01{source.idempotency_key or secrets.token_hex(16)}\x01{place}"


async def _load_terms(services: Services, tenant: Tenant, pending: Iterable[_Pending], *, reload: bool) -> set[str]:
    """Load the terms that are not at hand, or all of them. Returns the references that were loaded."""
    if reload:
        await current_book.refresh(services)
    references = {one.event.customer_id for one in pending}
    missing = {reference for reference in references if reload or services.terms.at_hand(tenant, reference) is None}
    await asyncio.gather(*(services.terms.load(tenant, reference) for reference in missing))
    return missing


async def _price_each(services: Services, source: Source, pending: Iterable[_Pending]) -> list[_Priced]:
    """Price events; what the price book at hand lacks is looked for in a newer one before it is refused."""
    priced = [(one, _price(services, source, one)) for one in pending]
    if any(_is_missing(outcome) for _, outcome in priced) and await current_book.refresh(services):
        return [(one, _price(services, source, one) if _is_missing(outcome) else outcome) for one, outcome in priced]
    return priced


async def _doubt_refusals(
    services: Services,
    tenant: Tenant,
    priced: list[_Priced],
    loaded: set[str],
) -> list[_Priced]:
    """Take back what remembered terms refused, where the till knows of newer ones: what is refused never gets there to be checked."""
    refused = {one.event.customer_id for one, outcome in priced if isinstance(outcome, errors.TallybookError)} - loaded
    known = {reference: terms for reference in refused if (terms := services.terms.at_hand(tenant, reference)) is not None}
    if not known:
        return priced
    views = await asyncio.gather(*(services.till.read(tenant.id, terms.customer_id) for terms in known.values()))
    outdated = {
        reference
        for (reference, terms), view in zip(known.items(), views, strict=True)
        if view.tenant_version > terms.tenant_version or view.customer_version > terms.customer_version
    }
    return [
        (one, None if one.event.customer_id in outdated and isinstance(outcome, errors.TallybookError) else outcome)
        for one, outcome in priced
    ]


async def _unknown_features(
    services: Services, source: Source, events: Sequence[Event | errors.TallybookError], results: Mapping[int, Result]
) -> dict[int, Result]:
    """`feature_not_found` for the places where the plan lacks a feature because nobody has it."""
    lacking = {
        place: event.feature_code
        for place, event in enumerate(events)
        if isinstance(event, Event) and getattr(results[place], "code", None) == "feature_not_in_plan"
    }
    if not lacking:
        return {}
    unknown = await unknown_features.unknown(services, source.tenant, set(lacking.values()))
    return {
        place: unknown_features.not_found(code, source.field(place, "featureCode"))
        for place, code in lacking.items()
        if code in unknown
    }


def _is_missing(outcome: PricedEvent | errors.TallybookError | None) -> bool:
    return isinstance(outcome, errors.TallybookError) and outcome.code in _BOOK_LACKS


def _price(services: Services, source: Source, one: _Pending) -> PricedEvent | errors.TallybookError | None:
    """The priced event, what is wrong with it, or None when its terms or the price book have to be loaded again."""
    terms = services.terms.at_hand(source.tenant, one.event.customer_id)
    if terms is None:
        return errors.NotFound("customer_not_found", f"There is no customer {one.event.customer_id}.", param="customerId")
    if terms.catalog_version > services.book.version:
        return None
    now_ms = clock.to_ms(terms.now(services.clock()))
    arrival = Arrival(now_ms, one.identity, commands.idempotency_hash(source.idempotency_key))
    try:
        times.check_time(one.event.occurred_at_ms, now_ms, source.field(one.place, "timestamp"), services.settings.retention_ms)
        return price_event.price(one.event, terms, services.book, arrival)
    except price_event.PeriodUnknown:
        return None
    except errors.TallybookError as error:
        return error


async def _charge(
    services: Services, priced: Sequence[tuple[_Pending, PricedEvent]], results: dict[int, Result]
) -> list[_Pending]:
    """Charge what was priced and is not in the book already, note the results, and return what has to be priced anew."""
    known = await old_ids.look_up(services, [good for _, good in priced])
    if known:
        priced = _without_known(priced, known, results)
    if not priced:
        return []
    stale: list[_Pending] = []
    receipts = await services.till.charge([good.charge for _, good in priced])
    for (one, good), receipt in zip(priced, receipts, strict=True):
        if receipt.outcome is Outcome.STALE:
            stale.append(one)
        else:
            results[one.place] = Settled(good, receipt)
    return stale


def _without_known(
    priced: Sequence[tuple[_Pending, PricedEvent]], known: Mapping[bytes, old_ids.Known], results: dict[int, Result]
) -> list[tuple[_Pending, PricedEvent]]:
    """Note the results that the book gave, and return the rest."""
    rest: list[tuple[_Pending, PricedEvent]] = []
    for one, good in priced:
        answer = known.get(good.charge.record.digest)
        if answer is None:
            rest.append((one, good))
        else:
            results[one.place] = Settled(good, answer) if isinstance(answer, Receipt) else answer
    return rest


def _mark_repeats(results: Sequence[Result]) -> list[Result]:
    seen: set[bytes] = set()
    marked: list[Result] = []
    for result in results:
        if isinstance(result, Settled) and result.receipt.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE):
            digest = result.priced.charge.record.digest
            marked.append(Settled(result.priced, result.receipt, repeated=True) if digest in seen else result)
            seen.add(digest)
        else:
            marked.append(result)
    return marked


def _terms_keep_changing() -> errors.TallybookError:
    return errors.Unavailable(
        "terms_changing", f"The customer's terms changed {_ATTEMPTS} times in a row; send the same ids again."
    )


def refusal(settled: Settled) -> errors.TallybookError | None:
    """Why the till did not take an event, as the caller is told; None for one that is recorded (now or before)."""
    outcome, event = settled.receipt.outcome, settled.priced.event
    if outcome is Outcome.REFUSED:
        return _exhausted(settled)
    if outcome is Outcome.CONFLICT:
        if settled.receipt.same_request:
            message = "This Idempotency-Key was used with another body before."
            return errors.Conflict("idempotency_key_mismatch", message)
        message = f"Event {event.event_id} of customer {event.customer_id} was recorded before with another payload."
        return errors.Conflict(
            "conflict", message, param="eventId", details={"id": ids.event_public_id(settled.priced.charge.record.digest)}
        )
    if outcome is Outcome.LIMIT:
        return errors.invalid("value", "The pool would leave the range in which it is exact (4e18 of its smallest unit).")
    if outcome is Outcome.FROZEN:
        return freezing.refusal(settled.receipt)
    return None


EXHAUSTED = {
    ConsumptionModel.METERED: ("included_limit_reached", "The usage would exceed what the plan includes"),
    ConsumptionModel.CREDITS: ("insufficient_credits", "The customer has not enough credits"),
    ConsumptionModel.BALANCE: ("insufficient_balance", "The customer's balance does not cover the usage"),
}
"""Code and message for a pool that does not cover what is asked of it."""


def _exhausted(settled: Settled) -> errors.BillingError:
    code, message = EXHAUSTED[settled.priced.subscription.consumption_model]
    needed = -settled.priced.charge.amount
    left = settled.receipt.left + settled.receipt.spare_left
    details = {"needed": str(needed), "left": str(left), "scale": "1e-9"}
    return errors.BillingError(code, f"{message} ({settled.priced.event.feature_code}). Nothing was recorded.", details=details)

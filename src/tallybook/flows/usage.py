"""The path of a usage event: receive → price → charge. Read this file first.

The body has been decoded (`receive`). Each event is priced with the customer's terms (`price_event`, pure), and the charges go
to the till, which deduplicates, checks, deducts and logs them in one atomic step and answers when they are on disk. When the till
says that the terms are stale, they are loaded again and only the events it did not take are priced anew.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec

from tallybook.charge import commands
from tallybook.charge.commands import Outcome, Receipt
from tallybook.charge.till import CustomerView
from tallybook.core import clock, errors, failpoints, ids
from tallybook.core.tenant import Tenant
from tallybook.flows import current_book, freezing, old_ids, price_event, recorded_before, stores_away, unknown_features
from tallybook.flows.price_event import PricedEvent
from tallybook.flows.services import Services
from tallybook.receive import times
from tallybook.receive.model import Event
from tallybook.subscriptions.terms import ConsumptionModel, Terms

_ATTEMPTS = 5
"""How often an event is priced anew when its terms change under it before the caller is asked to come back."""
_BOOK_LACKS = frozenset({"ambiguous_model", "model_not_found", "model_unpriced", "price_not_listed"})
"""What a newer price book, with an alias or a price that was just set, may know."""
_ACCEPTED, _DUPLICATE, _STALE = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.STALE
_NOBODY: frozenset[str] = frozenset()
_UNKNOWN_CUSTOMER = "customer_not_found"


class Source(msgspec.Struct, frozen=True, gc=False):
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

    Raises what the stores raise when nothing is known about any of them (`stores_away.UNANSWERED`).
    """
    failpoints.reach("usage.received")
    delivery = _delivery(services, source)
    results: list[Result | None] = [None if isinstance(event, Event) else event for event in events]
    pending = [
        _Pending(place, event, _identity(source, place, event)) for place, event in enumerate(events) if isinstance(event, Event)
    ]
    for attempt in range(_ATTEMPTS):
        try:
            pending = await _attempt(services, delivery, pending, results, is_first=attempt == 0)
        except stores_away.UNANSWERED as error:
            if not any(isinstance(result, Settled) for result in results):
                raise
            for one in pending:
                results[one.place] = stores_away.told(error)
            pending = []
        if not pending:
            break
    for one in pending:
        results[one.place] = _terms_keep_changing()
    settled = cast("list[Result]", results)
    if not all(isinstance(result, Settled) and result.receipt.outcome is _ACCEPTED for result in settled):
        await _tell_recorded_before(services, delivery, events, settled)
        settled = _mark_repeats(await _tell_unknown_features(services, source, events, settled))
        if stores_away.is_all(settled):
            raise cast("errors.TallybookError", settled[0])
    failpoints.reach("usage.before_reply")
    return settled


async def _attempt(
    services: Services, delivery: "_Delivery", pending: Sequence["_Pending"], results: list[Result | None], *, is_first: bool
) -> list["_Pending"]:
    """Price and charge, note the results, and return what has to be priced anew."""
    loaded = _NOBODY if is_first else await _reload(services, delivery, pending)
    outcomes = [_price(services, delivery, one) for one in pending]
    if not all(isinstance(outcome, PricedEvent) for outcome in outcomes):
        outcomes = await _doubt(services, delivery, pending, outcomes, loaded)
    return await _charge(services, pending, outcomes, results)


class _Pending(msgspec.Struct, frozen=True, gc=False):
    place: int
    event: Event
    identity: str


def _identity(source: Source, place: int, event: Event) -> str:
    """The caller's event id; without one the request's key and the place in it; without either this delivery is its own event."""
    return event.event_id or f"\x01event\x01{source.idempotency_key or secrets.token_hex(16)}\x01{place}"


_Outcome = PricedEvent | errors.TallybookError | None
"""An event with its price, why it is refused, or None when it has to be priced again with newer terms."""


class _Delivery(msgspec.Struct, frozen=True, gc=False):
    """What all events of one request have in common."""

    source: Source
    idempotency: bytes
    now_ms: int
    past_ms: int


def _delivery(services: Services, source: Source) -> _Delivery:
    idempotency = commands.idempotency_hash(source.idempotency_key)
    return _Delivery(source, idempotency, clock.to_ms(services.clock()), services.settings.retention_ms)


async def _reload(services: Services, delivery: _Delivery, pending: Iterable[_Pending]) -> frozenset[str]:
    """Load the price book and the terms of all customers again. Returns the customers."""
    await current_book.refresh(services)
    references = frozenset(one.event.customer_id for one in pending)
    await asyncio.gather(*(services.terms.load(delivery.source.tenant, reference) for reference in references))
    return references


def _price(services: Services, delivery: _Delivery, one: _Pending) -> _Outcome:
    """The priced event, what is wrong with it, or None when its terms or the price book have to be loaded again."""
    event = one.event
    terms = services.terms.at_hand(delivery.source.tenant, event.customer_id)
    if terms is None:
        return errors.NotFound(_UNKNOWN_CUSTOMER, f"There is no customer {event.customer_id}.", param="customerId")
    if terms.catalog_version > services.book.version:
        return None
    now_ms = delivery.now_ms if terms.simulated_at is None else clock.to_ms(terms.simulated_at)
    try:
        if event.occurred_at_ms is not None:
            times.check_time(event.occurred_at_ms, now_ms, delivery.source.field(one.place, "timestamp"), delivery.past_ms)
        return price_event.price(event, terms, services.book, now_ms, one.identity, delivery.idempotency)
    except price_event.PeriodUnknown:
        return None
    except errors.TallybookError as error:
        return error


async def _doubt(
    services: Services, delivery: _Delivery, pending: Sequence[_Pending], outcomes: list[_Outcome], loaded: frozenset[str]
) -> list[_Outcome]:
    """Look again at what was not priced: the customer may not have been met yet, and book and terms at hand may be old."""
    used = _terms_of_refused(services, delivery, pending, outcomes)
    strangers = {
        one.event.customer_id for one, outcome in zip(pending, outcomes, strict=True) if _code(outcome) == _UNKNOWN_CUSTOMER
    } - loaded
    if strangers:
        loading = {reference: services.terms.load(delivery.source.tenant, reference) for reference in strangers}
        _, away = await stores_away.gather(loading)
        outcomes = [
            away.get(one.event.customer_id) or _price(services, delivery, one) if one.event.customer_id in strangers else outcome
            for one, outcome in zip(pending, outcomes, strict=True)
        ]
    if any(_code(outcome) in _BOOK_LACKS for outcome in outcomes):
        outcomes = await _with_newer_book(services, delivery, pending, outcomes)
    refused = {one.event.customer_id for one, outcome in zip(pending, outcomes, strict=True) if _code(outcome) is not None}
    doubted = refused - loaded - strangers
    used = {reference: terms for reference, terms in used.items() if reference in doubted}
    views, away = await stores_away.gather(
        {name: services.till.read(one.tenant.id, one.customer_id) for name, one in used.items()}
    )
    changed: dict[str, _Outcome] = dict[str, _Outcome](away)
    changed |= {reference: None for reference, view in views.items() if _is_newer(view, used[reference])}
    return [
        outcome if _code(outcome) is None else changed.get(one.event.customer_id, outcome)
        for one, outcome in zip(pending, outcomes, strict=True)
    ]


async def _with_newer_book(
    services: Services, delivery: _Delivery, pending: Sequence[_Pending], outcomes: Sequence[_Outcome]
) -> list[_Outcome]:
    """The outcomes, with another one for those events whose price may stand in a newer book."""
    try:
        is_newer = await current_book.refresh(services)
    except stores_away.UNANSWERED as error:
        problem = stores_away.told(error)
        return [problem if _code(outcome) in _BOOK_LACKS else outcome for outcome in outcomes]
    return [
        _price(services, delivery, one) if is_newer and _code(outcome) in _BOOK_LACKS else outcome
        for one, outcome in zip(pending, outcomes, strict=True)
    ]


def _terms_of_refused(
    services: Services, delivery: _Delivery, pending: Sequence[_Pending], outcomes: Sequence[_Outcome]
) -> dict[str, Terms]:
    """By customer, the terms that refusals were made with: to be asked before anything is waited for, as others load newer ones."""
    refused = {one.event.customer_id for one, outcome in zip(pending, outcomes, strict=True) if _code(outcome) is not None}
    found = {reference: services.terms.at_hand(delivery.source.tenant, reference) for reference in refused}
    return {reference: terms for reference, terms in found.items() if terms is not None}


def _is_newer(view: CustomerView, terms: Terms) -> bool:
    """Whether the till knows newer terms than these: what is refused never gets there to be checked."""
    return view.tenant_version > terms.tenant_version or view.customer_version > terms.customer_version


def _code(outcome: _Outcome | Result) -> str | None:
    """Why an event is refused; None for one that is not."""
    return outcome.code if isinstance(outcome, errors.TallybookError) else None


async def _charge(
    services: Services, pending: Sequence[_Pending], outcomes: Sequence[_Outcome], results: list[Result | None]
) -> list[_Pending]:
    """Charge what was priced and is not in the book already, note all results, and return what has to be priced anew."""
    priced: list[tuple[_Pending, PricedEvent]] = []
    again: list[_Pending] = []
    for one, outcome in zip(pending, outcomes, strict=True):
        if isinstance(outcome, PricedEvent):
            priced.append((one, outcome))
        elif outcome is None:
            again.append(one)
        else:
            results[one.place] = outcome
    if any(good.event.occurred_at_ms is not None for _, good in priced):
        priced = _without_known(priced, await old_ids.look_up(services, [good for _, good in priced]), results)
    if not priced:
        return again
    receipts = await services.till.settle([good.charge for _, good in priced])
    for (one, good), receipt in zip(priced, receipts, strict=True):
        if isinstance(receipt, errors.TallybookError):
            results[one.place] = receipt
        elif receipt.outcome is _STALE:
            again.append(one)
        else:
            results[one.place] = Settled(good, receipt)
    return again


def _without_known(
    priced: Sequence[tuple[_Pending, PricedEvent]], known: Mapping[bytes, old_ids.Known], results: list[Result | None]
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


async def _tell_recorded_before(
    services: Services, delivery: _Delivery, events: Sequence[Event | errors.TallybookError], results: list[Result]
) -> None:
    """Put the original result in place of a refusal of what was recorded before."""
    source, asked = delivery.source, dict[int, recorded_before.Refused]()
    for place, (event, result) in enumerate(zip(events, results, strict=True)):
        if isinstance(event, Event) and isinstance(result, errors.TallybookError):
            terms = services.terms.at_hand(source.tenant, event.customer_id)
            identity = _identity(source, place, event)
            if refused := recorded_before.refused(event, result, terms, identity, delivery.idempotency):
                asked[place] = refused
    try:
        known = await recorded_before.look_up(services, asked)
    except stores_away.UNANSWERED as error:
        known = dict.fromkeys(asked, stores_away.told(error))
    for place, answer in known.items():
        results[place] = answer if isinstance(answer, errors.TallybookError) else Settled(*answer)


async def _tell_unknown_features(
    services: Services, source: Source, events: Sequence[Event | errors.TallybookError], results: list[Result]
) -> list[Result]:
    """The results, with `feature_not_found` where the plan lacks a feature because nobody has it."""
    lacking = {
        place: event.feature_code
        for place, (event, result) in enumerate(zip(events, results, strict=True))
        if _code(result) == "feature_not_in_plan" and isinstance(event, Event)
    }
    if lacking:
        unknown = set[str]()
        with contextlib.suppress(*stores_away.UNANSWERED):  # then the refusal is right, and less precise
            unknown = await unknown_features.unknown(services, source.tenant, set(lacking.values()))
        for place, code in lacking.items():
            if code in unknown:
                results[place] = unknown_features.not_found(code, source.field(place, "featureCode"))
    return results


def _mark_repeats(results: Sequence[Result]) -> list[Result]:
    seen: set[bytes] = set()
    marked: list[Result] = []
    for result in results:
        if isinstance(result, Settled) and result.receipt.outcome in (_ACCEPTED, _DUPLICATE):
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
    if outcome is _ACCEPTED or outcome is _DUPLICATE:
        return None
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
    return freezing.refusal(settled.receipt) if outcome is Outcome.FROZEN else None


EXHAUSTED = {
    ConsumptionModel.METERED: ("included_limit_reached", "The usage would exceed what the plan includes"),
    ConsumptionModel.CREDITS: ("insufficient_credits", "The customer has not enough credits"),
    ConsumptionModel.BALANCE: ("insufficient_balance", "The customer's balance does not cover the usage"),
}
"""Code and message for a pool that does not cover what is asked of it."""


def _exhausted(settled: Settled) -> errors.BillingError:
    code, message = EXHAUSTED[settled.priced.tariff.consumption_model]
    needed = -settled.priced.charge.amount
    left = settled.receipt.left + settled.receipt.spare_left
    details = {"needed": str(needed), "left": str(left), "scale": "1e-9"}
    return errors.BillingError(code, f"{message} ({settled.priced.event.feature_code}). Nothing was recorded.", details=details)

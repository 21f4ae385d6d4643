"""The demo's usage: a month of events, made from a seed, in the order in which each customer sends them.

A customer's events are sent one request after the other, so that what each answer must say is known beforehand; customers send
at the same time.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from tallybook.cli.demo import cast
from tallybook.cli.demo.cast import Customer, Json
from tallybook.core import clock, money

BATCH_EVENTS = 100
_MONTH = timedelta(days=27)
_RETRY_EVERY, _REPEAT_EVERY = 8, 11
_REPEATED_EVENTS = 25
_SEEN_EVENTS = 10


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an AI request used. `input` is the whole prompt, cache reads and writes included."""

    model: str
    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0


class Fate(StrEnum):
    """What must become of an event, apart from what its pool says."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Event:
    """One usage event. `code` is the error that a rejected or invalid one must get."""

    id: str
    customer: str
    feature: str
    at: datetime
    quantity_nano: int = money.NANO
    tokens: Tokens | None = None
    fate: Fate = Fate.COUNTED
    code: str = ""

    def body(self) -> Json:
        """The event on the wire."""
        body: Json = {
            "eventId": self.id,
            "customerId": self.customer,
            "featureCode": self.feature,
            "timestamp": clock.iso(self.at),
        }
        if self.tokens is None:
            return {**body, "value": Decimal(self.quantity_nano) / money.NANO}
        return {
            **body,
            "model": self.tokens.model,
            "inputTokens": self.tokens.input,
            "outputTokens": self.tokens.output,
            "cacheReadTokens": self.tokens.cache_read,
            "cacheWriteTokens": self.tokens.cache_write,
        }


class Sending(StrEnum):
    """How a request is sent: for the first time, once more as it was, or its events in a request of their own."""

    FIRST = "first"
    RETRY = "retry"
    REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Request:
    """Events sent together under one idempotency key. A request of one event may be a `single`."""

    key: str
    events: tuple[Event, ...]
    sending: Sending = Sending.FIRST
    is_single: bool = False


@dataclass(frozen=True, slots=True)
class Purchase:
    """Credits bought."""

    customer: str
    credits: int


Step = Request | Purchase
_Maker = Callable[[random.Random], tuple[str, int, Tokens | None]]
"""Makes one use: a feature, a quantity in nano-units, tokens."""

SONNET = "anthropic/claude-sonnet-4.6"
MODELS = (
    SONNET,
    "anthropic/claude-haiku-4.5",
    "openai/gpt-5",
    "openai/gpt-5-mini",
    "openai/gpt-4o-mini",
    "google/gemini-2.5-pro",
    "google/gemini-2.5-flash",
    "deepseek/deepseek-v3.2",
)
"""More than the six largest; all have a price for cache reads."""
_WEIGHTS = (20, 15, 12, 14, 10, 9, 12, 8)
_WRITES_CACHE = "anthropic/"
EXAMPLE = Tokens(SONNET, input=10_000, output=2_000, cache_read=7_000, cache_write=1_000)
"""The documentation's own example; with a margin of 20 % it is charged at $0.05022."""
_BOUGHT_CREDITS = 500


def of_customers(seed: int, start: datetime) -> dict[Customer, Sequence[Step]]:
    """A month of usage by customer. Blocked customers go on trying after their pool is empty."""
    plans: dict[Customer, tuple[_Maker, int]] = {
        cast.ACME: (_calls_and_storage, 3_600),
        cast.BIRCH: (_calls, 1_400),
        cast.CEDAR: (_pictures, 900),
        cast.DELTA: (_chat_and_scans(700), 3_300),
        cast.EMBER: (_chat_and_scans(250), 1_500),
        cast.FJORD: (_chat_and_scans(1_400), 350),
        cast.GROVE: (_calls, 140),
    }
    month: dict[Customer, Sequence[Step]] = {}
    for customer, (make, count) in plans.items():
        dice = random.Random(f"{seed} {customer.code}")  # noqa: S311 - repeatable on purpose
        events = list(_events(customer, make, count, start, dice))
        runs_dry = customer.plan.is_free or customer.plan.model == "credits" or customer.plan.blocks is True
        month[customer] = [*_requests(customer.code, events, may_run_dry=runs_dry), *_purchase(customer, events)]
    return month


def _events(customer: Customer, make: _Maker, count: int, start: datetime, dice: random.Random) -> Iterable[Event]:
    apart = _MONTH / count
    for number in range(count):
        feature, quantity_nano, tokens = make(dice)
        at = start + apart * (number + dice.random())
        yield Event(f"{customer.code}-{number:05d}", customer.code, feature, at, quantity_nano, tokens)


def _requests(name: str, events: Sequence[Event], *, may_run_dry: bool) -> Iterable[Request]:
    """Batches, some of them sent again: of pools that run dry only the first, because what was refused may be sent anew."""
    for number, first in enumerate(range(0, len(events), BATCH_EVENTS)):
        request = Request(f"{name}-{number:03d}", tuple(events[first : first + BATCH_EVENTS]))
        yield request
        again = number == 0 if may_run_dry else number % _RETRY_EVERY == 1
        if again:
            yield replace(request, sending=Sending.RETRY)
        if number == 0 or (not may_run_dry and number % _REPEAT_EVERY == 0):
            yield Request(f"{request.key}-repeated", request.events[:_REPEATED_EVENTS], Sending.REPEAT)


def _purchase(customer: Customer, events: Sequence[Event]) -> Iterable[Step]:
    """Credits have run out: buy some, and send what was refused again under the ids it had, until they have run out as well."""
    if customer is not cast.CEDAR:
        return
    yield Purchase(customer.code, _BOUGHT_CREDITS)
    tail = events[-3 * BATCH_EVENTS :]
    for number, first in enumerate(range(0, len(tail), BATCH_EVENTS)):
        yield Request(f"{customer.code}-after-purchase-{number}", tuple(tail[first : first + BATCH_EVENTS]))


def _calls(_dice: random.Random) -> tuple[str, int, None]:
    return cast.API_CALLS, money.NANO, None


def _calls_and_storage(dice: random.Random) -> tuple[str, int, None]:
    if dice.random() < 0.08:  # noqa: PLR2004 - the mix
        return cast.STORAGE, dice.randint(1, 8) * money.NANO // 4, None
    return _calls(dice)


def _pictures(dice: random.Random) -> tuple[str, int, None]:
    return (cast.IMAGES if dice.random() < 0.45 else cast.THUMBNAILS), money.NANO, None  # noqa: PLR2004 - the mix


def _chat_and_scans(median_output: int) -> _Maker:
    def make(dice: random.Random) -> tuple[str, int, Tokens | None]:
        if dice.random() < 0.15:  # noqa: PLR2004 - the mix
            return cast.SCANS, dice.randint(1, 6) * money.NANO, None
        [model] = dice.choices(MODELS, _WEIGHTS)
        prompt = int(dice.lognormvariate(8.0, 0.8))
        read = int(prompt * dice.choice((0, 0, 0.4, 0.7)))
        write = int(prompt * dice.choice((0, 0.1))) if model.startswith(_WRITES_CACHE) else 0
        output = int(dice.lognormvariate(0, 0.7) * median_output)
        return cast.CHAT, money.NANO, Tokens(model, min(prompt, 100_000), output, min(read, 70_000), min(write, 10_000))

    return make


def example(at: datetime) -> Sequence[Request]:
    """The documentation's AI example as one request, its retry, and its event in another request."""
    event = Event("doc-example", cast.EMBER.code, cast.CHAT, at, tokens=EXAMPLE)
    first = Request("doc-example", (event,), is_single=True)
    return [first, replace(first, sending=Sending.RETRY), Request("doc-example-2", (event,), Sending.REPEAT, is_single=True)]


def mixed_batch(seen: Sequence[Event], at: datetime) -> Request:
    """A hundred events of which one each is a duplicate, a conflict, invalid and refused; `seen` were taken before."""
    customer = cast.ACME.code
    good = [Event(f"mixed-{number:02d}", customer, cast.API_CALLS, at) for number in range(BATCH_EVENTS - 4)]
    too_much_cache = Tokens(SONNET, input=1_000, output=10, cache_read=900, cache_write=200)
    odd = [
        replace(seen[0], fate=Fate.DUPLICATE),
        replace(seen[1], quantity_nano=seen[1].quantity_nano + money.NANO, fate=Fate.CONFLICT),
        Event("mixed-invalid", cast.EMBER.code, cast.CHAT, at, tokens=too_much_cache, fate=Fate.INVALID, code="validation_error"),
        Event("mixed-refused", cast.GROVE.code, cast.API_CALLS, at, fate=Fate.REJECTED, code="included_limit_reached"),
    ]
    for place, event in zip((10, 30, 50, 70), odd, strict=True):
        good.insert(place, event)
    return Request("mixed", tuple(good))


def mistakes(at: datetime) -> Sequence[Request]:
    """What must never be taken, and never at $0: each alone, with the error that it must get."""
    tokens = Tokens("anthropic/claude-sonnet-46x", input=100, output=100)
    wrong = [
        Event("bad-model", cast.EMBER.code, cast.CHAT, at, tokens=tokens, fate=Fate.INVALID, code="model_not_found"),
        Event("bad-customer", "nobody", cast.API_CALLS, at, fate=Fate.INVALID, code="customer_not_found"),
        Event("bad-feature", cast.BIRCH.code, cast.SCANS, at, fate=Fate.REJECTED, code="feature_not_in_plan"),
        Event("bad-time", cast.BIRCH.code, cast.API_CALLS, at - timedelta(days=40), fate=Fate.INVALID, code="validation_error"),
    ]
    return [Request(event.id, (event,), is_single=True) for event in wrong]


def once_more(request: Request) -> Request:
    """The same request, sent again because its answer may have been lost."""
    return replace(request, sending=Sending.RETRY)


def seen_of(steps: Sequence[Step]) -> Sequence[Event]:
    """Some events that a customer sent early on."""
    first = next(step for step in steps if isinstance(step, Request))
    return first.events[:_SEEN_EVENTS]

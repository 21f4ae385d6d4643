"""Requests, encoded before the clock starts. All that changes from use to use is the number in the event ids.

A request's body holds two marks of eight bytes. `FRESH` becomes the number of this request, so the ids are new; `EARLIER` becomes the
number of the request before it from the same template, so an event under it is a repeat. One `bytes.replace` makes 100 fresh events.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson

Json = dict[str, Any]
FRESH, EARLIER = b"@@@@@@@@", b"^^^^^^^^"
MODELS = (
    "anthropic/claude-sonnet-4.6",
    "openai/gpt-4o",
    "gpt-4o-mini",
    "google/gemini-2.5-flash",
    "anthropic/claude-haiku-4.5",
)
BATCH, SINGLE, CHECK = "/usage/events/batch", "/usage/events", "/usage/check"
_SHARES = ((1, 0.35), (4, 0.43), (5, 0.12))
"""Of the power law: how many customers, and what they send together; the others send the rest evenly."""
_REPEATED, _CHANGED, _LATE, _PLAIN = 0.01 * 7 / 6, 0.001 * 7 / 6, 0.01, 0.2
"""Of all events; the first of a request has none before it that it could repeat."""
_LATE_S = (3600.0, 71.9 * 3600)


class Spec(msgspec.Struct, frozen=True):
    """One kind of traffic. `run` is part of every event id, so that runs on one installation do not repeat each other."""

    workload: str
    run: str
    customers: Sequence[str]
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Expected:
    """What the answers to one request must say."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    checks: int = 0


@dataclass(slots=True)
class Template:
    """A request that can be sent again and again, by one connection at a time: repeats are of requests that were answered."""

    path: str
    body: bytes
    expected: Expected
    _earlier: bytes = b""

    def next_body(self, number: int) -> bytes:
        """The body as the request with this number, of the same length each time."""
        fresh = b"%08d" % number
        body = self.body.replace(FRESH, fresh)
        if self.expected.duplicates or self.expected.conflicts:
            body = body.replace(EARLIER, self._earlier or fresh)
            self._earlier = fresh
        return body


def templates(spec: Spec) -> list[Template]:
    """The requests of a workload, to be sent in turn."""
    return _MAKERS[spec.workload](spec, random.Random(spec.seed))


def _uniform_batches(spec: Spec, dice: random.Random) -> list[Template]:
    """W2: 100 AI events a request, customers in turn, so that all of them get the same."""
    return [
        _batch([_ai_event(spec, dice, spec.customers[(100 * i + k) % len(spec.customers)], k) for k in range(100)])
        for i in range(128)
    ]


def _hot_customer(spec: Spec, dice: random.Random) -> list[Template]:
    """W4: the same for one customer."""
    return [_batch([_ai_event(spec, dice, spec.customers[0], k) for k in range(100)]) for _ in range(128)]


def _singles(spec: Spec, dice: random.Random) -> list[Template]:
    """One AI event a request."""
    return [_single(_ai_event(spec, dice, customer, 0)) for customer in dice.choices(spec.customers, k=2048)]


def _gate(spec: Spec, dice: random.Random) -> list[Template]:
    """W3: 60 % checks, 40 % single events."""
    return [_check(event) if dice.random() < 0.6 else _single(event) for event in (_one(spec, dice) for _ in range(2048))]


def _one(spec: Spec, dice: random.Random) -> Json:
    return _ai_event(spec, dice, dice.choice(spec.customers), 0)


def _realistic(spec: Spec, dice: random.Random) -> list[Template]:
    """W1: 7 events a request, some of them repeated, changed, late or not AI."""
    weights = power_law(len(spec.customers))
    now = datetime.now(UTC)
    return [_realistic_batch(spec, dice, weights, now) for _ in range(4096)]


def power_law(customers: int) -> list[float]:
    """The share of each customer: the top 1, 5 and 10 send 35, 78 and 90 %."""
    shares = [share / count for count, share in _SHARES for _ in range(count)]
    rest = customers - len(shares)
    return [*shares, *([(1 - sum(shares)) / rest] * rest)]


def _realistic_batch(spec: Spec, dice: random.Random, weights: Sequence[float], now: datetime) -> Template:
    events: list[Json] = []
    duplicates = conflicts = 0
    for place, customer in enumerate(dice.choices(spec.customers, weights, k=7)):
        fate = dice.random()
        fresh = [event for event in events if FRESH.decode() in event["eventId"]]
        if fresh and fate < _REPEATED + _CHANGED:
            again = dice.choice(fresh)
            changed = fate >= _REPEATED
            events.append(_repeat(again, changed=changed))
            duplicates, conflicts = duplicates + (not changed), conflicts + changed
            continue
        event = _plain_event(spec, dice, customer, place) if dice.random() < _PLAIN else _ai_event(spec, dice, customer, place)
        if dice.random() < _LATE:
            event["timestamp"] = (now - timedelta(seconds=dice.uniform(*_LATE_S))).isoformat(timespec="milliseconds")
        events.append(event)
    return _batch(events, duplicates, conflicts)


def _repeat(event: Json, *, changed: bool) -> Json:
    again = event | {"eventId": event["eventId"].replace(FRESH.decode(), EARLIER.decode())}
    if changed:
        again |= {"inputTokens": 77_777} if "model" in event else {"value": 77}
    return again


def _ai_event(spec: Spec, dice: random.Random, customer: str, place: int) -> Json:
    tokens = dice.randint(200, 8_000)
    event: Json = {
        "customerId": customer,
        "featureCode": "chat",
        "eventId": _event_id(spec, place),
        "model": dice.choice(MODELS),
        "inputTokens": tokens,
        "outputTokens": dice.randint(20, 1_500),
    }
    if dice.random() < 0.5:
        event["cacheReadTokens"] = dice.randint(0, tokens)
    return event


def _plain_event(spec: Spec, dice: random.Random, customer: str, place: int) -> Json:
    event_id, properties = _event_id(spec, place), {"region": dice.choice(("eu", "us"))}
    return {
        "customerId": customer,
        "featureCode": "exports",
        "eventId": event_id,
        "value": dice.choice((1, 2, 0.5)),
        "properties": properties,
    }


def _event_id(spec: Spec, place: int) -> str:
    return f"{spec.run}-{FRESH.decode()}-{place}"


def _batch(events: Sequence[Json], duplicates: int = 0, conflicts: int = 0) -> Template:
    expected = Expected(len(events) - duplicates - conflicts, duplicates, conflicts)
    return Template(BATCH, orjson.dumps({"events": events}), expected)


def _single(event: Json) -> Template:
    return Template(SINGLE, orjson.dumps(event), Expected(accepted=1))


def _check(event: Json) -> Template:
    asked = {name: value for name, value in event.items() if name != "eventId"}
    return Template(CHECK, orjson.dumps(asked), Expected(checks=1))


_MAKERS: Mapping[str, Callable[[Spec, random.Random], list[Template]]] = {
    "W1": _realistic,
    "W2": _uniform_batches,
    "W3": _gate,
    "W4": _hot_customer,
    "single": _singles,
}

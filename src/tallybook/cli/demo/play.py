"""Sends the demo's usage and compares each answer with what it must be."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tallybook.cli.demo.accounts import Account, Verdict
from tallybook.cli.demo.http import Adjusted, Batch, Client, DemoError, Item, Problem, Recorded, RefusedError
from tallybook.cli.demo.traffic import Event, Fate, Purchase, Request, Sending, Step
from tallybook.core import money

_BILLING = 402
_ATTEMPTS = 100
_PAUSE_S = 0.2
_SCALES = {"credits": money.NANO, "balance": money.NANO_PER_RATE}
_STATUSES = {
    Fate.DUPLICATE: "duplicate",
    Fate.CONFLICT: "conflict",
    Fate.REJECTED: "rejected",
    Fate.INVALID: "invalid",
}

Originals = dict[tuple[str, str], Recorded]
"""What was answered when an event was first taken, by customer and event id."""


@dataclass(slots=True)
class Tally:
    """How the answers were, counted as they came; `differences` are sentences about answers that were not what they must be."""

    sent: int = 0
    requests: int = 0
    accepted: int = 0
    replayed: int = 0
    duplicates: int = 0
    conflicts: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    invalid: Counter[str] = field(default_factory=Counter[str])
    differences: list[str] = field(default_factory=list[str])

    def add(self, other: "Tally") -> None:
        """Count another tally's answers too."""
        self.sent += other.sent
        self.requests += other.requests
        self.accepted += other.accepted
        self.replayed += other.replayed
        self.duplicates += other.duplicates
        self.conflicts += other.conflicts
        self.refused += other.refused
        self.invalid += other.invalid
        self.differences += other.differences


class Player:
    """Sends steps over one connection, one after the other. `originals` may be shared by players of different customers."""

    def __init__(self, client: Client, accounts: Mapping[str, Account], originals: Originals) -> None:
        self.tally = Tally()
        self._client = client
        self._accounts = accounts
        self._originals = originals
        self._answers: dict[str, list[Item]] = {}

    def play(self, steps: Sequence[Step], subscriptions: Mapping[str, str]) -> Tally:
        """Send all steps. `subscriptions` are ids by customer, for purchases. Raises DemoError, RefusedError."""
        for step in steps:
            if isinstance(step, Purchase):
                self._buy(step, subscriptions[step.customer])
            else:
                self.send(step)
        return self.tally

    def send(self, request: Request) -> list[Item]:
        """Send one request and compare its answer. Raises DemoError, RefusedError when a whole batch is refused."""
        items = self._single(request) if request.is_single else self._batch(request)
        self.tally.sent += len(request.events)
        self.tally.requests += 1
        if len(items) != len(request.events):
            self.tally.differences.append(f"{request.key}: {len(request.events)} events got {len(items)} results")
        elif request.sending is Sending.RETRY:
            self._compare_retry(request, items)
        else:
            for event, item in zip(request.events, items, strict=True):
                self._compare(request, event, item)
        self._answers.setdefault(request.key, items)
        return items

    def _batch(self, request: Request) -> list[Item]:
        """The results, once each event has one: the whole batch is sent again for those whose outcome is not known yet."""
        body = {"events": [event.body() for event in request.events]}
        for _ in range(_ATTEMPTS):
            items = self._client.post("/usage/events/batch", body, Batch, request.key).results
            if all(item.status != "retry" for item in items):
                return items
            time.sleep(_PAUSE_S)
        raise DemoError(f"batch {request.key} was not settled in {_ATTEMPTS} attempts")

    def _single(self, request: Request) -> list[Item]:
        try:
            recorded = self._client.post("/usage/events", request.events[0].body(), Recorded, request.key)
        except RefusedError as refused:
            return [_as_item(refused.status, refused.problem)]
        return [Item("accepted", recorded)]

    def _buy(self, step: Purchase, subscription_id: str) -> None:
        account = self._accounts[step.customer]
        body = {"amount": step.credits, "type": "credits", "reason": "credits bought"}
        path = f"/subscriptions/{subscription_id}/balance/adjust"
        adjusted = self._client.post(path, body, Adjusted, f"purchase-{step.customer}")
        account.bought += step.credits * money.NANO
        if adjusted.new_balance * money.NANO != account.left:
            self.tally.differences.append(
                f"{step.customer} has {adjusted.new_balance} credits after its purchase, not {money.units(account.left)}"
            )

    def _compare_retry(self, request: Request, items: list[Item]) -> None:
        self.tally.replayed += len(items)
        for event, item, before in zip(request.events, items, self._answers[request.key], strict=True):
            if item != before:
                self._differs(event, f"was answered {_shown(before)}, and its retry {_shown(item)}")

    def _compare(self, request: Request, event: Event, item: Item) -> None:
        self._count(item)
        if request.sending is Sending.REPEAT or event.fate is Fate.DUPLICATE:
            self._compare_repeat(event, item)
        elif event.fate is Fate.COUNTED:
            self._compare_taken(event, item, self._accounts[event.customer].count(event))
        elif item.status != _STATUSES[event.fate] or (event.code and _code(item) != event.code):
            self._differs(event, f"must be {event.fate} {event.code}, got {_shown(item)}")

    def _compare_repeat(self, event: Event, item: Item) -> None:
        original = self._originals.get((event.customer, event.id))
        if item.status != "duplicate" or item.event != original:
            self._differs(event, f"was taken before as {original}, and its repeat is {_shown(item)}")

    def _compare_taken(self, event: Event, item: Item, verdict: Verdict) -> None:
        if not verdict.is_taken:
            if item.status != "rejected":
                self._differs(event, f"must be refused, got {_shown(item)}")
            return
        if item.status != "accepted" or item.event is None:
            self._differs(event, f"must be accepted, got {_shown(item)}")
            return
        self._originals[event.customer, event.id] = item.event
        consumption = item.event.consumption
        if consumption is None:
            if verdict.charge:
                self._differs(event, "says nothing of what it took")
            return
        scale = _SCALES[consumption.model]
        found = consumption.deducted * scale, consumption.remaining * scale
        if found != (verdict.charge, verdict.left):
            self._differs(
                event, f"took {found[0]} and left {found[1]}, and must take {verdict.charge} and leave {verdict.left} (1e-9)"
            )

    def _count(self, item: Item) -> None:
        tally = self.tally
        if item.status == "accepted":
            tally.accepted += 1
        elif item.status == "duplicate":
            tally.duplicates += 1
        elif item.status == "conflict":
            tally.conflicts += 1
        elif item.status == "rejected":
            tally.refused[_code(item)] += 1
        else:
            tally.invalid[_code(item)] += 1

    def _differs(self, event: Event, what: str) -> None:
        self.tally.differences.append(f"event {event.id} of {event.customer} {what}")


def _as_item(status: int, problem: Problem) -> Item:
    """The error of a single event, as a batch would show it."""
    if problem.code == "duplicate":
        return Item("duplicate", msgspec.convert(problem.details, Recorded))
    if problem.code == "conflict":
        return Item("conflict", error=problem)
    return Item("rejected" if status == _BILLING else "invalid", error=problem)


def _code(item: Item) -> str:
    return "" if item.error is None else item.error.code


def _shown(item: Item) -> str:
    return f"{item.status} {item.event if item.error is None else item.error}"

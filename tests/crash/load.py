"""The load client: sends events of all consumption models, believes nothing but a definite answer, and repeats what it does not know.

Every id ends as accepted or refused. An answer that never came, a 5xx, a 429 or a `retry` leaves the id unknown: it is sent again
with the same content, to any API process, until the answer is definite. A `duplicate` of an own id is an acceptance; its amount is
the original's.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import aiohttp

from tests.crash.oracle import Answer, Identity, Sent

Json = dict[str, Any]
BATCH_MAX = 60
REMEMBERED_MAX = 20_000
"""Accepted events that may be sent again: a sample of all."""
_REQUEST_S_MAX = 8.0
_AGAIN_S = 0.05
MODELS = ("anthropic/claude-sonnet-4.6", "gpt-4o", "openai/gpt-4o-mini", "google/gemini-2.5-flash")


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer under load: its row id, the reference events use, the feature they are for and how an event looks."""

    id: int
    reference: str
    feature: str
    is_ai: bool
    amount_scale: int
    """1e-9 units of the pool in one unit of `deducted` on the wire; 0 when the wire does not say."""


@dataclass(slots=True)
class Load:
    """What was sent and what is known of it."""

    tenant_id: int
    key: str
    urls: Sequence[str]
    customers: Sequence[Customer]
    dice: random.Random
    rate: float = 0.0
    """New events in a second at most; 0: as many as are answered."""
    sent: dict[Identity, Sent] = field(default_factory=dict[Identity, Sent])
    pending: list[tuple[Customer, Json]] = field(default_factory=list[tuple[Customer, Json]])
    settled: list[tuple[Customer, Json]] = field(default_factory=list[tuple[Customer, Json]])
    accepted: int = 0
    duplicates: int = 0
    requests_failed: int = 0
    wrong: list[str] = field(default_factory=list[str])
    _made: int = 0
    _due_at: float = 0.0

    async def run(self, stop: asyncio.Event, tasks: int) -> None:
        """Send until told to stop, then repeat what is unknown until everything is definite."""
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S_MAX)
        async with aiohttp.ClientSession(timeout=timeout, headers={"x-api-key": self.key}) as session:
            await asyncio.gather(*(self._send_until(session, stop) for _ in range(tasks)))
            while self.pending:
                await self._send(session, self._take_pending())

    async def _send_until(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        while not stop.is_set():
            batch = self._take_pending()
            if not batch:
                batch = self._fresh()
                await self._keep_to_rate(len(batch))
            await self._send(session, batch)

    async def _keep_to_rate(self, events: int) -> None:
        """Wait for this batch's turn. What was missed is not made up for."""
        if self.rate:
            now = asyncio.get_running_loop().time()
            turn, self._due_at = max(now, self._due_at), max(now, self._due_at) + events / self.rate
            await asyncio.sleep(turn - now)

    def _take_pending(self) -> list[tuple[Customer, Json]]:
        taken, self.pending = self.pending[:BATCH_MAX], self.pending[BATCH_MAX:]
        return taken

    def _fresh(self) -> list[tuple[Customer, Json]]:
        events = [self.event() for _ in range(self.dice.randint(1, BATCH_MAX))]
        if self.settled and self.dice.random() < 0.3:
            events.append(self.dice.choice(self.settled))
        return events

    def event(self) -> tuple[Customer, Json]:
        """A new event, of which nothing is known yet."""
        customer = self.dice.choice(self.customers)
        self._made += 1
        event: Json = {"customerId": customer.reference, "featureCode": customer.feature, "eventId": f"e{self._made}"}
        if customer.is_ai:
            tokens = self.dice.randint(1, 20_000)
            event |= {"model": self.dice.choice(MODELS), "inputTokens": tokens, "outputTokens": self.dice.randint(0, 2_000)}
            event |= {"cacheReadTokens": self.dice.randint(0, tokens)} if self.dice.random() < 0.5 else {}
        else:
            event["value"] = self.dice.choice((1, 2, 0.5, 0.123456789))
        identity = Identity(self.tenant_id, customer.id, event["eventId"])
        self.sent[identity] = Sent(Answer.UNKNOWN)
        return customer, event

    async def _send(self, session: aiohttp.ClientSession, batch: list[tuple[Customer, Json]]) -> None:
        """One request for these events, noting each answer; what stays unknown is pending again."""
        url = f"{self.dice.choice(self.urls)}/api/v1/usage/events/batch"
        try:
            body = json.dumps({"events": [event for _, event in batch]})
            async with session.post(url, data=body, headers={"commet-version": "2026-08-27"}) as response:
                answer = json.loads(await response.read(), parse_float=Decimal)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            await self._not_known(batch)
            return
        if status == 200:
            for (customer, event), result in zip(batch, answer["results"], strict=True):
                self.note(customer, event, result)
            return
        if status not in (429, 500, 502, 503, 504):
            self.wrong.append(f"{status}: {answer}")
        await self._not_known(batch)

    async def _not_known(self, batch: list[tuple[Customer, Json]]) -> None:
        self.requests_failed += 1
        self.pending += [(customer, event) for customer, event in batch if self._unknown(customer, event)]
        await asyncio.sleep(_AGAIN_S)

    def _unknown(self, customer: Customer, event: Json) -> bool:
        return self.sent[self._identity(customer, event)].answer is Answer.UNKNOWN

    def _identity(self, customer: Customer, event: Json) -> Identity:
        return Identity(self.tenant_id, customer.id, event["eventId"])

    def note(self, customer: Customer, event: Json, result: Json) -> None:
        """Remember what was answered to an event."""
        identity = self._identity(customer, event)
        known = self.sent[identity]
        status = result["status"]
        if status in ("accepted", "duplicate"):
            amount = self._amount(customer, event, result["event"])
            self._check_same(known, identity, amount)
            self.duplicates += status == "duplicate"
            if known.answer is Answer.UNKNOWN:
                self._remember(customer, event)
            self.sent[identity] = Sent(Answer.ACCEPTED, amount)
        elif status == "rejected":
            if known.answer is Answer.ACCEPTED:
                self.wrong.append(f"{identity} was accepted and then refused")
            self.sent[identity] = Sent(Answer.REFUSED)
        elif status == "retry":
            self.pending.append((customer, event))
        else:
            self.wrong.append(f"{identity}: {result}")

    def _remember(self, customer: Customer, event: Json) -> None:
        """Count an accepted event, and keep it or forget it in place of another one."""
        self.accepted += 1
        if len(self.settled) < REMEMBERED_MAX:
            self.settled.append((customer, event))
        else:
            self.settled[self.dice.randrange(REMEMBERED_MAX)] = (customer, event)

    def _check_same(self, known: Sent, identity: Identity, amount: int) -> None:
        if known.answer is Answer.ACCEPTED and known.amount != amount:
            self.wrong.append(f"{identity} was answered with {known.amount} and then with {amount}")

    def _amount(self, customer: Customer, event: Json, recorded: Json) -> int:
        """What was taken from the pool, in 1e-9 of its unit: what the answer says, or for units what was sent."""
        if not customer.amount_scale:
            return int(Decimal(str(event["value"])) * 10**9)
        return int(Decimal(str(recorded["consumption"]["deducted"])) * customer.amount_scale)

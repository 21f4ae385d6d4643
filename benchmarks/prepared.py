"""Events on the way through the service, step by step in this process, with the functions that the service itself runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import traffic
from benchmarks.installation import Installation
from tallybook.charge.commands import Charge
from tallybook.core import clock
from tallybook.flows import price_event
from tallybook.flows.price_event import PricedEvent
from tallybook.flows.services import Services
from tallybook.receive import events as receive
from tallybook.receive.model import Event
from tallybook.subscriptions.terms import Terms

A_CALL = 500
"""Events of one call to the till under full load."""
_NO_KEY = bytes(4)


@dataclass(frozen=True, slots=True)
class Ready:
    """Bodies of 100 events as they come in, the terms they need, and what each becomes."""

    bodies: Sequence[bytes]
    terms: dict[str, Terms]

    def parse(self) -> list[list[Event]]:
        """The events of each body."""
        return [[event for event in receive.parse_batch(body) if isinstance(event, Event)] for body in self.bodies]

    def price(self, services: Services, batches: Sequence[Sequence[Event]]) -> list[list[PricedEvent]]:
        """Each event priced, in batches as they came."""
        now_ms = clock.to_ms(services.clock())
        book, terms = services.book, self.terms
        return [
            [price_event.price(event, terms[event.customer_id], book, now_ms, event.event_id or "", _NO_KEY) for event in batch]
            for batch in batches
        ]


async def ready(installation: Installation, workload: str, events: int) -> Ready:
    """Distinct events of a batch workload. `events` is a multiple of 100."""
    spec = traffic.Spec(workload, f"prepared-{workload}", installation.account.customers)
    templates = traffic.templates(spec)
    bodies = [templates[number % len(templates)].next_body(number) for number in range(events // 100)]
    tenant, services = installation.account.tenant, installation.services
    loaded = await asyncio.gather(*(services.terms.get(tenant, customer) for customer in spec.customers))
    return Ready(bodies, {customer: terms for customer, terms in zip(spec.customers, loaded, strict=True) if terms is not None})


def charges(priced: Sequence[Sequence[PricedEvent]]) -> list[Charge]:
    """What goes to the till."""
    return [one.charge for batch in priced for one in batch]


def by_partition(every: Sequence[Charge]) -> list[list[Charge]]:
    """The same as the till groups them: call by call, and in a call by partition."""
    groups: list[list[Charge]] = []
    for start in range(0, len(every), A_CALL):
        of_call: dict[int, list[Charge]] = {}
        for charge in every[start : start + A_CALL]:
            of_call.setdefault(charge.partition, []).append(charge)
        groups += of_call.values()
    return groups

"""Put corruptions in, one at a time, and see whether both forms of reconciliation find them and say where."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tallybook.cli import reconcile as command
from tallybook.core import errors
from tallybook.flows.reconcile_round import Outcome
from tests.corruptions import kinds
from tests.corruptions.installation import Installation
from tests.corruptions.kinds import Corruption


@dataclass(frozen=True, slots=True)
class Found:
    """What the command and the worker said about one corruption."""

    kind: str
    where: str
    names: Sequence[str]
    command: Sequence[str]
    worker: Sequence[str]

    def problems(self) -> Iterator[str]:
        """What was not found, or not named."""
        for form, said in (("the command", self.command), ("the worker", self.worker)):
            if not said:
                yield f"{self.kind} ({self.where}): {form} finds nothing"
            text = "\n".join(said)
            missing = [name for name in self.names if name not in text]
            if said and missing:
                yield f"{self.kind} ({self.where}): {form} does not say {missing}, but\n{text}"


def corruptions(count: int) -> list[Corruption]:
    """So many of all kinds in turn."""
    return [kinds.KINDS[number % len(kinds.KINDS)] for number in range(count)]


async def run(made: Installation, corruption: Corruption, seed: str) -> Found:
    """Spoil one place, look in both ways, and put everything back."""
    injected = await corruption.inject(made, random.Random(seed))
    try:
        by_command = await _by_command(made)
        by_worker = await _by_worker(made)
    finally:
        await made.put_back(injected.tables)
    return Found(corruption.name, injected.where, injected.names, by_command, by_worker)


async def _by_command(made: Installation) -> list[str]:
    report = await made.look()
    if report.is_clean:
        return []
    return [line for line in command.lines(report) if not line.endswith("  ok")]


async def _by_worker(made: Installation) -> list[str]:
    try:
        outcome = await made.go_round()
    except errors.Unavailable as error:
        return [str(error).replace("{p0", "partition ").replace("}", "")]
    return list(_said(outcome))


def _said(outcome: Outcome) -> Iterator[str]:
    for wrong in outcome.wrong:
        yield wrong.what
        yield from wrong.places
    for one in outcome.differences:
        yield f"customer {one.customer_id} pool {one.pool}: {one.what}: {one.left} and {one.right}"

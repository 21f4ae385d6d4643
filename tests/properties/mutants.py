"""Faults put into the script as it is loaded, to show that the machine would notice them."""

# pyright: reportPrivateUsage=false
# The script is exchanged where it was read.

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from tallybook.charge import till


@dataclass(frozen=True, slots=True)
class Mutant:
    """A place in the script, which must be there exactly once, and what stands there instead."""

    name: str
    text: str
    instead: str


MUTANTS = (
    Mutant("skip the dedupe", "call('HSETNX', remembered, field, memory) == 1", "call('HSET', remembered, field, memory) >= 0"),
    Mutant("take before the check", "if is_negative(spare_after) then return REFUSED end", ""),
    Mutant("forget the counter", "local sequence = last_sequence + 1", "local sequence = last_sequence"),
    Mutant(
        "forget an opening",
        "return with_pool(state, pool, opening, left), left",
        "return with_pool(state, pool, '0', left), left",
    ),
    Mutant("mistake runs for customers", "own_place[run_number] or run_number", "run_number"),
    Mutant("lose a carry", "high, low = high + math.floor(low / HALF), low % HALF", "low = low % HALF"),
    Mutant("remember too short", "(generations[i] - 1)", "(generations[i] - 2)"),
)


@contextmanager
def applied(mutant: Mutant) -> Generator[None]:
    """Every till in this process uses the mutated script meanwhile."""
    script = till._SCRIPT.decode()
    assert script.count(mutant.text) == 1, mutant
    mutated = script.replace(mutant.text, mutant.instead).encode()
    digest = hashlib.sha1(mutated, usedforsecurity=False).hexdigest()
    with mock.patch.object(till, "_SCRIPT", mutated), mock.patch.object(till, "_SCRIPT_SHA", digest):
        yield

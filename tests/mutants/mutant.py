"""What a mutant is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way. `file` is below src/tallybook; `invariant` is a number of INVARIANTS.md; `quick` needs no stores to be noticed."""

    name: str
    invariant: int
    file: str
    old: str
    new: str
    test: str
    quick: bool = False

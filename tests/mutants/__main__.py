"""`python -m tests.mutants [--only WORDS]`: break the product in each known way; a named test must notice each.

Works on a copy. The named tests must pass on it before anything is broken. Prints a table and as its last line
`mutants=… killed=…`, and exits non-zero when one survived.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import workshop
from tests.mutants.catalog import MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.workshop import Workshop


def main() -> int:
    """Run them all, or those whose names contain some words."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--only", action="append", help="words of the names of some mutants; may be given more than once")
    words: list[str] = parser.parse_args().only or [""]
    chosen = [mutant for mutant in MUTANTS if any(some in mutant.name for some in words)]
    unfit = [why for mutant in chosen if (why := workshop.why_unfit(mutant)) is not None]
    if unfit or not chosen:
        print(*(unfit or ["there is no such mutant"]), sep="\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="tallybook-mutants-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        return _run(workshop.furnish(folder), chosen)


def _run(shop: Workshop, chosen: Sequence[Mutant]) -> int:
    tests = sorted({mutant.test for mutant in chosen})
    if not shop.passes(*tests):
        print("the tests fail on the unbroken product: nothing can be said")
        return 2
    killed = 0
    for mutant in chosen:
        began = time.monotonic()
        is_killed = shop.kills(mutant)
        killed += is_killed
        verdict = "killed" if is_killed else "SURVIVED"
        print(
            f"{verdict:<9} {time.monotonic() - began:5.1f} s  {mutant.invariant:>2}  {mutant.name}  [{mutant.test}]", flush=True
        )
    print(f"mutants={len(chosen)} killed={killed}")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())

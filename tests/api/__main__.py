"""`python -m tests.api --cases N --seed S`: schemathesis over the whole description, organization after organization.

Prints as its last line `cases=… server_errors=… failures=… operations=… seed=…` and exits non-zero when anything was found.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from tests.api import contract, furnishing
from tests.api.contract import Verdict
from tests.support import running
from tests.support.service import Service

PHASES = ("examples", "coverage", "fuzzing", "stateful")


def main() -> int:
    """Start a service, and try it until there were enough cases."""
    parser = argparse.ArgumentParser(prog="python -m tests.api")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--examples", type=int, default=50, help="generated requests for each operation and round")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    verdicts: list[Verdict] = []
    with running.started() as service:
        while sum(verdict.cases for verdict in verdicts) < arguments.cases:
            verdicts.append(_round(service, arguments.examples, arguments.seed + len(verdicts)))
            print(f"{sum(verdict.cases for verdict in verdicts)} cases", file=sys.stderr, flush=True)
    for failure in sorted({failure for verdict in verdicts for failure in verdict.failures}):
        print(failure)
    cases, errors, failures = (
        sum(found) for found in zip(*((one.cases, one.server_errors, len(one.failures)) for one in verdicts), strict=True)
    )
    operations = min(verdict.operations for verdict in verdicts)
    print(f"cases={cases} server_errors={errors} failures={failures} operations={operations} seed={arguments.seed}")
    return 1 if failures else 0


def _round(service: Service, examples: int, seed: int) -> Verdict:
    """Each in an organization of its own, because a round leaves much behind and takes much away."""
    account = asyncio.run(running.new_account(service))
    with tempfile.TemporaryDirectory(prefix="tallybook-contract-") as folder:
        verdict = contract.check(account, furnishing.furnish(account), Path(folder), phases=PHASES, examples=examples, seed=seed)
    with contextlib.suppress(BrokenPipeError):
        print(verdict.text if verdict.failures else "", end="", file=sys.stderr)
    return verdict


if __name__ == "__main__":
    sys.exit(main())

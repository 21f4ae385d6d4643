"""The long forms of the fault tests.

    python -m tests.crash --kills 1000            kill API processes, workers, Redis and Postgres at random under load
    python -m tests.crash --kills 300 --cluster   the same on a Redis Cluster of three masters
    python -m tests.crash --failpoints            die at every named place in the code
    python -m tests.crash --faults                stand still, lose responses, lose the till
    python -m tests.crash --same-ids 10000        the same ids at the same moment through three API processes
    python -m tests.crash --outage-s 600          Postgres away, at 2,000 events a second

Each prints its counts as its last line, with `lost=0 double=0 drift=0 unknown=0` or what is wrong before it, and then ends with 1.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.crash import campaign, failpoint_runs, faults, outage, same_ids
from tests.crash.ground import Result


def main() -> int:
    """Run one of them in a folder of its own."""
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="tallybook-crash-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        result = asyncio.run(_chosen(arguments, folder))
    for line in (*result.problems, *result.notes, result.line):
        print(line)
    return 0 if result.is_clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--events-per-kill", type=int, default=campaign.EVENTS_PER_KILL, help="accepted before the next kill")
    parser.add_argument("--cluster", action="store_true", help="with --kills: on a Redis Cluster of three masters")
    parser.add_argument("--failpoints", action="store_true")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--rounds", type=int, default=10, help="of --failpoints and --faults")
    parser.add_argument("--same-ids", type=int, default=0, metavar="IDS")
    parser.add_argument("--outage-s", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second of --outage-s")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _chosen(given: argparse.Namespace, folder: Path) -> Coroutine[Any, Any, Result]:
    common: dict[str, Any] = {"seed": given.seed, "progress": _tell}
    if given.failpoints:
        return failpoint_runs.run(folder, rounds=given.rounds, **common)
    if given.faults:
        return faults.run(folder, rounds=given.rounds, **common)
    if given.same_ids:
        return same_ids.run(folder, ids=given.same_ids, **common)
    if given.outage_s:
        return outage.run(folder, outage_s=given.outage_s, rate=given.rate, **common)
    return campaign.run(folder, kills=given.kills, events_per_kill=given.events_per_kill, clustered=given.cluster, **common)


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

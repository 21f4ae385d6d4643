"""`python -m benchmarks [--quick] [--only W2] [--json FILE]`. Exits with 1 when the run does not reconcile: then it is void."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import uvloop

from benchmarks import results
from benchmarks.installation import Size
from benchmarks.run import ON_REQUEST, QUICK, WORKLOADS, Found, Plan, run


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether it counts."""
    arguments = _parser().parse_args(words)
    size = Size(arguments.apis, arguments.workers, arguments.customers)
    started = time.perf_counter()
    found = uvloop.run(run(QUICK if arguments.quick else Plan(), size, arguments.only or WORKLOADS))
    return conclude(found, arguments.json, time.perf_counter() - started)


def conclude(found: Found, file: Path | None, seconds: float) -> int:
    """Write and print a run. Returns the exit code: 1 for a run that is void."""
    made = results.as_json(found, seconds=seconds)
    if file is not None:
        file.write_bytes(orjson.dumps(made, option=orjson.OPT_INDENT_2))
    print(results.as_text(made))
    return 0 if found.reconciled else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What Tallybook does a second on this machine.")
    parser.add_argument("--quick", action="store_true", help="a few seconds a workload, once, on one installation (about 90 s)")
    parser.add_argument(
        "--only", action="append", choices=(*WORKLOADS, *ON_REQUEST), help="this workload only; may be given several times"
    )
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--apis", type=int, default=1, help="API processes (default 1)")
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--customers", type=int, default=1000, help="customers (default 1000)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.crash --kills N --seed S`: kill processes at random under load, then judge.

Prints as its last line `kills=… acked=… lost=0 double=0 drift=0 unknown=… duplicates=… seed=…` and exits non-zero on any difference.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.crash import campaign


def main() -> int:
    """Run one campaign in a folder of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallybook-crash-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        result = asyncio.run(campaign.run(folder, kills=arguments.kills, seed=arguments.seed, progress=_tell))
    for problem in result.problems:
        print(problem)
    print(result.line)
    return 0 if result.is_clean else 1


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

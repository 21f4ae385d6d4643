"""`python -m tests.corruptions --count N --seed S`: spoil N places, of every kind in turn; each must be found and named in both forms.

Prints as its last line `corruptions=… found=… clean_before=… clean_after=… seed=…` and exits non-zero on any that was not.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from tallybook.embedded.stores import Stores
from tallybook.storage import migrate, postgres, redis
from tests.corruptions import installation, runs

_PROGRESS = 50


def main() -> int:
    """Run on stores of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.corruptions")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="tallybook-corrupt-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with Stores(folder / "data", postgres_settings={"shared_buffers": "64MB"}) as stores:
            return asyncio.run(_run(stores, given.count, given.seed))


async def _run(stores: Stores, count: int, seed: int) -> int:
    await migrate.migrate(stores.postgres.url)
    database, client = await postgres.connect(stores.postgres.url), redis.connect(stores.redis.url)
    missed = 0
    async with installation.made(database, client) as made:
        before = (await made.look()).is_clean
        for number, corruption in enumerate(runs.corruptions(count)):
            problems = list((await runs.run(made, corruption, f"{seed} {number}")).problems())
            missed += bool(problems)
            print(*problems, sep="\n", end="\n" if problems else "", flush=True)
            if (number + 1) % _PROGRESS == 0:
                print(f"{number + 1} corruptions", file=sys.stderr, flush=True)
        after = (await made.look()).is_clean
    await client.close()
    await database.close()
    print(f"corruptions={count} found={count - missed} clean_before={before} clean_after={after} seed={seed}")
    return 0 if before and after and not missed else 1


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.properties --steps N --seed S`: random histories of the till beside its model.

Prints as its last line `steps=… differences=… kills=… seed=…` and exits non-zero when a history was found in which they differ.
"""

import argparse
import asyncio
import sys
import tempfile
import traceback
from pathlib import Path

from tallybook.embedded.stores import Stores
from tallybook.storage import migrate
from tests.properties import campaign, till_world

_AT_ONCE = 1_000


def main() -> int:
    """Run on stores of its own; a round of histories is told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallybook-properties-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with Stores(folder / "book", postgres_settings={"shared_buffers": "64MB"}) as stores:
            asyncio.run(_migrate(stores.postgres.url))
            with till_world.opened(folder / "till", stores.postgres.url) as world:
                taken, differences = _run(world, arguments.steps, arguments.seed)
                print(f"steps={taken} differences={differences} kills={world.kills} seed={arguments.seed}")
    return 1 if differences else 0


def _run(world: till_world.World, steps: int, seed: int) -> tuple[int, int]:
    taken = part = 0
    while taken < steps:
        try:
            taken += campaign.run(world, steps=min(_AT_ONCE, steps - taken), seed_=f"{seed}-{part}")
        except Exception:  # noqa: BLE001 - whatever a history came to is what this looks for
            traceback.print_exc()
            return taken, 1
        part += 1
        print(f"{taken} steps", file=sys.stderr, flush=True)
    return taken, 0


async def _migrate(url: str) -> None:
    await migrate.migrate(url)


if __name__ == "__main__":
    sys.exit(main())

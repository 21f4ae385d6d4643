"""`make schema`: write down what the migrations make, for the next reader and for the test that compares."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tallybook.embedded.stores import Stores
from tallybook.storage import migrate
from tests.migration import schema_dump


def main() -> int:
    """Migrate an empty database and write its schema beside this file."""
    with tempfile.TemporaryDirectory(prefix="tallybook-schema-") as folder, Stores(Path(folder)) as stores:
        asyncio.run(migrate.migrate(stores.postgres.url))
        schema_dump.RECORDED.write_text(schema_dump.dump(stores.postgres.url), encoding="utf-8")
    print(f"wrote {schema_dump.RECORDED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

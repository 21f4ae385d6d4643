"""The command `tallybook`, which is installed with the client too, where the libraries of the service are missing."""

import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 misused or not installed, 130 interrupted."""
    try:
        from tallybook.cli import commands
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("tallybook"):
            raise
        needed = "'tallybook[server]', with `dev` and `demo` 'tallybook[server,embedded]'"
        print(f"tallybook: only the client is installed ({missing.name} is missing); the commands need {needed}", file=sys.stderr)
        return 2
    return commands.main(words)

"""`python -m tallybook.cli`: the command, wherever the package is."""

import sys

from tallybook import cli

if __name__ == "__main__":
    sys.exit(cli.main())

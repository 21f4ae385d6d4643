"""`tallybook work`: one worker process; any number of them share the partitions."""

import argparse
import os

from tallybook import settings


def configure(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose: a worker does what is due."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Work until SIGTERM or Ctrl-C."""
    from tallybook import app

    del arguments
    found = settings.from_environment(os.environ)
    settings.require_stores(found)
    app.run_worker(found)
    return 0

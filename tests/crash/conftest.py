"""Where the fault tests run."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path that the database's user can enter."""
    with tempfile.TemporaryDirectory(prefix="tallybook-crash-") as name:
        Path(name).chmod(0o711)
        yield Path(name)

"""The short form of the crash campaign, on every test run; `python -m tests.crash` is the long one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import campaign

KILLS = 10


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that the database's user can enter."""
    with tempfile.TemporaryDirectory(prefix="tallybook-crash-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


async def test_kills_under_load_lose_and_double_nothing(folder: Path) -> None:
    result = await campaign.run(folder, kills=KILLS, seed=20_261_120, progress=print)
    assert result.problems == []
    assert f"kills={KILLS} " in result.line
    assert "lost=0 double=0 drift=0 unknown=0" in result.line

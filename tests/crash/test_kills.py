"""The short form of the crash campaign, on every test run; `python -m tests.crash` is the long one."""

from pathlib import Path

from tests.crash import campaign

KILLS = 30
EVENTS_PER_KILL = 200


async def test_kills_under_load_lose_and_double_nothing(folder: Path) -> None:
    result = await campaign.run(folder, kills=KILLS, seed=20_261_120, events_per_kill=EVENTS_PER_KILL, progress=print)
    assert result.problems == []
    assert f"kills={KILLS} " in result.line
    assert "lost=0 double=0 drift=0 unknown=0" in result.line

"""Failpoints: nothing unless armed, and then exactly once at the nth passing."""

from pathlib import Path

import pytest

from tallybook import settings
from tallybook.core import failpoints
from tallybook.settings import SettingsError


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """To be filled when an armed place is reached; what is armed is forgotten afterwards."""
    monkeypatch.setattr(failpoints, "reach", failpoints.reach)
    return []


def test_an_armed_place_ends_the_process_at_the_nth_passing_and_no_other_place_does(ends: list[int]) -> None:
    failpoints.arm("rollup.before_trim:2", lambda: ends.append(1))
    for name in failpoints.NAMES:
        failpoints.reach(name)
    assert ends == []
    for name in (*failpoints.NAMES, *failpoints.NAMES):
        failpoints.reach(name)
    assert ends == [1]


@pytest.mark.parametrize("text", ["", "nowhere", "rollup.read:0", "rollup.read:x", "rollup.read:-1"])
def test_what_is_no_place_is_refused_with_the_names_of_all(text: str) -> None:
    with pytest.raises(ValueError, match=r"usage\.received, .*period\.noted"):
        failpoints.parse(text)


def test_the_setting_is_checked_before_anything_starts() -> None:
    assert settings.from_environment({"TALLYBOOK_FAILPOINT": "period.begun:3"}).failpoint == "period.begun:3"
    with pytest.raises(SettingsError, match="TALLYBOOK_FAILPOINT is 'nowhere'"):
        settings.from_environment({"TALLYBOOK_FAILPOINT": "nowhere"})


def test_every_place_is_in_the_code_once() -> None:
    code = "\n".join(path.read_text() for path in Path(failpoints.__file__).parents[1].glob("**/*.py"))
    assert {name: code.count(f'failpoints.reach("{name}")') for name in failpoints.NAMES} == dict.fromkeys(failpoints.NAMES, 1)

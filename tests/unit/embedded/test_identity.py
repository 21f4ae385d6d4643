"""As whom Postgres runs, decided from owner, caller and what is closed on the way."""

import os
import pwd
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tallybook.embedded import identity
from tallybook.embedded.failures import EmbeddedError
from tallybook.embedded.identity import Identity

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def pretend_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that anyone can pass, below others that anyone can pass."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.usefixtures("pretend_root")
def test_root_hands_postgres_to_a_user_without_rights(open_folder: Path) -> None:
    found = identity.for_postgres(open_folder / "new", [], "nobody")
    assert found == Identity(NOBODY.pw_uid, NOBODY.pw_gid, passes_closed_folders=False)


@pytest.mark.usefixtures("pretend_root")
@pytest.mark.parametrize("mode", [0o700, 0o710])
def test_a_closed_folder_on_the_way_needs_the_capability(open_folder: Path, mode: int) -> None:
    open_folder.chmod(mode)
    found = identity.for_postgres(open_folder / "new", [], "nobody")
    open_folder.chmod(0o700)
    assert found is not None
    assert found.passes_closed_folders


@pytest.mark.usefixtures("pretend_root")
def test_a_program_file_that_others_can_not_read_needs_the_capability(open_folder: Path) -> None:
    program = open_folder / "postgres"
    program.touch(mode=0o700)
    found = identity.for_postgres(open_folder / "new", [program], "nobody")
    assert found is not None
    assert found.passes_closed_folders


def test_what_the_user_owns_is_open_to_it(open_folder: Path) -> None:
    open_folder.chmod(0o700)
    assert identity.closed_to(open_folder.stat().st_uid, 12345, [open_folder]) is None
    assert identity.closed_to(54321, 12345, [open_folder / "later"]) == open_folder


@pytest.mark.usefixtures("pretend_root")
@pytest.mark.parametrize("user", ["no_such_user_here", "root"])
def test_a_user_that_is_missing_or_root_itself_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(EmbeddedError, match=rf"no user without rights was found \({user}\); name one with --postgres-user"):
        identity.for_postgres(tmp_path / "new", [], user)


def test_a_normal_user_runs_postgres_as_itself_and_only_on_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner or 4242)
    if owner:
        assert identity.for_postgres(tmp_path, [], None) is None
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert identity.for_postgres(tmp_path / "new", [], None) is None
    with pytest.raises(EmbeddedError, match=f"belongs to user {owner}, and this is user 4242"):
        identity.for_postgres(tmp_path, [], None)

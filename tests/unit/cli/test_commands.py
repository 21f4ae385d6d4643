"""The command line: what it lists, what it refuses, and that an expected failure is one line."""

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tallybook import cli
from tallybook.cli import commands
from tallybook.cli.ports import SharedPort
from tallybook.embedded.failures import EmbeddedError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TALLYBOOK_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("command", commands.COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself(command: commands.Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command.name, "--help"])
    assert end.value.code == 0
    assert command.summary in " ".join(capsys.readouterr().out.split())


def test_an_unknown_command_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["fly"])
    assert end.value.code == 2
    assert "invalid choice: 'fly'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "work", "migrate"])
def test_a_process_without_stores_says_what_to_set(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command]) == 1
    assert re.fullmatch(r"tallybook: TALLYBOOK_POSTGRES_URL is not set \(for example .*\n", capsys.readouterr().err)


def test_an_unreachable_postgres_is_named_without_its_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYBOOK_POSTGRES_URL", "postgresql://me:hidden@127.0.0.1:1/book")
    assert cli.main(["migrate"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tallybook: Postgres can't be reached at postgresql://127.0.0.1:1/book: ")
    assert "hidden" not in said


def test_a_wrong_port_on_the_command_line_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--port", "eighty"]) == 1
    assert "TALLYBOOK_PORT is 'eighty'; it is a whole number from 0 to 65535" in capsys.readouterr().err


def test_a_misspelled_variable_is_a_warning(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYBOOK_POSTGRES_URI", "postgresql://a/b")
    assert cli.main(["migrate"]) == 1
    assert "warning: TALLYBOOK_POSTGRES_URI is not read; did you mean TALLYBOOK_POSTGRES_URL?" in capsys.readouterr().err


def test_the_module_runs_as_a_program() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tallybook.cli", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert "Self-hosted usage metering" in done.stdout


def test_a_port_that_somebody_listens_on_is_refused_even_when_they_would_share_it() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EmbeddedError, match=r"can't be used \(Address already in use\): choose another with --port"):
            SharedPort("127.0.0.1", taken.getsockname()[1])


def test_a_shared_port_is_kept_from_strangers_and_open_to_those_who_share() -> None:
    kept = SharedPort("127.0.0.1", 0)
    try:
        with socket.socket() as stranger, pytest.raises(OSError, match="Address already in use"):
            stranger.bind(("127.0.0.1", kept.port))
        with socket.socket() as child:
            child.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            child.bind(("127.0.0.1", kept.port))
        assert kept.url == f"http://127.0.0.1:{kept.port}"
        assert not kept.is_ready()
    finally:
        kept.close()


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "http://127.0.0.1:"), ("::", "http://[::1]:"), ("::1", "http://[::1]:")])  # noqa: S104 - shown, not served
def test_the_url_is_one_that_a_client_here_can_use(host: str, shown: str) -> None:
    kept = SharedPort(host, 0)
    kept.close()
    assert kept.url.startswith(shown)


def test_the_ci_script_can_be_run() -> None:
    script = Path(__file__).parents[3] / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR

"""`tallybook dev` as its user sees it: one line on stdout, everything back on the next start, and each process can die."""

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

WAIT_S = 90


@dataclass(slots=True)
class Dev:
    """A running `tallybook dev`."""

    process: subprocess.Popen[str]
    data: Path
    told: Mapping[str, object]
    log: Path

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Mapping[str, object]]:
        """Ask the API. Raises OSError while nobody listens."""
        connection = http.client.HTTPConnection(urlsplit(str(self.told["url"])).netloc, timeout=10)
        headers = {"x-api-key": str(self.told["apiKey"]), "content-type": "application/json", "commet-version": "2026-07-24"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def pid(self, name: str) -> int:
        """The process id of a child, as it is on record now."""
        return int((self.data / "pids" / name).read_text().split()[0])

    def is_ready(self) -> bool:
        """Whether the API answers that it is ready."""
        try:
            return self.request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def start(data: Path, log: Path, *words: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TALLYBOOK_")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", "tallybook.cli", "dev", "--data", str(data), "--port", "0", *words]
    with log.open("a") as errors:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)  # noqa: S603 - ours


@contextmanager
def running(data: Path, *words: str) -> Generator[Dev]:
    log = data.with_suffix(".log")
    process = start(data, log, *words)
    too_slow = threading.Timer(WAIT_S, process.terminate)
    too_slow.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        too_slow.cancel()
        assert line, log.read_text()
        yield Dev(process, data, json.loads(line), log)
    finally:
        too_slow.cancel()
        process.terminate()
        rest = process.communicate(timeout=WAIT_S)[0]
    assert rest == "", "stdout has the one line and nothing else"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that several tests start on, one after the other."""
    return tmp_path_factory.mktemp("dev") / "data"


def test_the_next_start_has_the_key_and_everything_that_was_written(data: Path) -> None:
    customer = {"id": "kept", "email": "kept@example.com"}
    with running(data, "--workers", "2") as first:
        assert set(first.told) == {"url", "apiKey", "organizationId", "livemode"}
        assert first.told["livemode"] is False
        status, made = first.request("POST", "/api/v1/customers", customer)
        assert status in {200, 201}, made
        assert first.stop() == 0
        log = first.log.read_text()
    assert "applied migration 0001_book" in log
    assert "unexpectedly" not in log
    with running(data) as second:
        assert {**second.told, "url": ""} == {**first.told, "url": ""}
        status, found = second.request("GET", "/api/v1/customers/kept")
        assert (status, found["id"]) == (200, made["id"])
        assert second.stop(signal.SIGINT) == 0


def test_the_key_file_is_for_its_owner_only_and_a_lost_key_is_replaced(data: Path) -> None:
    file = data / "dev-key.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = json.loads(file.read_text())
    file.write_text(json.dumps({**before, "apiKey": "ck_gone"}))
    with running(data) as again:
        assert again.told["apiKey"] not in {before["apiKey"], "ck_gone"}
        assert again.told["organizationId"] == before["organizationId"]
        assert again.request("GET", "/api/v1/customers/kept")[0] == 200
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["api-1", "worker", "redis", "postgres"])
def test_a_killed_process_is_started_again_and_nothing_is_lost(data: Path, name: str) -> None:
    with running(data) as dev:
        before = dev.pid(name)
        os.kill(before, signal.SIGKILL)
        until(lambda: dev.pid(name) != before and f"{name} was started again" in dev.log.read_text())
        until(dev.is_ready)
        assert dev.request("GET", "/api/v1/customers/kept")[0] == 200
        assert f"{name} ended unexpectedly (signal 9); starting it again" in dev.log.read_text()
        assert dev.stop() == 0


def test_a_start_after_the_whole_thing_was_killed_has_everything(data: Path) -> None:
    with running(data) as dev:
        dev.process.kill()
    with running(data) as again:
        assert again.request("GET", "/api/v1/customers/kept")[0] == 200


def test_a_folder_or_port_in_use_is_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    with running(data) as dev:
        same_folder = start(data, tmp_path / "folder.log")
        assert same_folder.communicate(timeout=WAIT_S)[0] == ""
        port = str(urlsplit(str(dev.told["url"])).port)
        same_port = start(tmp_path / "other", tmp_path / "port.log", "--port", port)
        assert same_port.communicate(timeout=WAIT_S)[0] == ""
        assert dev.is_ready()
    assert (same_folder.returncode, same_port.returncode) == (1, 1)
    assert f"{data} is in use by process {dev.process.pid}" in (tmp_path / "folder.log").read_text()
    assert f"port {port} on 127.0.0.1 can't be used" in (tmp_path / "port.log").read_text()

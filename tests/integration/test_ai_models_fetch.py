"""Fetching a list over HTTP: ETag, size, time and whatever a server may answer."""

import http.server
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from tallybook.ai_models import fetch, sync
from tallybook.ai_models.fetch import FetchError
from tallybook.ai_models.model import SyncStatus
from tallybook.storage.postgres import Pool

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
LIST = b'{"data": [{"id": "lab/a", "type": "language", "pricing": {"input": "0.000001", "output": "0.000001"}}]}'


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/list":
            if self.headers.get("If-None-Match") == '"v1"':
                self._answer(304, b"")
            else:
                self._answer(200, LIST, etag='"v1"')
        elif self.path == "/large":
            self._answer(200, b" " * (fetch.BYTES_MAX + 1))
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b" " * 65_536)
                time.sleep(0.05)
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        else:
            self._answer(500, b"oops")

    def _answer(self, status: int, body: bytes, etag: str | None = None) -> None:
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden method's word
        del format, args

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True


@contextmanager
def _serving() -> Generator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with _serving() as found:
        yield found


async def test_a_list_comes_with_its_etag_and_is_not_sent_twice(address: str) -> None:
    first = await fetch.fetch(f"{address}/list")
    assert (first.body, first.etag) == (LIST, '"v1"')
    again = await fetch.fetch(f"{address}/list", '"v1"')
    assert (again.body, again.etag) == (None, '"v1"')


@pytest.mark.parametrize(("path", "reason"), [("/large", "larger"), ("/none", "500"), ("/moved", "file")])
async def test_an_answer_that_is_no_list_is_an_error_that_says_why(address: str, path: str, reason: str) -> None:
    with pytest.raises(FetchError, match=reason):
        await fetch.fetch(f"{address}{path}")


async def test_an_answer_that_never_ends_is_cut_off(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(FetchError):
        await fetch.fetch(f"{address}/slow", timeout_s=0.3)
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("source", ["http://127.0.0.1:1/list", "http://", "http://[::1/list", "/nowhere/list.json"])
async def test_a_source_that_cannot_be_reached_is_an_error(source: str) -> None:
    with pytest.raises(FetchError):
        await fetch.fetch(source, timeout_s=5)


async def test_a_sync_asks_with_the_etag_it_kept(database: Pool, address: str) -> None:
    source = f"{address}/list"
    first = await sync.sync_once(database, source, lambda: NOW)
    second = await sync.sync_once(database, source, lambda: NOW + timedelta(days=1))
    accepted = await sync.sync_once(database, source, lambda: NOW + timedelta(days=2), accepted=frozenset({"lab/a"}))
    assert [each.status for each in (first, second, accepted)] == [
        SyncStatus.PUBLISHED,
        SyncStatus.UNCHANGED,
        SyncStatus.UNCHANGED,
    ]
    assert (second.models, second.digest) == (1, first.digest)
    etags = [row["etag"] for row in await database.fetch("SELECT etag FROM ai_model_syncs ORDER BY id")]
    assert etags == ['"v1"'] * 3


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://user:secret@list.example/v1/models", "https://list.example/v1/models"),
        ("https://list.example/v1/models?x=1", "https://list.example/v1/models?x=1"),
        ("/srv/private/list.json", "list.json"),
    ],
)
def test_a_source_is_shown_without_what_is_nobodys_business(source: str, shown: str) -> None:
    assert fetch.shown(source) == shown


async def test_an_error_names_neither_password_nor_path() -> None:
    for source in ("http://user:secret@127.0.0.1:1/list", "/no/such/folder/list.json"):
        with pytest.raises(fetch.FetchError) as raised:
            await fetch.fetch(source, timeout_s=2)
        assert "secret" not in str(raised.value)
        assert "folder" not in str(raised.value)

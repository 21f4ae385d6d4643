"""The description of the API against a started service, in short; `python -m tests.api` does the same at length."""

import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tallybook.entrypoints.http import resources, routing
from tests.api import contract, furnishing
from tests.support.service import Account

_EXAMPLES = 3
_NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
_ANSWER = {"200": {"description": "Done.", "content": {"application/json": {"schema": _NUMBER}}}}
_DESCRIPTION = {
    "openapi": "3.1.0",
    "info": {"title": "Stub", "version": "1"},
    "paths": {path: {"get": {"responses": _ANSWER}} for path in ("/breaks", "/is-undescribed", "/is-misshapen", "/is-well")},
}
_ANSWERS = {
    "/breaks": (500, b"{}"),
    "/is-undescribed": (418, b"{}"),
    "/is-misshapen": (200, b'{"number": "one"}'),
    "/is-well": (200, b'{"number": 1}'),
    "/openapi.json": (200, json.dumps(_DESCRIPTION).encode()),
}


def test_every_answer_is_as_described(account: Account, tmp_path: Path) -> None:
    known = furnishing.furnish(account)
    verdict = contract.check(account, known, tmp_path, phases=["examples", "fuzzing"], examples=_EXAMPLES, seed=1)
    assert verdict.is_clean, verdict.text
    assert verdict.operations == len(routing.collect(resources.MODULES))
    assert verdict.cases > verdict.operations


class _Stub(BaseHTTPRequestHandler):
    """Answers as the table says, whatever is asked."""

    def do_GET(self) -> None:
        """Any path."""
        status, body = _ANSWERS.get(self.path.partition("?")[0], (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing."""


@pytest.fixture
def stub() -> Generator[str]:
    """The URL of a service that does not keep to its description."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_is_not_as_described_is_found(stub: str, tmp_path: Path) -> None:
    words = ["--phases", "fuzzing", "--max-examples", "1", "--seed", "1"]
    verdict = contract.run(f"{stub}/openapi.json", tmp_path, words, headers={}, environment={})
    assert sorted(verdict.failures) == [
        "Response violates schema: GET /is-misshapen",
        "Server error: GET /breaks",
        "Undocumented status code: GET /breaks",
        "Undocumented status code: GET /is-undescribed",
    ]
    assert verdict.server_errors == 1

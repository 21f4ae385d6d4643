"""An AI provider that speaks the wire formats of OpenAI, Anthropic and Gemini, and keeps its own count of what it told.

Every answer uses other numbers of tokens. What goes wrong is set by the test: requests that fail first, errors and broken connections
in the middle of a stream.
"""

import json
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote

from tests.client import fake_formats
from tests.client.fake_formats import Answer, Json, Served, Tokens

EVENTS_BEFORE_TROUBLE = 3
BEFORE_DISCONNECT_S = 0.25
"""aiohttp, which google-genai uses, drops what it has not read yet when the connection ends."""


@dataclass(slots=True)
class Trouble:
    """What goes wrong: so many `failures` with `status` first, and a `cut` in the middle of each stream.

    `holds_after`: a stream stands still after so many events, until the fake is told to resume.
    """

    failures: int = 0
    status: int = 500
    cut: Literal["", "error", "disconnect"] = ""
    refuses_stream_options: bool = False
    holds_after: int = 0
    pause_s: float = 0.002


class FakeProvider:
    """What the fake has been asked, and what it served."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.trouble = Trouble()
        self.ledger: list[Served] = []
        self.asked: list[Json] = []
        self.lock = threading.Lock()
        self.resume = threading.Event()

    def count(self) -> tuple[int, Tokens]:
        """The number of this answer, and its tokens."""
        with self.lock:
            number = len(self.asked)
        return number, Tokens(1000 + 37 * number, 50 + 11 * number, 300 + number, 200 + number, 80 + number)

    def serve(self, served: Served) -> None:
        """Note what is about to be told; of one answer the last word counts."""
        with self.lock:
            self.ledger[:] = [line for line in self.ledger if not line.id or line.id != served.id]
            self.ledger.append(served)

    def fails(self) -> bool:
        with self.lock:
            self.trouble.failures -= 1
            return self.trouble.failures >= 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeProvider

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = unquote(self.path.partition("?")[0])
        if bedrock := fake_formats.bedrock_of(path):
            path, body = "/v1/messages", {**body, **bedrock}
        if self.fake.fails():
            self.send_json(
                self.fake.trouble.status,
                {"error": {"message": "try again", "type": "server_error", "code": 500, "status": "INTERNAL"}},
            )
            return
        if self.fake.trouble.refuses_stream_options and "stream_options" in body:
            self.send_json(
                400,
                {"error": {"message": "Unrecognized request argument supplied: stream_options", "type": "invalid_request_error"}},
            )
            return
        with self.fake.lock:
            self.fake.asked.append(body)
        number, tokens = self.fake.count()
        answer = fake_formats.answer_to(path, body, number, tokens)
        if body.get("stream") or path.endswith(":streamGenerateContent"):
            self.stream(
                fake_formats.framed(answer) if bedrock else answer, fake_formats.FRAMES if bedrock else "text/event-stream"
            )
        else:
            self.fake.serve(answer.served)
            self.send_json(200, answer.body)

    def stream(self, answer: Answer, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for event, tells in self.cut(answer):
                if tells is not None:
                    self.fake.serve(tells)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.flush()
                time.sleep(self.fake.trouble.pause_s)
            if self.fake.trouble.cut == "disconnect":
                time.sleep(BEFORE_DISCONNECT_S if "streamGenerateContent" in self.path else 0)
            else:
                self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if self.fake.trouble.cut == "disconnect":
            self.close_connection = True

    def cut(self, answer: Answer) -> Iterator[tuple[bytes, Served | None]]:
        """The events, up to where the trouble begins."""
        cut, holds_after = self.fake.trouble.cut, self.fake.trouble.holds_after
        events = answer.events[:EVENTS_BEFORE_TROUBLE] if cut else answer.events
        for place, event in enumerate([*events, (answer.error, None)] if cut == "error" else events, start=1):
            yield event
            if place == holds_after:
                self.fake.resume.wait()

    def send_json(self, status: int, body: Json) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.send_header("x-should-retry", "true" if status >= 500 else "false")
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is part of the tests."""


@contextmanager
def running() -> Generator[FakeProvider]:
    """A provider that listens until the end of the block."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    fake = FakeProvider(f"http://127.0.0.1:{server.server_address[1]}")
    handler.fake = fake  # type: ignore[attr-defined] - a class made for this server
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""A metering service that does as the test says: it answers batches like Tallybook, and fails on demand. It remembers everything."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer out of the ordinary; `status` 0 closes the connection without one."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    key: str | None
    body: Any


Decide = Callable[[Received, int], Reply | None]


class StubService:
    """Takes each event id once. `decide(request, number)` may answer instead of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Received] = []
        self.recorded: dict[str, Json] = {}
        self.decide: Decide = lambda _request, _number: None
        self.lock = threading.Lock()

    def answer(self, request: Received) -> Reply:
        with self.lock:
            self.requests.append(request)
            return self.decide(request, len(self.requests)) or self.take(request)

    def take(self, request: Received) -> Reply:
        """What Tallybook would answer."""
        if not request.path.endswith("/usage/events/batch"):
            return Reply(200, {"object": "anything"})
        results = [self._take(event) for event in request.body["events"]]
        return Reply(200, {"object": "usage_batch", "results": results})

    def _take(self, event: Json) -> Json:
        known = event["eventId"] in self.recorded
        self.recorded[event["eventId"]] = event
        return {"status": "duplicate" if known else "accepted"}

    def batches(self) -> list[Received]:
        return [request for request in self.requests if request.path.endswith("/usage/events/batch")]


@contextmanager
def running(port: int = 0) -> Generator[StubService]:
    """A stub that listens until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            content = self.rfile.read(length)
            received = Received(
                self.command, self.path, self.headers.get("Idempotency-Key"), json.loads(content) if content else None
            )
            reply = stub.answer(received)
            if reply.status == 0:
                self.close_connection = True
                return
            body = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"content-length": str(len(body)), "content-type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", port), Handler)
    stub = StubService(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

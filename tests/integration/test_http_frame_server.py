"""The server around the frame: how it starts, what it does with what is not HTTP, and how it stops."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import aiohttp
import pytest

from tallybook.entrypoints.http import resources, server
from tallybook.entrypoints.http.routing import Call, HotCall, Operation
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis
from tests.support import api
from tests.support.api import Account

_started, _gate = asyncio.Event(), asyncio.Event()


async def slow(_call: Call) -> None:
    _started.set()
    await _gate.wait()


async def quick(call: HotCall) -> dict[str, object]:
    return {"sent": len(call.body)}


class _Resource:
    OPERATIONS = (
        Operation(method="POST", path="/quick", id="quick", summary="", permission="customer", handler=quick, hot=True),
        Operation(method="GET", path="/slow", id="slow", summary="", permission="customer", handler=slow),
        Operation(method="POST", path="/slow", id="slow-post", summary="", permission="customer", handler=slow, body_max=1000),
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server on a port of its own."""

    port: int
    stop: asyncio.Event
    task: asyncio.Task[None]
    account: Account

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
async def services(database: postgres.Pool, redis_client: redis.Redis) -> Services:
    return await api.make_services(database, redis_client)


@pytest.fixture
async def running(services: Services, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Running]:
    monkeypatch.setattr(resources, "MODULES", (_Resource(),))
    _started.clear()
    _gate.clear()
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.serve(services, "127.0.0.1", 0, stop=stop, started=port.set_result))
    yield Running(await port, stop, task, await api.make_account(services.database))
    _gate.set()
    stop.set()
    await task


async def status_of(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        return response.status


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_request_in_flight_is_finished_and_a_new_connection_is_refused_while_stopping(running: Running) -> None:
    async with aiohttp.ClientSession(headers={"x-api-key": running.account.key}) as session:
        answering = asyncio.create_task(status_of(session, f"{running.url}/api/v1/slow"))
        await _started.wait()
        running.stop.set()
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
        assert not running.task.done()
        _gate.set()
        assert await answering == 200
        await running.task


async def test_an_idle_connection_does_not_hold_up_a_stop(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b'{"status":"ok"}')
    running.stop.set()
    assert await reader.read() == b""
    writer.close()
    await running.task


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header ck_0123456789abcdef_secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nx-long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: a\r\n" % number for number in range(300)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_a_json_error_that_quotes_nothing_of_it(running: Running, data: bytes) -> None:
    answer = await raw(running.port, data)
    assert answer.split(b" ", 2)[1] == b"400"
    assert b'"code":"validation_error"' in answer
    assert b"x-request-id" in answer.lower()
    assert b"secret" not in answer


async def test_a_client_that_waits_to_be_asked_is_not_asked_for_a_body_that_is_too_large(running: Running) -> None:
    head = f"POST /api/v1/slow HTTP/1.1\r\nHost: x\r\nx-api-key: {running.account.key}\r\nExpect: 100-continue\r\n"
    answer = await raw(running.port, f"{head}Content-Length: 5000\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413")
    _gate.set()
    answer = await raw(running.port, f"{head}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


async def test_a_body_too_large_closes_the_connection_without_reading_it(running: Running) -> None:
    head = f"POST /api/v1/slow HTTP/1.1\r\nHost: x\r\nx-api-key: {running.account.key}\r\n"
    answer = await raw(running.port, f"{head}Content-Length: 50000000000\r\n\r\n".encode() + b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in answer


async def test_the_description_and_its_page_need_no_key(running: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/api/v1/openapi.json", "/api/openapi.json"):
            async with session.get(running.url + path) as response:
                assert (await response.json())["openapi"] == "3.1.0"
        async with session.get(f"{running.url}/docs") as response:
            assert response.content_type == "text/html"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_a_process_that_is_stopping_is_not_ready(services: Services) -> None:
    async with api.serving(services, ()) as client:
        client.app[server.FRAME].draining = True
        async with client.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["checks"]["process"] == "draining"


def quick_request(running: Running, *, path: str = "/quick", version: str = "1.1", more: str = "") -> bytes:
    head = f"POST /api/v1{path} HTTP/{version}\r\nHost: x\r\nx-api-key: {running.account.key}\r\ncommet-version: 2026-08-27\r\n"
    return f"{head}Content-Length: 2\r\n{more}\r\n{{}}".encode()


async def test_a_connection_of_the_usage_path_serves_one_request_after_another_until_it_is_told_to_close(
    running: Running,
) -> None:
    asked = quick_request(running) + quick_request(running) + quick_request(running, more="Connection: close\r\n")
    answers = (await raw(running.port, asked)).split(b"HTTP/1.1 200 OK\r\n")[1:]
    heads, bodies = zip(*(answer.split(b"\r\n\r\n") for answer in answers), strict=True)
    assert bodies == (b'{"sent":2}',) * 3
    assert [b"Connection: close" in head for head in heads] == [False, False, True]
    for head in heads:
        named = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")}
        assert named >= {b"content-type", b"content-length", b"date", b"server", b"x-request-id"}
    assert len(set(heads)) == len(heads), "each answer has a request id of its own"


async def test_an_older_protocol_is_told_whether_its_connection_stays(running: Running) -> None:
    answer = await raw(running.port, quick_request(running, version="1.0"))
    assert b"Connection: close" in answer
    kept = await raw(
        running.port,
        quick_request(running, version="1.0", more="Connection: keep-alive\r\n") + quick_request(running, version="1.0"),
    )
    assert (kept.count(b'{"sent":2}'), kept.count(b"Connection: keep-alive")) == (2, 1)


@pytest.mark.parametrize("path", ["/quick", "/quick?a=b", "/%71uick"])
async def test_the_usage_path_answers_the_same_whether_or_not_the_router_was_asked(running: Running, path: str) -> None:
    answer = await raw(running.port, quick_request(running, path=path, more="Connection: close\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b'\r\n\r\n{"sent":2}')


async def test_the_usage_path_asks_a_client_that_waits_to_be_asked(running: Running) -> None:
    more = "Expect: 100-continue\r\nConnection: close\r\n"
    answer = await raw(running.port, quick_request(running, more=more))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")

"""One message to one address: signed, in time, and never to where it must not go, whatever a name means at which moment."""

import asyncio
import socket
from datetime import UTC, datetime

import pytest
from aiohttp import test_utils, web
from aiohttp.resolver import ThreadedResolver

from tallybook.entrypoints import webhook_sender
from tallybook.webhooks import signing
from tallybook.webhooks.model import Attempt, Message
from tallybook.webhooks.sealing import Keeper
from tests.support import receiver

NOW = datetime.now(UTC)
SECRET = signing.new_secret()
MESSAGE = Message("whev_1", "invoice.created", NOW, '{"id":"whev_1","event":"invoice.created","data":{}}')


async def sent(url: str, *, allow_private: bool = True, timeout_s: float = 10.0) -> Attempt:
    async with webhook_sender.open_sender(Keeper(), allow_private=allow_private, timeout_s=timeout_s) as sender:
        return await sender.send(url, MESSAGE, Keeper().seal(SECRET), NOW)


def means(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let every name mean these addresses, one a look-up. Returns the names that are looked up."""
    asked: list[str] = []
    waiting = list(answers)

    async def resolve(
        _self: ThreadedResolver, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[dict[str, object]]:
        asked.append(host)
        address = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        assert family is not None
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    return asked


async def test_a_message_arrives_signed_for_both_clients() -> None:
    async with receiver.receiving() as there:
        there.secret = SECRET
        assert await sent(there.url) == Attempt(200)
    [(headers, body)] = there.requests
    assert there.topics == ["invoice.created"]
    assert body == MESSAGE.body
    assert (headers["X-Commet-Event"], headers["X-Commet-Event-Id"]) == ("invoice.created", "whev_1")
    assert headers["webhook-id"] == "whev_1"
    assert headers["Content-Type"] == "application/json"


async def test_a_receiver_with_another_secret_refuses_it() -> None:
    async with receiver.receiving() as there:
        there.secret = signing.new_secret()
        assert (await sent(there.url)).status == 500
    assert there.events == []


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with receiver.receiving() as elsewhere:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n".encode()
        async with receiver.listening(moved) as (port, _got):
            assert await sent(f"http://127.0.0.1:{port}/") == Attempt(307)
    assert elsewhere.requests == []


async def test_an_endpoint_that_says_nothing_is_given_up() -> None:
    async with receiver.listening(b"", holds=True) as (port, _got):
        assert await sent(f"http://127.0.0.1:{port}/", timeout_s=0.2) == Attempt(None, "timeout")


async def test_a_body_without_end_is_not_read() -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 200
    async with receiver.listening(endless, holds=True) as (port, _got):
        assert await sent(f"http://127.0.0.1:{port}/") == Attempt(200)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "no_answer"),
        (b"SMTP ready\r\n\r\n", "no_answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", "no_answer"),
    ],
)
async def test_what_is_no_answer_or_too_long_a_one_is_a_failure(answer: bytes, error: str) -> None:
    async with receiver.listening(answer) as (port, _got):
        assert await sent(f"http://127.0.0.1:{port}/") == Attempt(None, error)


async def test_a_closed_port_is_a_failure() -> None:
    async with receiver.listening(b"") as (port, _got):
        pass
    assert await sent(f"http://127.0.0.1:{port}/") == Attempt(None, "not_connected")


async def test_a_server_without_a_trusted_certificate_is_a_failure() -> None:
    async with receiver.listening(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _got):
        assert await sent(f"https://127.0.0.1:{port}/") == Attempt(None, "tls_failed")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "localhost."]
)
async def test_no_way_of_writing_this_machine_is_connected_to(host: str) -> None:
    async with receiver.listening(b"HTTP/1.1 200 OK\r\n\r\n") as (port, got):
        attempt = await sent(f"https://{host}:{port}/", allow_private=False)
    assert attempt.status is None
    assert attempt.error in ("address_refused", "name_unknown")
    assert got == []


async def test_plain_http_is_not_sent_outside_of_development() -> None:
    assert await sent("http://1.1.1.1/", allow_private=False) == Attempt(None, "address_refused")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.1.1", "224.0.0.1", "::ffff:127.0.0.1"])
async def test_a_name_that_means_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    means(monkeypatch, address)
    assert await sent("https://hooks.example.com/", allow_private=False) == Attempt(None, "address_refused")
    assert await webhook_sender.means_private("https://hooks.example.com/")


async def test_a_name_is_looked_up_once_so_that_it_cannot_mean_another_address_when_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected: list[object] = []

    async def connect(_loop: object, _socket: socket.socket, address: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    asked = means(monkeypatch, "8.8.8.8", "127.0.0.1")
    monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_connect", connect)
    assert await sent("https://hooks.example.com:8443/", allow_private=False) == Attempt(None, "not_connected")
    assert asked == ["hooks.example.com"]
    assert connected == [("8.8.8.8", 8443)]


async def test_a_name_that_means_another_address_for_the_next_message_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(_loop: object, _socket: socket.socket, _address: object) -> None:
        raise ConnectionRefusedError

    asked = means(monkeypatch, "8.8.8.8", "127.0.0.1")
    monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_connect", connect)
    async with webhook_sender.open_sender(Keeper(), allow_private=False) as sender:
        attempts = [await sender.send("https://hooks.example.com/", MESSAGE, Keeper().seal(SECRET), NOW) for _ in range(2)]
    assert attempts == [Attempt(None, "not_connected"), Attempt(None, "address_refused")]
    assert len(asked) == 2


async def test_a_name_that_means_nothing_is_a_failure_and_no_reason_to_refuse_an_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(*_arguments: object, **_more: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    assert await sent("https://hooks.example.com/", allow_private=False) == Attempt(None, "name_unknown")
    assert not await webhook_sender.means_private("https://hooks.example.com/")


async def test_a_secret_that_cannot_be_read_sends_nothing() -> None:
    async with receiver.receiving() as there, webhook_sender.open_sender(Keeper(), allow_private=True) as sender:
        assert await sender.send(there.url, MESSAGE, Keeper("k" * 32).seal(SECRET), NOW) == Attempt(None, "secret_unreadable")
    assert there.requests == []


async def test_no_cookie_of_one_answer_goes_with_the_next_message() -> None:
    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        response = web.Response()
        response.set_cookie("who", "them")
        return response

    seen: list[str | None] = []
    application = web.Application()
    application.router.add_post("/", answer)
    async with test_utils.TestServer(application) as server, webhook_sender.open_sender(Keeper(), allow_private=True) as sender:
        for _ in range(2):
            await sender.send(str(server.make_url("/")), MESSAGE, Keeper().seal(SECRET), NOW)
    assert seen == [None, None]

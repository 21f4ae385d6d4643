"""Sends one webhook to one address that may be sent to, and says what came of it. Never raises for what the other side does.

The name is resolved once, by `_PublicResolver`, and the connection is made to the very addresses that were checked; so a name that means
another address a moment later gains nothing. No redirect is followed, no proxy of the environment and no cookie is used, the answer's
body is not read, and everything has to be over in ten seconds.
"""

import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from tallybook.webhooks import addresses, signing
from tallybook.webhooks.model import Attempt, Message, StoredSecret
from tallybook.webhooks.sealing import Keeper, UnreadableSecretError

_LOG = logging.getLogger(__name__)
TIMEOUT_S = 10.0
CONNECTIONS_MAX = 64
_HEADER_BYTES_MAX = 8190
_USER_AGENT = "Tallybook-Webhooks/1"


class AddressRefusedError(OSError):
    """A name means an address that no webhook may go to."""


class Sender:
    """Sends webhooks."""

    def __init__(self, session: aiohttp.ClientSession, keeper: Keeper) -> None:
        self._session = session
        self._keeper = keeper

    async def send(self, url: str, message: Message, secret: StoredSecret, now: datetime) -> Attempt:
        """Sign a message and send it."""
        try:
            opened = self._keeper.open(secret)
        except UnreadableSecretError as error:
            _LOG.error("webhooks: %s", error)
            return Attempt(None, "secret_unreadable")
        return await self.post(url, signing.headers(message, opened, now), message.body.encode())

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """Send bytes. The status that was answered, or why none was."""
        try:
            async with self._session.post(url, headers=headers, data=body, allow_redirects=False) as response:
                return Attempt(response.status)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Attempt(None, _code(error))


@contextlib.asynccontextmanager
async def open_sender(keeper: Keeper, *, allow_private: bool, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[Sender]:
    """A sender with connections of its own, each for one message: one that was kept could turn out to be closed.

    `allow_private`: it also sends to addresses that only this network reaches, and by plain HTTP; for development.
    """
    watching = aiohttp.TraceConfig()
    if not allow_private:
        watching.on_request_start.append(_refuse_private)
    resolver = ThreadedResolver() if allow_private else _PublicResolver()
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=CONNECTIONS_MAX)
    async with aiohttp.ClientSession(
        connector=connector,
        trace_configs=[watching],
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
        auto_decompress=False,
        max_line_size=_HEADER_BYTES_MAX,
        max_field_size=_HEADER_BYTES_MAX,
        trust_env=False,
    ) as session:
        yield Sender(session, keeper)


async def _refuse_private(_session: aiohttp.ClientSession, _context: object, request: aiohttp.TraceRequestStartParams) -> None:
    """Look at the host as the library has read it, whoever reads URLs otherwise: what it takes for a number is not resolved."""
    if request.url.scheme != "https" or addresses.is_refused_host(request.url.raw_host or ""):
        raise AddressRefusedError(f"{request.url.host} is not to be sent to")


async def means_private(url: str) -> bool:
    """Whether the name in a URL means, now, an address that no webhook may go to. False for a name that means nothing (yet)."""
    try:
        await _PublicResolver().resolve(urlsplit(url).hostname or "", family=socket.AF_UNSPEC)
    except AddressRefusedError:
        return True
    except OSError:
        return False
    return False


class _PublicResolver(AbstractResolver):
    """Resolves a name if all that it means may be sent to."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """The addresses. Raises AddressRefusedError when any of them is refused."""
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            if not addresses.is_public(one["host"]):
                raise AddressRefusedError(f"{host} means {one['host']}")
        return found

    async def close(self) -> None:
        """Nothing is kept."""
        await self._resolver.close()


def _code(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, AddressRefusedError):
        return "address_refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name_unknown"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls_failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "not_connected"
    return "no_answer"

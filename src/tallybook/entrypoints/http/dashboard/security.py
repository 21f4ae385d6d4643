"""How the pages are kept apart from the rest of the web: headers, cookies, tokens of forms, and how often a key may be tried."""

import ipaddress
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints.http import bodies
from tallybook.tenancy import web_sessions

SESSION_COOKIE = "tallybook_session"
FORM_COOKIE = "tallybook_form"
PATH = "/dashboard"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every page; figures are never kept by a cache."""
_FORM_BYTES_MAX = 4096
_FIELDS_MAX = 10
_FORM_TYPE = "application/x-www-form-urlencoded"
_TRIES = 10.0
_TRY_EVERY_S = 6.0
_ADDRESSES_MAX = 10_000
_NETWORK_BITS = 64


async def form(request: web.Request, token: str | None) -> dict[str, str]:
    """The fields of a form of ours. Raises Forbidden when another site sent it, and ValidationError for what is no form."""
    _refuse_other_sites(request)
    if request.content_type != _FORM_TYPE:
        raise errors.invalid("Content-Type", f"A form is sent as {_FORM_TYPE}.")
    body = await bodies.read(request, _FORM_BYTES_MAX)
    try:
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS_MAX))
    except ValueError as error:
        raise errors.invalid("", "The form can't be read.") from error
    if token is None or not web_sessions.is_form_token(fields.get("token", ""), token):
        raise errors.Forbidden("forbidden", "This form is too old or not ours. Load the page again, and allow cookies for it.")
    return fields


def _refuse_other_sites(request: web.Request) -> None:
    """By the browser's own word, where it gives it; a proxy may have changed the host that `Origin` is compared with."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    is_foreign = site not in ("same-origin", "none") if site else origin is not None and urlsplit(origin).netloc != request.host
    if is_foreign:
        raise errors.Forbidden("forbidden", "This form was sent by another site.")


def keep(reply: web.Response, request: web.Request, name: str, token: str, seconds: int | None = None) -> None:
    """Set a cookie that scripts can't read and other sites can't make the browser send."""
    reply.set_cookie(name, token, path=PATH, max_age=seconds, httponly=True, samesite="Strict", secure=is_https(request))


def forget(reply: web.Response, request: web.Request, name: str) -> None:
    """Have the browser drop a cookie."""
    reply.del_cookie(name, path=PATH, httponly=True, samesite="Strict", secure=is_https(request))


def is_https(request: web.Request) -> bool:
    """Whether the browser speaks https, to us or to a proxy that says so. Who lies about it spoils only their own cookie."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").split(",")[0].strip().lower() == "https"


class Tries:
    """How many wrong keys an address may still send to this process: ten at once, then one in six seconds."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """`now_s`: seconds of a clock that never goes back."""
        self._now_s = now_s
        self._left: dict[str, tuple[float, float]] = {}

    def check(self, address: str) -> None:
        """Raise RateLimited when the address has sent too many."""
        left = self._left_of(_network(address))
        if left < 1:
            wait_s = max(1, round((1 - left) * _TRY_EVERY_S))
            raise errors.RateLimited(f"Too many wrong keys. Try again in {wait_s} seconds.", retry_after_s=wait_s)

    def count_wrong(self, address: str) -> None:
        """Count a wrong key."""
        network = _network(address)
        left = self._left_of(network)
        self._left.pop(network, None)
        self._left[network] = (left - 1, self._now_s())
        while len(self._left) > _ADDRESSES_MAX:
            del self._left[next(iter(self._left))]

    def _left_of(self, network: str) -> float:
        left, since_s = self._left.get(network, (_TRIES, self._now_s()))
        return min(_TRIES, left + (self._now_s() - since_s) / _TRY_EVERY_S)


def _network(address: str) -> str:
    """One household of IPv6 has 2^64 addresses, so it counts as one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:  # noqa: PLR2004 - a version of IP
        return address
    return str(ipaddress.ip_network((found, _NETWORK_BITS), strict=False))

"""Which addresses a webhook may go to. Pure: it looks at what is written and at addresses, and resolves no name.

Whoever may set a URL makes this server send requests, so only what anybody on the internet could reach is allowed: no loopback, private,
shared, link-local (where clouds keep their metadata), multicast or reserved address, however it is written or wrapped in IPv6.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from tallybook.core import errors

URL_CHARACTERS_MAX = 2000
_V4_REFUSED = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),  # the last answers every virtual machine of one cloud
    )
)
_V6_GLOBAL = ipaddress.IPv6Network("2000::/3")
_V6_REFUSED = tuple(ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_V6_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
_V4_MASK = 0xFFFF_FFFF


def is_public(text: str) -> bool:
    """Whether this is the address of something that anybody could reach. False for what is no address in its usual form."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return _is_public_v4(address) if isinstance(address, IPv4Address) else _is_public_v6(address)


def check(url: str, *, allow_private: bool) -> str:
    """The URL itself. Raises ValidationError for one that no webhook may go to, as far as that can be seen without resolving names."""
    parts = _split(url)
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes:
        raise _invalid(f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _invalid("it must not hold a user name, a password or a fragment")
    if not allow_private and is_refused_host(parts.hostname or ""):
        raise _invalid(f"{parts.hostname} is not a public address")
    return url


def is_refused_host(host: str) -> bool:
    """Whether a host as written can't be public. What is no plain name must be an address in its usual form: `127.1` is neither."""
    name = host.rstrip(".").lower()
    if ":" in name or name.replace(".", "").isdigit():
        return not is_public(name)
    return name in ("", "localhost") or name.endswith((".localhost", ".local", ".internal"))


def _split(url: str) -> SplitResult:
    if len(url) > URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _invalid(f"it must be at most {URL_CHARACTERS_MAX} printable ASCII characters without spaces and backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _invalid(str(error)) from error
    if not parts.hostname or port == 0:
        raise _invalid("it names no host, or port 0")
    return parts


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _V4_REFUSED)


def _is_public_v6(address: IPv6Address) -> bool:
    wrapped = address.ipv4_mapped or address.sixtofour
    if wrapped is None and address in _V6_TRANSLATED:
        wrapped = IPv4Address(int(address) & _V4_MASK)
    if wrapped is not None:
        return _is_public_v4(wrapped)
    return address.scope_id is None and address in _V6_GLOBAL and not any(address in network for network in _V6_REFUSED)


def _invalid(why: str) -> errors.ValidationError:
    return errors.invalid("url", f"url can't be the address of an endpoint: {why}.")

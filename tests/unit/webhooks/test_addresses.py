"""Webhooks go to what anybody on the internet could reach, and to nothing else, however it is written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core.errors import ValidationError
from tallybook.webhooks import addresses

PRIVATE = [
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254"),  # noqa: S104
    *("172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::", "2001::1", "2001:db8::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1"),
    *("3fff::1", "100::1", "fe80::1%eth0", "2606:4700::1%eth0", "4000::1"),
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "2002:808:808::",
]
NO_ADDRESS = ["127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "1.1.1", "", "example.com", "1.1.1.1 ", "[::1]"]


@pytest.mark.parametrize("text", PRIVATE)
def test_what_only_some_can_reach_is_not_public(text: str) -> None:
    assert not addresses.is_public(text)


@pytest.mark.parametrize("text", PUBLIC)
def test_what_anybody_can_reach_is_public(text: str) -> None:
    assert addresses.is_public(text)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_in_its_usual_form_is_not_public(text: str) -> None:
    assert not addresses.is_public(text)


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if addresses.is_public(str(address)):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_loopback


@given(st.ip_addresses(v=4))
def test_an_address_wrapped_in_ipv6_is_as_public_as_itself(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for wrapped in (f"::ffff:{address}", str(ipaddress.IPv6Address((0x64FF9B << 96) | number))):
        assert addresses.is_public(wrapped) == addresses.is_public(str(address))
    six_to_four = str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))
    assert addresses.is_public(six_to_four) == addresses.is_public(str(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com/",
        "example.com/hook",
        "https://",
        "https:///hook",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:port/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://127.0.0.1./",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://db.localhost/",
        "https://metadata.google.internal/",
        "https://printer.local/",
        "https://example.com/a b",
        "https://example.com\\@127.0.0.1/",
        "https://\uff45xample.com/",
        "https://example.com/\n",
        "https://example.com/" + "a" * 2000,
    ],
)
def test_such_a_url_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        addresses.check(url, allow_private=False)
    assert refused.value.param == "url"


@pytest.mark.parametrize(
    "url", ["https://example.com/hook?a=1", "https://hooks.example.com:8443/x", "https://1.1.1.1/", "https://[2606:4700::1111]/"]
)
def test_such_a_url_is_taken(url: str) -> None:
    assert addresses.check(url, allow_private=False) == url


def test_in_development_plain_http_and_private_addresses_are_taken_but_no_other_scheme() -> None:
    assert addresses.check("http://localhost:3000/hook", allow_private=True)
    assert addresses.check("http://127.0.0.1:3000/hook", allow_private=True)
    with pytest.raises(ValidationError):
        addresses.check("file:///etc/passwd", allow_private=True)

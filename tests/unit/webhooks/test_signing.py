"""A receiver can tell what was sent from what was not: with the official client, and with the client of this package."""

import base64
import itertools
from datetime import UTC, datetime

import pytest
from commet import Webhooks

from tallybook.client import UntrustedWebhook, verify_webhook
from tallybook.webhooks import signing
from tallybook.webhooks.model import Message, StoredSecret
from tallybook.webhooks.sealing import Keeper, UnreadableSecretError

NOW = datetime(2026, 11, 20, 9, 0, 30, tzinfo=UTC)
SECRET = signing.new_secret()
MESSAGE = Message(
    "whev_1", "invoice.created", NOW, '{"id":"whev_1","event":"invoice.created","data":{"total":9900,"name":"Zoë"}}'
)
HEADERS = signing.headers(MESSAGE, SECRET, NOW)


def official(body: str, secret: str = SECRET) -> dict[str, object] | None:
    return Webhooks().verify_and_parse(raw_body=body, signature=HEADERS["X-Commet-Signature"], secret=secret)


def test_the_official_client_takes_what_was_sent() -> None:
    event = official(MESSAGE.body)
    assert event is not None
    assert event["event"] == "invoice.created"


def test_the_official_client_refuses_another_secret_and_another_body() -> None:
    assert official(MESSAGE.body, signing.new_secret()) is None
    assert official(MESSAGE.body.replace("9900", "1")) is None


def test_this_packages_client_takes_what_was_sent_just_now_whatever_the_case_of_headers() -> None:
    headers = {name.title(): value for name, value in HEADERS.items()}
    assert verify_webhook(MESSAGE.body.encode(), headers, SECRET, now_s=NOW.timestamp() + 299)["data"] == {
        "total": 9900,
        "name": "Zoë",
    }


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_what_was_sent_too_long_ago_or_in_the_future_is_refused(seconds: int) -> None:
    with pytest.raises(UntrustedWebhook, match="seconds from now"):
        verify_webhook(MESSAGE.body, HEADERS, SECRET, now_s=NOW.timestamp() + seconds)


def test_a_replay_with_a_new_time_is_refused_because_the_time_is_signed() -> None:
    later = NOW.timestamp() + 3600
    with pytest.raises(UntrustedWebhook, match="signature"):
        verify_webhook(MESSAGE.body, {**HEADERS, "webhook-timestamp": str(int(later))}, SECRET, now_s=later)


@pytest.mark.parametrize(
    ("body", "headers", "secret"),
    [
        (MESSAGE.body + " ", HEADERS, SECRET),
        (MESSAGE.body.replace("9900", "1"), HEADERS, SECRET),
        (MESSAGE.body, {**HEADERS, "webhook-id": "whev_2"}, SECRET),
        (MESSAGE.body, {**HEADERS, "webhook-signature": ""}, SECRET),
        (MESSAGE.body, {}, SECRET),
        (MESSAGE.body, HEADERS, signing.new_secret()),
        (MESSAGE.body, HEADERS, "no base64!"),
        (MESSAGE.body, HEADERS, "whsec_"),
        (MESSAGE.body, HEADERS, ""),
        (b"\xff\xfe", HEADERS, SECRET),
    ],
    ids=itertools.count(),
)
def test_anything_else_is_refused(body: bytes | str, headers: dict[str, str], secret: str) -> None:
    with pytest.raises(UntrustedWebhook):
        verify_webhook(body, headers, secret, now_s=NOW.timestamp())


def test_a_missing_secret_proves_nothing_even_if_the_sender_has_none_either() -> None:
    forged = signing.standard_signature("whev_1", "1763629230", "{}", "whsec_")
    headers = {"webhook-id": "whev_1", "webhook-timestamp": "1763629230", "webhook-signature": forged}
    with pytest.raises(UntrustedWebhook, match="too short"):
        verify_webhook("{}", headers, "", now_s=1763629230)


@pytest.mark.parametrize("body", ["[]", "no JSON", ""])
def test_what_is_signed_and_no_event_is_refused(body: str) -> None:
    headers = signing.headers(Message("whev_1", "invoice.created", NOW, body), SECRET, NOW)
    with pytest.raises(UntrustedWebhook, match="no event"):
        verify_webhook(body, headers, SECRET, now_s=NOW.timestamp())


def test_one_good_signature_among_several_is_enough() -> None:
    both = {**HEADERS, "webhook-signature": f"v1,{'A' * 43}= {HEADERS['webhook-signature']}"}
    assert verify_webhook(MESSAGE.body, both, SECRET, now_s=NOW.timestamp())["id"] == "whev_1"


def test_the_standard_signature_is_that_of_the_specifications_example() -> None:
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", '{"test": 2432232314}'
    signature = signing.standard_signature("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body, secret)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_differ_and_have_256_bits() -> None:
    secrets = {signing.new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in secrets)


def test_a_sealed_secret_opens_with_its_key_only_and_does_not_show() -> None:
    sealed = Keeper("k" * 32).seal(SECRET)
    assert sealed.is_sealed
    assert SECRET.encode() not in sealed.content
    assert Keeper("k" * 32).open(sealed) == SECRET
    for other in ("l" * 32, ""):
        with pytest.raises(UnreadableSecretError):
            Keeper(other).open(sealed)


def test_without_a_key_a_secret_is_stored_as_it_is_and_a_key_given_later_reads_it_too() -> None:
    plain = Keeper().seal(SECRET)
    assert plain == StoredSecret(SECRET.encode(), is_sealed=False)
    assert Keeper("k" * 32).open(plain) == SECRET

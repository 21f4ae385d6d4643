"""What keys look like and what they may do."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.tenancy import rules
from tallybook.tenancy.model import ApiKey, AuthenticatedKey, NewApiKey, Permissions

NOW = datetime(2026, 11, 20, tzinfo=UTC)
KEY = rules.key_text("a" * 16, "b" * 43)
READ, BOTH = frozenset({"read"}), frozenset({"read", "write"})


def creator(permissions: Permissions | None, expires_at: datetime | None) -> AuthenticatedKey:
    return AuthenticatedKey("key_1", Tenant(1, "org_1", livemode=False), permissions, expires_at)


def test_a_new_key_is_taken_apart_into_what_it_was_made_of() -> None:
    public, secret = rules.new_public_part(), rules.new_secret()
    parsed = rules.parse_key(rules.key_text(public, secret))
    assert parsed is not None
    assert (parsed.public_part, parsed.secret_sha256) == (public, rules.secret_sha256(secret))


def test_two_new_keys_differ() -> None:
    assert rules.new_secret() != rules.new_secret()
    assert rules.new_public_part() != rules.new_public_part()


@given(st.text(max_size=80))
def test_text_that_is_no_key_is_no_key(text: str) -> None:
    assert rules.parse_key(text) is None or text.startswith("ck_")


@pytest.mark.parametrize("spoilt", [KEY[:-1], KEY + "a", " " + KEY, KEY + "\n", KEY.upper(), KEY.replace("a", "é", 1)])
def test_a_key_with_something_more_or_less_is_no_key(spoilt: str) -> None:
    assert rules.parse_key(KEY) is not None
    assert rules.parse_key(spoilt) is None


@pytest.mark.parametrize(
    ("granted", "write", "allowed"),
    [
        (None, True, True),
        ({}, False, False),
        ({"customer": READ}, False, True),
        ({"customer": READ}, True, False),
        ({"customer": BOTH}, True, True),
        ({"customer": frozenset({"write"})}, True, False),
        ({"plan": BOTH}, False, False),
    ],
)
def test_writing_needs_read_and_write_and_reading_needs_read(granted: Permissions | None, write: bool, allowed: bool) -> None:  # noqa: FBT001
    assert rules.may(granted, "customer", write=write) is allowed


@pytest.mark.parametrize(
    ("holder", "wanted", "covered"),
    [
        (None, None, True),
        (None, {"plan": BOTH}, True),
        ({"plan": BOTH}, None, False),
        ({"plan": BOTH}, {"plan": READ}, True),
        ({"plan": READ}, {"plan": BOTH}, False),
        ({"plan": BOTH}, {"customer": READ}, False),
        ({"plan": BOTH}, {}, True),
    ],
)
def test_a_key_gives_away_no_more_than_it_has(holder: Permissions | None, wanted: Permissions | None, covered: bool) -> None:  # noqa: FBT001
    assert rules.covers(holder, wanted) is covered


@pytest.mark.parametrize(
    ("days", "permissions", "ends", "expected"),
    [
        (None, None, None, None),
        (10, None, None, NOW + timedelta(days=10)),
        (10, None, NOW + timedelta(days=5), NOW + timedelta(days=10)),
        (10, {}, NOW + timedelta(days=5), NOW + timedelta(days=5)),
        (3, {}, NOW + timedelta(days=5), NOW + timedelta(days=3)),
        (None, {}, NOW + timedelta(days=5), NOW + timedelta(days=5)),
        (10, {}, None, NOW + timedelta(days=10)),
    ],
)
def test_a_restricted_key_makes_none_that_outlives_it(
    days: int | None, permissions: Permissions | None, ends: datetime | None, expected: datetime | None
) -> None:
    assert rules.expiry(NOW, days, creator(permissions, ends)) == expected


def test_permissions_are_read_in_either_spelling_and_an_unknown_one_is_named() -> None:
    assert rules.read_permissions({"planGroup": ["read"], "plan_group": ["write"]}) == {"plan_group": BOTH}
    with pytest.raises(errors.ValidationError) as caught:
        rules.read_permissions({"customers": ["read"]})
    assert caught.value.param == "permissions.customers"


def test_no_repr_shows_a_key() -> None:
    key = ApiKey("key_1", 1, "n", "p" * 16, None, None, None, None, NOW)
    assert "secret" not in repr(NewApiKey(key, "ck_secret"))

"""Which customers are valid, and what a change leaves alone."""

import dataclasses
from datetime import UTC, datetime
from typing import cast

import pytest

from tallybook.core.errors import ValidationError
from tallybook.customers import rules
from tallybook.customers.model import Customer, CustomerChange, NewCustomer

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ADA = Customer(1, 1, "cus_1", "user_1", "ada@example.com", "Ada", None, "UTC", {"tier": "gold"}, None, NOW, NOW)


def broken(customer: NewCustomer | CustomerChange) -> list[str]:
    try:
        rules.check(customer)
    except ValidationError as refusal:
        return [detail["field"] for detail in cast("list[dict[str, str]]", refusal.details)]
    return []


@pytest.mark.parametrize("email", ["ada@example.com", "a.b+c@mail.example.co.uk", "ünï@exämple.de", "a" * 64 + "@x.io"])
def test_an_address_with_a_name_and_a_domain_is_an_email(email: str) -> None:
    assert broken(NewCustomer(email)) == []


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@example",
        "ada@.com",
        "ada@example..com",
        "a b@example.com",
        "ada@exam ple.com",
        "a@b@c.de",
        "ada@example.com\n",
        "\0@example.com",
        "a" * 65 + "@example.com",
        "ada@" + "e" * 250 + ".com",
    ],
)
def test_anything_else_is_not(email: str) -> None:
    assert broken(NewCustomer(email)) == ["email"]


def test_a_long_refused_email_is_shown_in_part() -> None:
    with pytest.raises(ValidationError) as refusal:
        rules.check(NewCustomer("x" * 5000))
    assert len(refusal.value.message) < 200


def test_a_timezone_is_one_of_the_iana_database() -> None:
    assert broken(NewCustomer("ada@example.com", timezone="America/Buenos_Aires")) == []
    assert broken(NewCustomer("ada@example.com", timezone="UTC")) == []
    assert broken(NewCustomer("ada@example.com", timezone="Mars/Olympus")) == ["timezone"]
    assert broken(NewCustomer("ada@example.com", timezone="../../etc/passwd")) == ["timezone"]
    assert broken(NewCustomer("ada@example.com", timezone="")) == ["timezone"]


def test_an_external_id_is_printable_and_at_most_128_bytes() -> None:
    assert broken(NewCustomer("ada@example.com", external_id="ü" * 64)) == []
    assert broken(NewCustomer("ada@example.com", external_id="ü" * 65)) == ["externalId"]
    assert broken(NewCustomer("ada@example.com", external_id="a\nb")) == ["externalId"]
    assert broken(NewCustomer("ada@example.com", external_id="")) == ["externalId"]


def test_more_metadata_than_is_kept_is_refused() -> None:
    assert broken(NewCustomer("ada@example.com", metadata={"note": "x" * 16_000})) == []
    assert broken(NewCustomer("ada@example.com", metadata={"note": "x" * 16_384})) == ["metadata"]


def test_every_broken_rule_is_named() -> None:
    assert broken(NewCustomer("ada", timezone="Mars/Olympus", external_id="\t")) == ["email", "timezone", "externalId"]


def test_a_change_of_nothing_is_valid_and_changes_nothing() -> None:
    assert broken(CustomerChange()) == []
    assert rules.changed(ADA, CustomerChange()) == ADA


def test_a_change_is_checked_like_a_new_customer() -> None:
    assert broken(CustomerChange(email="ada", timezone="Mars/Olympus")) == ["email", "timezone"]


def test_null_removes_and_metadata_is_replaced() -> None:
    changed = rules.changed(ADA, CustomerChange(full_name=None, metadata={"plan": "new"}))
    assert changed == dataclasses.replace(ADA, full_name=None, metadata={"plan": "new"})

"""Whatever bytes come, a body is read exactly, or refused with an error that names the field."""

import contextlib
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import errors
from tallybook.entrypoints.http import decoding


class Address(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Nested, so that paths have several steps."""

    city: str
    postal_code: str = ""


class Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One field of each kind."""

    address: Address | None = None
    unit_price: Decimal | None = None
    metadata: dict[str, Any] | None = None
    event_ids: list[int] = []


def test_a_decimal_is_read_exactly() -> None:
    assert decoding.body(b'{"unitPrice": 0.1000000000000000055}', Body).unit_price == Decimal("0.1000000000000000055")


def test_an_absent_body_is_an_empty_one() -> None:
    assert decoding.body(b" \n", Body) == Body()
    assert decoding.body(b"{}", None) is None


def test_a_body_where_none_is_taken_is_refused() -> None:
    with pytest.raises(errors.ValidationError):
        decoding.body(b'{"a": 1}', None)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"address": {"city": 5}}', "address.city"),
        (b'{"address": {"postalCode": "1"}}', "address.city"),
        (b'{"address": {"city": "a", "zip": "1"}}', "address.zip"),
        (b'{"address": {"city": "a", "city": "b"}}', "address.city"),
        (b'{"metadata": {"a": [{"b": "\\u0000"}]}}', "metadata.a[0].b"),
        (b'{"metadata": {"a": 1e999}}', "metadata.a"),
        (b'{"metadata": {"a": 18446744073709551616}}', "metadata.a"),
        (b'{"metadata": {"a": -Infinity}}', "metadata.a"),
        (b'{"eventIds": [1, null]}', "eventIds[1]"),
    ],
)
def test_the_error_names_the_field_by_its_path(raw: bytes, param: str) -> None:
    with pytest.raises(errors.ValidationError) as caught:
        decoding.body(raw, Body)
    assert caught.value.param == param
    assert param in caught.value.message


def test_numbers_that_would_freeze_a_process_are_refused_at_once() -> None:
    for digits in (b"1e3000000", b"9" * 200_000, b"0." + b"1" * 200_000, b"-1E-3000000"):
        with pytest.raises(errors.ValidationError):
            decoding.body(b'{"unitPrice": ' + digits + b"}", Body)


def test_what_an_error_quotes_is_short() -> None:
    with pytest.raises(errors.ValidationError) as caught:
        decoding.body(b'{"' + b"k" * 10_000 + b'": 1}', Body)
    assert len(caught.value.message) < 300


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0129eE+-.\\u truefalsnNaIity\x00é', max_size=60).map(str.encode))
def test_no_bytes_raise_anything_but_a_named_error(raw: bytes) -> None:
    with contextlib.suppress(errors.ValidationError):
        assert isinstance(decoding.body(raw, Body), Body)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), _json))
def test_ordinary_json_is_never_refused_and_comes_back_unchanged(metadata: dict[str, object]) -> None:
    assert decoding.body(msgspec.json.encode({"metadata": metadata}), Body).metadata == metadata


def test_bodies_that_mean_the_same_have_the_same_canonical_form() -> None:
    def canonical(raw: bytes) -> bytes:
        return decoding.canonical(decoding.strict_json(raw))

    assert canonical(b'{"a": 1.50, "b": [2]}') == canonical(b'{"b":[2],"a":1.5}')
    assert canonical(b'{"a": 0.1}') != canonical(b'{"a": 0.1000000000000000055}')
    assert canonical(b'{"a": "0.1"}') != canonical(b'{"a": 0.1}')
    assert canonical(b'{"a": 1}') != canonical(b'{"a": true}')


def test_query_values_become_numbers_and_flags() -> None:
    class Query(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
        limit: int = 25
        include_private: bool = False

    assert decoding.query([("limit", "3"), ("includePrivate", "true")], Query) == Query(3, include_private=True)

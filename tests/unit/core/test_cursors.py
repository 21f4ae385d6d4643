"""Cursors are opaque, read back exactly, and anything else is an error and not a crash."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import cursors, errors


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_an_integer_key_reads_back(row: int) -> None:
    assert cursors.decode(cursors.encode(row)) == row


def test_a_public_id_reads_back() -> None:
    assert cursors.decode_text(cursors.encode("key_4fT")) == "key_4fT"


@given(st.text(max_size=40))
def test_whatever_is_sent_as_a_cursor_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(errors.ValidationError):
        assert cursors.encode(cursors.decode(text)) == text


@pytest.mark.parametrize("cursor", ["", "=", "MQ==", "é", cursors.encode("abc"), cursors.encode(2**63), cursors.encode("\uff11")])
def test_what_encode_did_not_make_is_no_integer_cursor(cursor: str) -> None:
    with pytest.raises(errors.ValidationError):
        cursors.decode(cursor)


def test_one_row_too_many_means_that_there_is_a_next_page() -> None:
    assert cursors.cut([9, 8, 7], 2, lambda row: row) == ([9, 8], cursors.encode(8))
    assert cursors.cut([9, 8], 2, lambda row: row) == ([9, 8], None)
    assert cursors.cut([], 2, str) == ([], None)

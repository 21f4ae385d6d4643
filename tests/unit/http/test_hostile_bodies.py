"""Bodies made to cost more to read than to send."""

import json

import pytest

from tallybook.core import errors
from tallybook.entrypoints.http import decoding


def test_a_repeated_key_at_the_end_of_very_many_is_found_in_one_pass() -> None:
    names = [f"k{number}" for number in range(18_000)]
    body = "{" + ",".join(f'"{name}":1' for name in [*names, "k17999"]) + "}"
    with pytest.raises(errors.ValidationError, match="k17999") as refused:
        decoding.strict_json(body.encode())
    assert "twice" in refused.value.message


def test_only_the_blanks_that_json_knows_are_blank() -> None:
    with pytest.raises(errors.ValidationError):
        decoding.strict_json(b"\x0b" + json.dumps({}).encode())

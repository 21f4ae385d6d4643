"""What goes out, in both generations of the wire."""

import json

import msgspec
import pytest

from tallybook.core import errors
from tallybook.entrypoints.http import shapes
from tallybook.entrypoints.http.routing import Page


class Inner(msgspec.Struct, rename="camel"):
    """Has no `object`, so no mode either."""

    unit_name: str


class Outer(msgspec.Struct, rename="camel", kw_only=True):
    """As a resource answers."""

    object: str = "outer"
    inner: Inner
    children: list["Outer"] = []
    metadata: dict[str, str] = {}
    absent: int | msgspec.UnsetType = msgspec.UNSET


OUTER = Outer(inner=Inner("token"), metadata={"object": "own"})


def test_every_object_gets_its_mode_and_the_callers_own_data_does_not() -> None:
    wire = json.loads(shapes.plain(Outer(inner=Inner("token"), children=[OUTER]), livemode=True))
    assert wire["livemode"] is True
    assert wire["children"][0]["livemode"] is True
    assert wire["children"][0]["metadata"] == {"object": "own"}
    assert wire["inner"] == {"unitName": "token"}
    assert "absent" not in wire


@pytest.mark.parametrize(
    ("version", "enveloped"), [(None, True), ("2026-07-23", True), ("2026-07-24", False), ("2026-08-27", False)]
)
def test_the_version_decides_about_the_envelope(version: str | None, enveloped: bool) -> None:  # noqa: FBT001
    assert shapes.is_enveloped(version) is enveloped


def test_a_list_keeps_its_cursor_in_both_shapes() -> None:
    plain = shapes.plain(Page([Inner("a")], "next"), livemode=False)
    assert json.loads(plain) == {"object": "list", "data": [{"unitName": "a"}], "hasMore": True, "nextCursor": "next"}
    assert json.loads(shapes.enveloped(plain)) == {
        "success": True,
        "data": [{"unitName": "a"}],
        "hasMore": True,
        "nextCursor": "next",
    }


def test_nothing_is_null_in_both_shapes() -> None:
    assert shapes.plain(None, livemode=False) == b"null"
    assert json.loads(shapes.enveloped(b"null")) == {"success": True, "data": None}


def test_an_error_has_the_same_six_fields_always() -> None:
    wire = json.loads(shapes.error(errors.NotFound("plan_not_found", "no plan", param="planId")))
    assert wire == {
        "success": False,
        "error": {
            "type": "not_found_error",
            "code": "plan_not_found",
            "message": "no plan",
            "param": "planId",
            "details": None,
            "doc_url": "/docs#error-plan_not_found",
        },
    }


def test_an_error_that_quotes_half_a_character_can_still_be_told() -> None:
    assert json.loads(shapes.error(errors.NotFound("not_found", "no \ud800")))["error"]["code"] == "not_found"

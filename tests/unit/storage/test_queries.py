"""Statements in SQL files: each has a name and a sentence, and a file in another form does not load."""

import pytest

from tallybook.storage import queries


def test_statements_are_found_by_name_without_comments_and_semicolon() -> None:
    source = """
-- What this file is about.

-- name: first_thing
-- Finds the first thing.
-- It takes two lines to say so.
SELECT 1   -- the one
-- and nothing else
FROM things;

-- name: second
-- Does nothing.
SELECT
"""
    found = queries.parse(source, "here")
    assert dict(found) == {"first_thing": "SELECT 1   -- the one\nFROM things", "second": "SELECT"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("SELECT 1;\n-- name: a\n-- Does.\nSELECT 2", "SQL before the first"),
        ("-- name: Camel\n-- Does.\nSELECT 1", "'Camel' is not a snake_case name"),
        ("-- name:\n-- Does.\nSELECT 1", "'' is not a snake_case name"),
        ("-- name: a\n-- Does.\nSELECT 1\n-- name: a\n-- Does.\nSELECT 2", "'a' is not a snake_case name, or is there twice"),
        ("-- name: a\nSELECT 1", "here: a: the name is followed by a comment with one sentence"),
        ("-- name: a\n-- does\nSELECT 1", "here: a: the name is followed by a comment with one sentence"),
        ("-- name: a\n-- Does.\n", "here: a: no SQL"),
    ],
)
def test_a_file_in_another_form_is_refused(source: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        queries.parse(source, "here")


def test_a_module_outside_a_package_has_no_queries() -> None:
    with pytest.raises(ValueError, match="modules of a package"):
        queries.load(None)

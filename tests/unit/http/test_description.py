"""The description is made from the operations, so it can't be of another API; what it says is checked here."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tallybook.entrypoints.http import docs_page, error_codes, openapi, resources, routing

OPERATIONS = routing.collect(resources.MODULES)
DOCUMENT = openapi.document(OPERATIONS, "/api/v1")
_RAISED = re.compile(
    r'errors\.(?:NotFound|Conflict|BillingError|Forbidden|Unavailable|Unauthorized|PayloadTooLarge)\(\s*"([a-z_]+)"'
)


def references(document: openapi.Json) -> list[str]:
    return re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))


def test_every_operation_is_described_once() -> None:
    described = [one["operationId"] for methods in DOCUMENT["paths"].values() for one in methods.values()]
    assert sorted(described) == sorted(operation.id for operation in OPERATIONS)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        node: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_path_parameters_are_described(operation: routing.Operation) -> None:
    described = DOCUMENT["paths"][operation.template][operation.method.lower()]
    named = [parameter["name"] for parameter in described["parameters"] if parameter["in"] == "path"]
    assert named == re.findall(r"{(\w+)}", operation.template)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_operation_says_in_a_sentence_what_it_does(operation: routing.Operation) -> None:
    assert operation.summary.endswith(".")


def test_every_error_code_in_the_source_is_explained() -> None:
    source = Path(openapi.__file__).parents[2]
    raised = {
        code
        for file in source.rglob("*.py")
        if "cli" not in file.parts
        for code in _RAISED.findall(file.read_text(encoding="utf-8"))
    }
    assert raised - error_codes.CODES.keys() == set()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        self.loaded += [value for name, value in attrs if name == "src" and value]
        assert tag != "script"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_loads_nothing_and_has_a_place_for_each_error() -> None:
    page = _Page()
    page.feed(docs_page.render(DOCUMENT))
    assert page.open == []
    assert page.loaded == []
    assert {f"error-{code}" for code in error_codes.CODES} <= page.ids
    assert {operation.id for operation in OPERATIONS} <= page.ids


def test_two_operations_can_not_claim_the_same_path() -> None:
    class Module:
        OPERATIONS = (OPERATIONS[0], OPERATIONS[0])

    with pytest.raises(ValueError, match="declared twice"):
        routing.collect([Module()])

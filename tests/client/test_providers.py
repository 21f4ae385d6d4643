"""The table of the client's README is what the tests of all providers hold."""

import ast
from pathlib import Path

from tests.client.framework_cases import CASES
from tests.client.provider_runs import TABLE


def test_the_readme_has_a_line_for_each_client() -> None:
    assert {client for client, _ in TABLE} == {case.name for case in CASES}


def test_each_client_is_run_by_one_file() -> None:
    run: list[str] = []
    for file in Path(__file__).parent.glob("test_providers_*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        [grid] = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "grid"]
        run += [made.func.id for made in grid.args if isinstance(made, ast.Call) and isinstance(made.func, ast.Name)]
    assert sorted(run) == sorted(type(case).__name__ for case in CASES)

"""The examples of the client's README are run as they stand there."""

import re
from pathlib import Path

import pytest

from tests.client import fake_provider
from tests.client.provider_cases import package
from tests.client.quiet import SDKS_ARE_QUIET
from tests.support.service import Account

pytestmark = SDKS_ARE_QUIET
README = Path(__file__).parents[2] / "src/tallybook/client/README.md"
EXAMPLES = re.findall(r"## ([^\n]+)\n(?:(?!\n##)[\s\S])*?```python\n([\s\S]*?)```", README.read_text())


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_the_example_runs(title: str, code: str, ai_account: Account, tmp_path: Path) -> None:
    if "openai" in code:
        package("openai")
    if "user_123" in code and "customers.create" not in code:
        ai_account.feature("api_calls")
        ai_account.plan("pro", "metered", price={"price": 9900}, features={"api_calls": {"includedAmount": 1000}})
        ai_account.subscribe("user_123", "pro")
    with fake_provider.running() as fake:
        given = {"api_key": ai_account.key, "url": ai_account.service.url, "folder": tmp_path, "provider_url": f"{fake.url}/v1"}
        exec(compile(code, f"README: {title}", "exec"), given)  # noqa: S102 - the project's own text


def test_all_examples_are_found() -> None:
    assert len(EXAMPLES) == README.read_text().count("```python") == 4

"""Named SQL statements in `.sql` files, `queries.sql` unless another one is named.

```sql
-- name: customer_by_reference
-- Finds a customer by public id or by the caller's own id.
SELECT …
```
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from itertools import takewhile
from types import MappingProxyType

_NAME = re.compile(r"^-- name: *(.*?) *$", re.MULTILINE)
_SNAKE_CASE = re.compile(r"[a-z][a-z0-9_]*")


@cache
def load(package: str | None, file: str = "queries.sql") -> Mapping[str, str]:
    """The statements of a package's file by name; pass `__package__`. Raises ValueError for a file in another form."""
    if package is None:
        raise ValueError("queries are loaded by the modules of a package")
    source = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    return parse(source, f"{package}/{file}")


def parse(source: str, where: str) -> Mapping[str, str]:
    """Split a file into its statements. Each has a snake_case name of its own, one comment line with a sentence, then SQL."""
    head, *parts = _NAME.split(source)
    if _without_comments(head):
        raise ValueError(f"{where}: SQL before the first `-- name:` line")
    statements: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if not _SNAKE_CASE.fullmatch(name) or name in statements:
            raise ValueError(f"{where}: {name!r} is not a snake_case name, or is there twice")
        statements[name] = _statement(body, f"{where}: {name}")
    return MappingProxyType(statements)


def _statement(body: str, where: str) -> str:
    if not _opens_with_a_sentence(body):
        raise ValueError(f"{where}: the name is followed by a comment with one sentence that says what the query does")
    statement = _without_comments(body)
    if not statement:
        raise ValueError(f"{where}: no SQL")
    return statement


def _opens_with_a_sentence(body: str) -> bool:
    lines = body.strip().split("\n")
    comment = list(takewhile(lambda line: line.startswith("-- "), lines))
    return bool(comment) and comment[-1].rstrip().endswith(".")


def _without_comments(body: str) -> str:
    lines = [line for line in body.split("\n") if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().removesuffix(";").rstrip()

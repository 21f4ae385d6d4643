"""What was served and what was metered, side by side."""

from typing import Any

from tests.client.fake_formats import Served

Json = dict[str, Any]


def counts(event: Json) -> tuple[Any, ...]:
    """An event as the fake's ledger has it."""
    names = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "cacheWrite1hTokens")
    return (event["model"].rpartition("/")[2], *(event.get(name, 0) for name in names))


def served(line: Served) -> tuple[Any, ...]:
    used = line.tokens
    return (line.model, used.input, used.output, used.cache_read, used.cache_write, used.cache_write_1h)

"""What the official client makes of being told to wait, and what a path says that it takes."""

# pyright: reportPrivateUsage=false
# What the official client does when it is told to wait stands in a module of its own.

from collections.abc import AsyncGenerator

import pytest
from aiohttp import web
from commet import _shared

from tallybook.core import errors
from tallybook.entrypoints.http import rates, replies
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


def _reply(problem: errors.TallybookError) -> web.Response:
    return replies.error_reply(problem, "req_1")


@pytest.mark.parametrize("wait_s", [1, 7])
def test_the_official_client_waits_for_as_long_as_a_429_says(wait_s: int) -> None:
    reply = _reply(errors.RateLimited("slowly", retry_after_s=wait_s))
    assert _shared.retry_delay_seconds(reply.status, reply.headers["Retry-After"], 1) == wait_s


def test_a_key_over_its_rate_is_told_a_wait_that_the_official_client_takes() -> None:
    bucket = rates.Rates(10, now_s=lambda: 0.0)
    bucket.take("key_1", 100)
    with pytest.raises(errors.RateLimited) as refused:
        bucket.take("key_1", 35)
    reply = _reply(refused.value)
    assert _shared.retry_delay_seconds(reply.status, reply.headers["Retry-After"], 1) == 4.0


def test_whatever_is_not_known_to_be_done_is_retried_by_the_official_client_and_says_when() -> None:
    reply = _reply(errors.Unavailable("till_unavailable", "away"))
    assert reply.status in _shared._RETRYABLE_STATUS_CODES
    assert int(reply.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/customers/batch", "POST"),
        ("/customers/somebody", "GET, PATCH"),
        ("/usage/events/batch", "POST"),
        ("/ai-models/quote", "POST"),
        ("/ai-models/aliases/fast", "DELETE"),
        ("/ai-models/overrides/7/end", "POST"),
        ("/ai-models/anthropic/claude-sonnet-4.6", "GET"),
    ],
)
async def test_a_path_that_fits_several_descriptions_is_the_most_literal_one(world: World, path: str, allowed: str) -> None:
    answer = await world.api.send("OPTIONS", f"/api/v1{path}")
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)

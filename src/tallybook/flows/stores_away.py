"""What a caller is told when a store did not answer: that nobody knows what was done, and that sending the same ids again is safe."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

from tallybook.core import errors
from tallybook.storage import postgres, redis

UNANSWERED = (errors.RateLimited, errors.Unavailable, redis.RedisError, *postgres.TRANSIENT_ERRORS)
CODE = "store_unavailable"
Name = TypeVar("Name")
Found = TypeVar("Found")


def told(error: BaseException) -> errors.TallybookError:
    """One of `UNANSWERED` as the caller hears of it."""
    if isinstance(error, errors.TallybookError):
        return error
    message = "A store did not answer, so it is not known whether this was done. Send the same request again with the same ids."
    return errors.Unavailable(CODE, message)


async def gather(asked: Mapping[Name, Awaitable[Found]]) -> tuple[dict[Name, Found], dict[Name, errors.TallybookError]]:
    """What was found, and of the others what to tell. Raises what is none of `UNANSWERED`."""
    answers = await asyncio.gather(*asked.values(), return_exceptions=True)
    found, away = dict[Name, Found](), dict[Name, errors.TallybookError]()
    for name, answer in zip(asked, answers, strict=True):
        if isinstance(answer, UNANSWERED):
            away[name] = told(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found[name] = answer
    return found, away


def is_all(results: Iterable[object]) -> bool:
    """Whether no store answered for any of them."""
    return all(isinstance(result, errors.TallybookError) and result.code == CODE for result in results)

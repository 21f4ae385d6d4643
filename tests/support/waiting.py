"""Waiting for something that another process or task will do."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Return when the condition holds. Without limit: whoever runs the tests stops those that wait in vain."""
    while not await reached():  # noqa: ASYNC110 - what is waited for happens in other processes and can set no event
        await asyncio.sleep(0.02)

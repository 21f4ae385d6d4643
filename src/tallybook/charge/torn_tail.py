"""What a restarted Redis may still carry at the end of its append-only file, and how it is got rid of before the till is used again.

A Redis killed in the middle of a write leaves a torn last command. When it starts again it cuts the file after the last whole one, which
may be inside the MULTI of a script: what is in memory is right, but the file now ends with half a transaction. Whatever is written
next lands inside it, and the *following* start carries the half out: a deduction without its log entry (seen with 6.2.14 and 7.0.15,
`test_torn_tail.py`). Rewriting the file from memory, before anything is written, removes the half for good.
"""

import asyncio
import logging

from tallybook.core import errors
from tallybook.storage import redis

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.05
_S_MAX = 600.0
_NEVER = "-1"


async def cut_off(client: redis.Redis) -> None:
    """Return when the append-only file was rewritten at least once since the server started. Any number of processes may ask.

    Raises Unavailable when the rewrite fails or takes longer than ten minutes, and RedisError.
    """
    deadline = asyncio.get_running_loop().time() + _S_MAX
    state = await _state(client)
    while state["aof_rewrite_in_progress"] != "0" or state["aof_last_rewrite_time_sec"] == _NEVER:
        if asyncio.get_running_loop().time() > deadline:
            raise _not_rewritten("it takes too long")
        if state["aof_rewrite_in_progress"] == "0" and state["aof_rewrite_scheduled"] == "0":
            await _begin(client)
        await asyncio.sleep(_LOOK_S)
        state = await _state(client)
    if state["aof_last_bgrewrite_status"] != "ok":
        raise _not_rewritten(f"its status is {state['aof_last_bgrewrite_status']}")


async def _begin(client: redis.Redis) -> None:
    _LOG.info("Redis was started again: rewriting its append-only file before the till is used")
    try:
        await client.execute_command("BGREWRITEAOF")
    except redis.ResponseError as error:
        if "already in progress" not in str(error):
            raise _not_rewritten(str(error)) from error


async def _state(client: redis.Redis) -> dict[str, str]:
    reply: bytes = await client.execute_command("INFO", "persistence")
    lines = [line.partition(":") for line in reply.decode().splitlines()]
    return {name: value for name, _, value in lines}


def _not_rewritten(why: str) -> errors.Unavailable:
    message = f"Redis was started again and its append-only file could not be rewritten ({why}); usage is refused until it is."
    return errors.Unavailable("till_unavailable", message, retry_after_s=5)

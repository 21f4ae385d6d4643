"""Redis emptied, put back to an older copy, or another installation's: what running processes answer, and what `rebuild` makes of it."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable

from tallybook.embedded import folders
from tallybook.storage import redis
from tests.crash import ground as grounds
from tests.crash.ground import Ground
from tests.support import tills

_FOREIGN_CUSTOMERS = 20
_LOAD_S = 1.0
_LOOK_S = 0.02


async def lose(ground: Ground) -> list[str]:
    """Lose the till in every manner, each time with a book that has read its log. Returns what went wrong."""
    problems: list[str] = []
    for replace, needs_force in ((_empty, False), (_older_copy, False), (_another, True)):
        await replace(ground)
        problems += [f"{replace.__name__.strip('_')}: {problem}" for problem in await _refused(ground)]
        if needs_force and await _rebuild(ground) == 0:
            problems.append("another installation's till was made anew without --force")
        if await _rebuild(ground, *(["--force"] if needs_force else [])) != 0:
            problems.append(f"{replace.__name__.strip('_')}: rebuild failed, or found a difference")
        await _some_load(ground)
    return problems


async def _some_load(ground: Ground) -> None:
    """More events, all of them in the book at the end."""
    async with grounds.loaded(ground):
        await asyncio.sleep(_LOAD_S)
    await grounds.judge(ground)


async def _empty(ground: Ground) -> None:
    await _restart_redis(ground, lambda: _clear(ground))


async def _older_copy(ground: Ground) -> None:
    data, copy = ground.field.stores.data / "redis", ground.field.stores.data / "copy"
    await _restart_redis(ground, lambda: shutil.copytree(data, copy))
    await _some_load(ground)

    def swap() -> None:
        shutil.rmtree(data)
        copy.rename(data)

    await _restart_redis(ground, swap)


async def _another(ground: Ground) -> None:
    await _restart_redis(ground, lambda: _clear(ground))
    client = redis.connect(ground.field.settings.redis_url)
    till = await tills.open_till(client)
    await till.charge([tills.usage(customer, "theirs", 5, opening=100) for customer in range(1, _FOREIGN_CUSTOMERS)])
    await client.close()


def _clear(ground: Ground) -> None:
    shutil.rmtree(ground.field.stores.data / "redis")
    folders.make(ground.field.stores.data)


async def _restart_redis(ground: Ground, meanwhile: Callable[[], object]) -> None:
    target = ground.field.target("redis")
    target.kill(ground.field.starters, meanwhile)
    while not target.is_up:  # noqa: ASYNC110 - it starts in a thread
        await asyncio.sleep(_LOOK_S)


async def _refused(ground: Ground) -> list[str]:
    """Ask each API process until it says that the till is not known; until then it may say that it can't be reached."""
    found = [await _until(lambda url=url: asyncio.to_thread(_answer, ground, url)) for url in ground.field.urls]
    return [
        f"{status} {code} where 503 till_unknown was expected"
        for status, code in found
        if (status, code) != (503, "till_unknown")
    ]


async def _until(ask: Callable[[], Awaitable[tuple[int, str]]]) -> tuple[int, str]:
    while (answer := await ask()) == (503, "till_unavailable"):  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(_LOOK_S)
    return answer


def _answer(ground: Ground, url: str) -> tuple[int, str]:
    """Status and error code of one usage event."""
    customer = next(one for one in ground.customers if not one.is_ai)
    event = {"customerId": customer.reference, "featureCode": customer.feature, "eventId": "refused", "value": 1}
    response = ground.account.service.http.post(
        f"{url}/api/v1/usage/events", json=event, headers={"x-api-key": ground.account.key, "commet-version": "2026-08-27"}
    )
    return response.status_code, "" if response.is_success else response.json()["error"]["code"]


async def _rebuild(ground: Ground, *words: str) -> int:
    """The exit code of `tallybook rebuild`, which reconciles as well."""
    command = ground.field.nursery.start(["rebuild", *words], ground.field.settings)
    while command.exit_code is None:  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(_LOOK_S)
    return command.exit_code

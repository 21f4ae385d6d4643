"""The ceiling of HTTP and JSON in Python: aiohttp on uvloop that reads, decodes and answers the same bodies, and does nothing else.

`python -m benchmarks.bare_server PORT ANSWER`: each request is read and decoded, and the answer that Tallybook gave to such a
request (the JSON file ANSWER) is encoded and sent. It has no key, no bounds, no checks, no store and no log.
"""

import asyncio
import sys
from pathlib import Path

import orjson
import uvloop
from aiohttp import web


def application(answer: object) -> web.Application:
    """Answers every POST with `answer`."""

    async def handle(request: web.Request) -> web.Response:
        orjson.loads(await request.read())
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    made = web.Application()
    made.router.add_post("/{anything:.*}", handle)
    return made


async def _main(port: int, answer: object) -> None:
    runner = web.AppRunner(application(answer), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_port=True, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), orjson.loads(Path(sys.argv[2]).read_bytes())))

"""A headless Chromium for tests, spoken to by its own protocol over a web socket; no driver and no download.

Tests that want one are skipped, with the reason, on machines without it.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_START_S_MAX = 30.0
_ANSWER_S_MAX = 30.0
_STOP_S_MAX = 5.0
_MESSAGE_BYTES_MAX = 64 << 20
_LOUD = frozenset({"warning", "error", "assert"})


def program() -> str | None:
    """The installed browser, None where there is none. `CHROMIUM` names one that is elsewhere."""
    return os.environ.get("CHROMIUM") or next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Tab:
    """One page. `complaints` is what the browser wrote to its console about it: errors, warnings, refused scripts."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._session: str | None = None
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says until it is gone."""
        async for message in self._socket:
            said: Json = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            else:
                self._note(said["method"], said.get("params", {}))

    def _note(self, method: str, params: Json) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in _LOUD:
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in _LOUD:
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    async def send(self, method: str, **params: Any) -> Json:  # noqa: ANN401 - the protocol's JSON
        """One command and its result."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        answer = await asyncio.wait_for(self._waiting[number], _ANSWER_S_MAX)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    async def attach(self) -> None:
        """Make the tab."""
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """How large the window is, and which colours its user prefers."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < height
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        """Go to an address and wait until everything is loaded."""
        async with self.loading():
            await self.send("Page.navigate", url=url)

    @contextlib.asynccontextmanager
    async def loading(self) -> AsyncGenerator[None]:
        """What happens in the block loads another page; it ends when that is there."""
        self._loaded.clear()
        yield
        await asyncio.wait_for(self._loaded.wait(), _ANSWER_S_MAX)

    async def run(self, script: str) -> Any:  # noqa: ANN401 - the script's own
        """The value of a JavaScript expression; promises are waited for."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key of the keyboard."""
        for kind in ("keyDown", "keyUp"):
            words = {"text": text} if text and kind == "keyDown" else {}
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **words)

    async def type(self, text: str) -> None:
        """Write into whatever has the focus."""
        await self.send("Input.insertText", text=text)

    async def tree(self) -> list[tuple[str, str]]:
        """What a screen reader is told: the role and name of everything on the page."""
        nodes = (await self.send("Accessibility.getFullAXTree"))["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and "role" in node
        ]


@contextlib.asynccontextmanager
async def opened(found: str) -> AsyncGenerator[Tab]:
    """A tab of a browser of its own, with no history; both end with the block."""
    with tempfile.TemporaryDirectory(prefix="tallybook-browser-", ignore_cleanup_errors=True) as profile:
        words = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run"]
        words += ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
        words += ["--no-sandbox"] if os.geteuid() == 0 else []
        quiet = asyncio.subprocess.DEVNULL
        child = await asyncio.create_subprocess_exec(found, *words, "about:blank", stdout=quiet, stderr=quiet)
        try:
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(await _address(Path(profile), child), max_msg_size=_MESSAGE_BYTES_MAX) as socket,
            ):
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                await tab.attach()
                yield tab
                await socket.close()
                await listening
        finally:
            await _stop(child)


async def _address(profile: Path, child: asyncio.subprocess.Process) -> str:
    """Where the browser listens, which it writes into its profile."""
    told = profile / "DevToolsActivePort"
    async with asyncio.timeout(_START_S_MAX):
        while not told.exists() or "\n" not in (text := told.read_text()):
            assert child.returncode is None, "the browser ended while starting"
            await asyncio.sleep(0.05)
    port, path = text.split("\n")[:2]
    return f"ws://127.0.0.1:{port}{path}"


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), _STOP_S_MAX)
        except TimeoutError:
            child.kill()
            await child.wait()

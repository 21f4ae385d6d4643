"""Nothing that is written down holds a secret: everything is made to speak at debug level, through success and failure, and searched."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallybook import settings
from tallybook.cli.ports import SharedPort
from tallybook.embedded.child import Child, Program
from tallybook.embedded.stores import Stores
from tallybook.settings import Settings
from tallybook.storage import migrate, redis

_WAIT_S = 0.05
_NOWHERE = "127.0.0.1:1"


@dataclass(slots=True)
class Hoard:
    """What must be written nowhere, by what it is, and all that was written, by where."""

    secrets: dict[str, str] = field(default_factory=dict[str, str])
    written: dict[str, str] = field(default_factory=dict[str, str])

    def keep(self, what: str, text: str) -> str:
        """Note a secret; returns it."""
        self.secrets[what] = text
        return text

    def keep_key(self, what: str, text: str) -> str:
        """Note the secret part of an API key; the part before it may be shown."""
        self.keep(what, text.split("_", 2)[2])
        return text

    def found(self) -> list[tuple[str, str]]:
        """Which secret stands where."""
        return [(what, where) for where, text in self.written.items() for what, secret in self.secrets.items() if secret in text]


@dataclass(frozen=True, slots=True)
class Talker:
    """A service that says everything it can, on stores whose URLs hold passwords."""

    url: str
    environment: Mapping[str, str]
    stores: Stores
    hoard: Hoard
    logs: Path

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None, is_shown: bool = False) -> Any:  # noqa: ANN401
        """One request; its answer is searched unless it is the one that shows a secret."""
        headers = {
            "commet-version": "2026-08-27",
            "Idempotency-Key": str(uuid.uuid4()),
            **({} if key is None else {"x-api-key": key}),
        }
        answer = httpx.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=60.0)
        if not is_shown:
            self.hoard.written[f"answer {len(self.hoard.written)} to {method} {path[:40]}"] = f"{answer.headers}{answer.text}"
        return answer.json() if answer.headers.get("content-type") == "application/json" else answer.text

    def command(self, *words: str, environment: Mapping[str, str] | None = None, is_shown: bool = False) -> str:
        """One command; what it prints is searched, unless it prints a secret on purpose."""
        done = subprocess.run(  # noqa: S603 - the command is ours
            [sys.executable, "-P", "-m", "tallybook.cli", *words],
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stderr if is_shown else done.stdout + done.stderr
        self.hoard.written[f"command {len(self.hoard.written)}: {' '.join(words)}"] = said
        return done.stdout


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Generator[Talker]:
    """One API process and one worker at debug level."""
    folder = tmp_path_factory.mktemp("secrets")
    folder.chmod(0o711)
    hoard = Hoard()
    with Stores(folder / "data", postgres_settings={"shared_buffers": "32MB", "log_statement": "none"}) as stores:
        password = hoard.keep("the password of Redis", secrets.token_hex(16))
        asyncio.run(_allow(stores.redis.url, password))
        asyncio.run(_migrate(stores.postgres.url))
        given = Settings(
            postgres_url=_with_password(stores.postgres.url, hoard.keep("the password of Postgres", secrets.token_hex(16))),
            redis_url=stores.redis.url.replace("unix://", f"unix://tallybook:{password}@"),
            log_level="debug",
            catalog_url="",
            webhook_key=hoard.keep("the key that seals webhook secrets", secrets.token_hex(32)),
            webhook_allow_private=True,
        )
        with contextlib.closing(SharedPort("127.0.0.1", 0)) as port:
            environment = {
                **os.environ,
                **settings.to_environment(given),
                "TALLYBOOK_PORT": str(port.port),
                "TALLYBOOK_REUSE_PORT": "true",
            }
            children = [_start(word, environment, folder / "data" / "logs", word) for word in ("work", "serve")]
            try:
                while not port.is_ready():
                    assert all(child.exit_code is None for child in children), _texts(folder / "data" / "logs")
                    time.sleep(_WAIT_S)
                yield Talker(port.url, environment, stores, hoard, folder / "data" / "logs")
            finally:
                for child in children:
                    child.stop()


def test_no_secret_is_written_down_anywhere(talker: Talker) -> None:
    hoard = talker.hoard
    key = _make_keys(talker)
    _make_webhooks(talker, key)
    _make_mistakes(talker, key)
    _sign_in(talker, key)
    _lose_the_stores(talker, key)
    _run_commands(talker)
    hoard.written |= {"metrics": talker.ask("GET", "/metrics"), **_texts(talker.logs)}
    assert hoard.found() == []
    logged = "".join(_texts(talker.logs).values())
    for told in ('"level":"info"', '"level":"warning"', "not HTTP", "waiting for the stores"):
        assert told in logged, f"the logs say too little to prove anything: nothing of {told}"


def test_the_search_finds_a_secret_where_one_is() -> None:
    hoard = Hoard()
    hoard.keep_key("a key", "ck_0123456789abcdef_topsecret_")
    hoard.written = {"a log": "shows ck_0123456789abcdef only", "another": "shows topsecret_ whole"}
    assert hoard.found() == [("a key", "another")]


def _make_keys(talker: Talker) -> str:
    hoard = talker.hoard
    printed = talker.command("keys", "create", "--new-organization", "Acme", "--name", "first", is_shown=True)
    first = hoard.keep_key("the key from the command line", _the(r"ck_\w{16}_[\w-]+", printed))
    for name in ("second", "third"):
        made = talker.ask("POST", "/api/v1/api-keys", {"name": name}, key=first, is_shown=True)
        hoard.keep_key(f"the {name} key", made["apiKey"])
    talker.ask("DELETE", f"/api/v1/api-keys/{made['id']}", key=first)
    talker.ask("GET", "/api/v1/api-keys", key=made["apiKey"])
    talker.ask("GET", "/api/v1/api-keys", key=first)
    talker.command("keys", "list", "--organization", _the(r"org_\w+", printed))
    return first


def _make_webhooks(talker: Talker, key: str) -> None:
    made = talker.ask(
        "POST", "/api/v1/webhooks", {"url": f"http://{_NOWHERE}/", "events": ["customer.created"]}, key=key, is_shown=True
    )
    secret = talker.hoard.keep("the secret of the webhook", _the(r"whsec_[\w+/=-]+", json.dumps(made)).removeprefix("whsec_"))
    assert len(secret) > 20
    talker.ask("POST", f"/api/v1/webhooks/{made['id']}/test", key=key)
    talker.ask("POST", "/api/v1/customers", {"id": "told", "email": "told@example.com"}, key=key)
    deliveries = f"/api/v1/webhooks/{made['id']}/deliveries"
    while not any(one["attempts"] for one in talker.ask("GET", deliveries, key=key)["data"]):
        time.sleep(_WAIT_S)


def _make_mistakes(talker: Talker, key: str) -> None:
    """Wrong keys, and good ones in wrong places: these answers may show the caller what he sent, but no log may."""
    wrong = talker.hoard.keep_key("a wrong key", key[:-8] + secrets.token_hex(4))
    talker.ask("GET", "/api/v1/customers", key=wrong)
    talker.ask("GET", "/api/v1/customers", key=f"Bearer {key}")
    for path in (f"/api/v1/customers/{key}", f"/{key}", f"/api/v1/customers?apiKey={key}", f"/api/v1/usage/events?key={key}"):
        talker.ask("GET", path, key=key, is_shown=True)
    for body in ({"apiKey": key}, {"id": key, "email": key}, key, [key]):
        talker.ask("POST", "/api/v1/customers", body, key=key, is_shown=True)
        talker.ask("POST", "/api/v1/usage/events", body, key=key, is_shown=True)
    host, _, port = talker.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nx-api-key {key}\r\n\r\n".encode())
        talker.hoard.written["answer to what is no HTTP"] = connection.recv(65536).decode()


def _sign_in(talker: Talker, key: str) -> None:
    with httpx.Client(base_url=talker.url, timeout=60.0) as browser:
        page = browser.get("/dashboard/sign-in").text
        token = _the(r'name="token" value="([^"]+)"', page)
        for given in (key[:-1], key):
            answer = browser.post("/dashboard/sign-in", data={"token": token, "zone": "UTC", "key": given})
            talker.hoard.written[f"page {len(talker.hoard.written)}"] = answer.text
        talker.hoard.keep("the session of the dashboard", browser.cookies["tallybook_session"])
        talker.hoard.written["the dashboard"] = browser.get("/dashboard").text


def _lose_the_stores(talker: Talker, key: str) -> None:
    event = {"customerId": "told", "featureCode": "calls", "value": 1}
    for lose, find in ((_kill_redis, _start_redis), (_kill_postgres, _start_postgres)):
        lose(talker)
        for path in ("/readyz", "/api/v1/customers", "/api/v1/feature-access?customerId=told"):
            talker.ask("GET", path, key=key)
        talker.ask("POST", "/api/v1/usage/events", event, key=key)
        find(talker)
    while talker.ask("GET", "/readyz")["status"] != "ready":
        time.sleep(_WAIT_S)


def _run_commands(talker: Talker) -> None:
    """With stores that are there, with stores that are not, and with addresses that are none."""
    book, till = talker.hoard.secrets["the password of Postgres"], talker.hoard.secrets["the password of Redis"]
    nowhere = {"TALLYBOOK_POSTGRES_URL": f"postgresql://tallybook:{book}@{_NOWHERE}/tallybook"}
    broken: list[dict[str, str]] = [
        {"TALLYBOOK_POSTGRES_URL": f"postgresql://tallybook:{book}@localhost:here/tallybook"},
        {"TALLYBOOK_REDIS_URL": f"memcached://tallybook:{till}@localhost:here/0", "TALLYBOOK_REDIS_PASSWORT": till},
        {"TALLYBOOK_WEBHOOK_KEY": talker.hoard.keep("a key that is too short", secrets.token_hex(8))},
    ]
    talker.command("reconcile")
    talker.command("migrate", environment=nowhere)
    for environment in broken:
        talker.command("reconcile", environment=environment)
    for name, environment in (
        ("no book", nowhere),
        ("no till", {"TALLYBOOK_REDIS_URL": f"redis://tallybook:{till}@{_NOWHERE}/0"}),
    ):
        _wait_in_vain(talker, name, environment)


def _wait_in_vain(talker: Talker, name: str, environment: Mapping[str, str]) -> None:
    """A process that finds no store says so, and looks again."""
    lost = _start("serve", {**talker.environment, **environment, "TALLYBOOK_PORT": "0"}, talker.logs, name)
    while lost.exit_code is None and '"level":"warning"' not in (talker.logs / f"{name}.log").read_text():
        time.sleep(_WAIT_S)
    lost.kill()


def _the(pattern: str, text: str) -> str:
    """What a pattern, or its group, finds in a text."""
    match = re.search(pattern, text)
    assert match is not None, (pattern, text)
    return match[match.lastindex or 0]


def _start(word: str, environment: Mapping[str, str], logs: Path, name: str) -> Child:
    command = [sys.executable, "-P", "-m", "tallybook.cli", word]
    return Child(Program(name, command, logs.parent / "pids", log=logs / f"{name}.log", environment=environment))


def _texts(folder: Path) -> dict[str, str]:
    return {f"log {path.name}": path.read_text(errors="replace") for path in sorted(folder.iterdir())}


def _with_password(url: str, password: str) -> str:
    """The servers of a test trust whoever reaches their sockets, so that any password will do."""
    return re.sub(r"^postgresql://(\w+)@", rf"postgresql://\1:{password}@", url)


def _kill_redis(talker: Talker) -> None:
    talker.stores.redis.child.kill()


def _start_redis(talker: Talker) -> None:
    talker.stores.redis.start()
    asyncio.run(_allow(talker.stores.redis.url, talker.hoard.secrets["the password of Redis"]))


def _kill_postgres(talker: Talker) -> None:
    talker.stores.postgres.child.kill()


def _start_postgres(talker: Talker) -> None:
    talker.stores.postgres.start()


async def _allow(url: str, password: str) -> None:
    """A user with a password, until Redis is started again."""
    client = redis.connect(url)
    await client.execute_command("ACL", "SETUSER", "tallybook", "on", f">{password}", "~*", "&*", "+@all")
    await client.close()


async def _migrate(url: str) -> None:
    await migrate.migrate(url)

"""`tallybook webhooks`: what it lists, and what it says of a test."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tallybook import cli
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import billing, posting
from tests.support.posting import Office
from tests.support.receiver import receiving


@pytest.fixture
async def office(
    database: Pool, redis_client: Redis, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Office]:
    monkeypatch.setenv("TALLYBOOK_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("TALLYBOOK_WEBHOOK_ALLOW_PRIVATE", "true")
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as world, posting.opened(world, postgres_url) as opened:
        yield opened


async def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = await asyncio.to_thread(cli.main, ["webhooks", *words])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


async def test_endpoints_are_listed_tested_and_their_deliveries_shown(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    async with receiving() as there:
        endpoint = await office.endpoint(there)
        there.now_s = None
        code, listed = await said(capsys, "list")
        assert (code, listed.split()[:3]) == (0, [endpoint["id"], "on", there.url])
        assert (await said(capsys, "test", endpoint["id"])) == (0, f"{there.url}  answered 200\n")
        there.answers = [503]
        assert (await said(capsys, "test", endpoint["id"])) == (1, f"{there.url}  answered 503\n")
        await office.announce()
        await office.fan_out()
    code, shown = await said(capsys, "deliveries", endpoint["id"])
    assert code == 0
    assert [line.split("  ")[1:5] for line in shown.splitlines()] == [
        ["invoice.created", "pending", "0 attempts", "not tried yet"],
        ["webhook.test", "failed", "1 attempts", "answered 503"],
        ["webhook.test", "delivered", "1 attempts", "answered 200"],
    ]
    await office.world.ask("PATCH", f"/webhooks/{endpoint['id']}", {"isActive": False})
    assert "OFF (asked for)" in (await said(capsys, "list"))[1]


async def test_outside_of_development_a_private_endpoint_is_not_reached(
    office: Office, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as there:
        endpoint = await office.endpoint(there)
        monkeypatch.setenv("TALLYBOOK_WEBHOOK_ALLOW_PRIVATE", "false")
        assert (await said(capsys, "test", endpoint["id"])) == (1, f"{there.url}  no answer: address_refused\n")
    assert there.requests == []


async def test_an_unknown_endpoint_is_one_line(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert office.world.tenant.id
    assert await said(capsys, "test", "whe_none") == (1, "tallybook: There is no webhook endpoint whe_none.\n")

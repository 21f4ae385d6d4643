"""API keys over HTTP, with the official client and without."""

import argparse
import asyncio
from collections.abc import AsyncGenerator, Generator

import httpx
import pytest
from commet import Commet, CommetAPIError, CommetValidationError

from tallybook.cli import keys as command
from tallybook.entrypoints.http.resources import api_keys
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis
from tests.support import api
from tests.support.api import Account, Api

PERMISSIONS = {"customer": frozenset({"read", "write"}), "api_key": frozenset({"read", "write"})}


@pytest.fixture(scope="module")
async def services(database: postgres.Pool, redis_client: redis.Redis) -> Services:
    return await api.make_services(database, redis_client)


@pytest.fixture
async def account(services: Services) -> Account:
    return await api.make_account(services.database)


@pytest.fixture
async def http(services: Services, account: Account) -> AsyncGenerator[Api]:
    async with api.serving(services, api_keys.OPERATIONS) as client:
        yield Api(client, account.key)


@pytest.fixture
def official(http: Api, account: Account) -> Generator[Commet]:
    with Commet(account.key, retries=0) as client:
        client._http._client.base_url = httpx.URL(str(http.client.make_url("/api/v1")))  # pyright: ignore[reportPrivateUsage]
        yield client


async def test_the_official_client_makes_lists_and_deletes_keys(official: Commet) -> None:
    made = await asyncio.to_thread(official.api_keys.create, name="CI", expires_in_days=30)
    assert made.object == "api_key"
    assert made.api_key.startswith(made.prefix + "_")
    assert made.livemode is False
    listed = await asyncio.to_thread(official.api_keys.list)
    assert [(key.name, key.object) for key in listed.data] == [("CI", "api_key"), ("test", "api_key")]
    assert listed.data[0].expires_at == made.expires_at
    deleted = await asyncio.to_thread(official.api_keys.delete, made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(CommetAPIError) as caught:
        await asyncio.to_thread(official.api_keys.delete, made.id)
    assert (caught.value.code, caught.value.status_code) == ("api_key_not_found", 404)
    assert caught.value.request_id is not None


async def test_the_official_client_sees_which_field_is_wrong(official: Commet) -> None:
    with pytest.raises(CommetValidationError) as caught:
        await asyncio.to_thread(official.api_keys.create, name="CI", expires_in_days=400)
    assert list(caught.value.validation_errors) == ["expiresInDays"]


async def test_a_list_is_paged_newest_first_even_when_the_last_row_of_a_page_is_deleted(http: Api) -> None:
    made = [(await http.send("POST", "/api/v1/api-keys", {"name": f"k{number}"})).body["id"] for number in range(4)]
    first = (await http.send("GET", "/api/v1/api-keys", params={"limit": "2"})).body
    assert [key["id"] for key in first["data"]] == made[:1:-1]
    await http.send("DELETE", f"/api/v1/api-keys/{made[2]}")
    second = (await http.send("GET", "/api/v1/api-keys", params={"limit": "10", "cursor": first["nextCursor"]})).body
    assert [key["id"] for key in second["data"]][:2] == made[1::-1]
    assert (second["hasMore"], second["nextCursor"]) == (False, None)


async def test_a_new_key_works_at_once_and_no_answer_but_its_first_shows_it(http: Api) -> None:
    made = await http.send("POST", "/api/v1/api-keys", {"name": "new"})
    listed = await Api(http.client, made.body["apiKey"]).send("GET", "/api/v1/api-keys")
    assert listed.status == 200
    assert made.body["apiKey"][20:] not in str(listed.body)


async def test_a_retry_gets_the_same_secret_and_the_database_does_not_hold_it(http: Api, services: Services) -> None:
    headers = {"Idempotency-Key": "make-one"}
    first = await http.send("POST", "/api/v1/api-keys", {"name": "one"}, headers=headers)
    again = await http.send("POST", "/api/v1/api-keys", {"name": "one"}, headers=headers)
    assert first.body == again.body
    stored = await services.database.fetchval("SELECT response FROM idempotency_keys ORDER BY created_at DESC LIMIT 1")
    assert first.body["apiKey"].encode()[20:] not in stored
    other = Api(http.client, first.body["apiKey"])
    foreign = await other.send("POST", "/api/v1/api-keys", {"name": "one"}, headers=headers)
    assert (foreign.status, foreign.code) == (409, "idempotency_key_mismatch")


async def test_a_restricted_key_makes_only_lesser_keys_and_deletes_none(http: Api, services: Services) -> None:
    holder = await api.make_account(services.database, PERMISSIONS)
    restricted = Api(http.client, holder.key)
    lesser = await restricted.send("POST", "/api/v1/api-keys", {"name": "less", "permissions": {"customer": ["read"]}})
    assert (lesser.status, lesser.body["permissions"]) == (200, {"customer": ["read"]})
    mine = next(key for key in (await restricted.send("GET", "/api/v1/api-keys")).body["data"] if key["id"] == holder.key_id)
    assert lesser.body["expiresAt"] <= mine["expiresAt"]
    for body in ({"name": "full"}, {"name": "more", "permissions": {"plan": ["read"]}}):
        refused = await restricted.send("POST", "/api/v1/api-keys", body)
        assert (refused.status, refused.code) == (403, "forbidden")
    assert (await restricted.send("DELETE", f"/api/v1/api-keys/{lesser.body['id']}")).status == 403


async def test_an_unknown_permission_is_named(http: Api) -> None:
    answer = await http.send("POST", "/api/v1/api-keys", {"name": "x", "permissions": {"customers": ["read"]}})
    assert (answer.status, answer.body["error"]["param"]) == (400, "permissions.customers")


async def test_another_organizations_key_is_not_found(http: Api, services: Services) -> None:
    other = await api.make_account(services.database)
    answer = await http.send("DELETE", f"/api/v1/api-keys/{other.key_id}")
    assert (answer.status, answer.code) == (404, "api_key_not_found")


async def test_the_command_line_makes_lists_and_revokes_keys(
    postgres_url: str, http: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(*words: str) -> str:
        parser = argparse.ArgumentParser()
        command.configure(parser)
        code = await asyncio.to_thread(command.run, parser.parse_args(words))
        assert code == 0
        return capsys.readouterr().out

    monkeypatch.setenv("TALLYBOOK_POSTGRES_URL", postgres_url)
    made = await run("create", "--new-organization", "Shell", "--live", "--name", "cron", "--expires-in-days", "7")
    key_id, _prefix, organization, mode = made.split()[:4]
    assert mode == "live"
    text = next(line for line in made.splitlines() if line.startswith("api key: ")).removeprefix("api key: ")
    shell = Api(http.client, text)
    assert (await shell.send("GET", "/api/v1/api-keys")).body["data"][0]["livemode"] is True
    assert key_id in await run("list", "--organization", organization, "--live")
    assert await run("list", "--organization", organization, "--sandbox") == ""
    await run("revoke", key_id)
    assert key_id not in await run("list", "--organization", organization, "--live")

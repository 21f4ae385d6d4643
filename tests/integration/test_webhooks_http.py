"""The resources `webhooks` and `alerts` over HTTP: shapes, secrets, what is refused, and whose is whose."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from tallybook.entrypoints import webhook_sender
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import api, billing, posting
from tests.support.api import Api
from tests.support.billing import World
from tests.support.posting import Office
from tests.support.receiver import receiving

HOOK = {"url": "https://hooks.example.com/tally", "events": ["invoice.created"]}
ALERT = {"metric": "spend", "threshold": 100, "unit": "amount"}


@pytest.fixture
async def world(database: Pool, redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    async def nothing(_url: str) -> bool:
        return False

    monkeypatch.setattr(webhook_sender, "means_private", nothing)
    async with billing.world(database, redis_client) as made:
        yield made


@pytest.fixture
async def office(world: World, postgres_url: str) -> AsyncGenerator[Office]:
    async with posting.opened(world, postgres_url) as opened:
        yield opened


async def test_an_endpoint_shows_its_secret_once(world: World) -> None:
    made = await world.ask("POST", "/webhooks", {**HOOK, "description": "billing", "apiVersion": "2026-08-27"})
    assert made.pop("secretKey").startswith("whsec_")
    assert made["id"].startswith("whe_")
    assert (made["object"], made["isActive"], made["livemode"]) == ("webhook", True, False)
    assert await world.ask("GET", f"/webhooks/{made['id']}") == made
    assert (await world.ask("GET", "/webhooks"))["data"][0] == made
    changed = await world.ask("PATCH", f"/webhooks/{made['id']}", {"events": ["balance.low", "balance.low"], "description": None})
    assert (changed["events"], changed["description"], changed["url"]) == (["balance.low"], None, HOOK["url"])
    assert (await world.ask("DELETE", f"/webhooks/{made['id']}"))["deleted"] is True
    assert await world.refused("GET", f"/webhooks/{made['id']}") == (404, "webhook_not_found")


async def test_a_repeated_creation_shows_the_same_secret_and_the_book_does_not_hold_it(world: World) -> None:
    world.services.settings = replace(world.services.settings, webhook_key="k" * 32)
    headers = {"Idempotency-Key": "once"}
    first = await world.api.send("POST", "/api/v1/webhooks", HOOK, headers=headers)
    again = await world.api.send("POST", "/api/v1/webhooks", HOOK, headers=headers)
    assert first.body == again.body
    secret = first.body["secretKey"].encode()
    stored = await world.services.database.fetchrow(
        "SELECT secret, secret_sealed FROM webhook_endpoints WHERE public_id = $1", first.body["id"]
    )
    assert stored is not None
    assert stored["secret_sealed"]
    kept = await world.services.database.fetch("SELECT response FROM idempotency_keys WHERE tenant_id = $1", world.tenant.id)
    assert all(secret not in content for content in (stored["secret"], *(row["response"] for row in kept)))


async def test_what_an_organization_has_is_nobody_elses(world: World) -> None:
    made = await world.ask("POST", "/webhooks", HOOK)
    alert = await world.ask("POST", "/alerts", ALERT)
    stranger = await api.make_account(world.services.database)
    theirs = World(world.services, stranger, Api(world.api.client, stranger.key), world.clock)
    hook, alarm = f"/webhooks/{made['id']}", f"/alerts/{alert['id']}"
    for method, path, body in (
        ("GET", hook, None),
        ("PATCH", hook, {"isActive": False}),
        ("DELETE", hook, None),
        ("POST", f"{hook}/test", None),
        ("GET", f"{hook}/deliveries", None),
        ("POST", f"{hook}/deliveries/whd_1/resend", None),
    ):
        assert await theirs.refused(method, path, body) == (404, "webhook_not_found")
    for method, body in (("GET", None), ("PATCH", {"isActive": False}), ("DELETE", None)):
        assert await theirs.refused(method, alarm, body) == (404, "alert_not_found")
    assert (await theirs.ask("GET", "/webhooks"))["data"] == []
    assert (await theirs.ask("GET", "/alerts"))["data"] == []
    assert (await world.ask("GET", hook))["isActive"] is True
    assert (await world.ask("GET", alarm))["isActive"] is True


async def test_a_restricted_key_needs_the_permission(world: World) -> None:
    reader = await api.make_account(world.services.database, {"webhook": frozenset({"read"}), "alert": frozenset({"read"})})
    caller = Api(world.api.client, reader.key)
    assert (await caller.send("GET", "/api/v1/webhooks")).status == 200
    for path, body in (("/webhooks", HOOK), ("/webhooks/whe_1/test", None), ("/alerts", ALERT)):
        assert (await caller.send("POST", f"/api/v1{path}", body)).status == 403


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"url": "http://hooks.example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://169.254.169.254/latest/meta-data/"}, "url"),
        ({"url": "nonsense"}, "url"),
        ({"events": []}, "events"),
        ({"events": ["invoice.exploded"]}, "events"),
        ({"apiVersion": "latest"}, "apiVersion"),
    ],
)
async def test_an_endpoint_that_breaks_a_rule_is_refused_when_it_is_made_and_when_it_is_changed(
    world: World, change: dict[str, object], param: str
) -> None:
    made = await world.ask("POST", "/webhooks", HOOK)
    for method, path, body in (("POST", "/webhooks", {**HOOK, **change}), ("PATCH", f"/webhooks/{made['id']}", change)):
        answer = await world.api.send(method, f"/api/v1{path}", body)
        assert (answer.status, answer.body["error"]["param"]) == (400, param)
    assert (await world.ask("GET", f"/webhooks/{made['id']}"))["url"] == HOOK["url"]


async def test_a_name_that_means_a_private_address_is_refused_when_it_is_set(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def private(_url: str) -> bool:
        return True

    made = await world.ask("POST", "/webhooks", HOOK)
    monkeypatch.setattr(webhook_sender, "means_private", private)
    assert await world.refused("POST", "/webhooks", HOOK) == (400, "validation_error")
    assert await world.refused("PATCH", f"/webhooks/{made['id']}", {"url": HOOK["url"]}) == (400, "validation_error")


async def test_a_test_says_what_the_endpoint_answered_and_is_not_tried_again(office: Office) -> None:
    async with receiving() as there:
        endpoint = await office.endpoint(there)
        there.answers = [204, 500]
        good = await office.world.ask("POST", f"/webhooks/{endpoint['id']}/test")
        bad = await office.world.ask("POST", f"/webhooks/{endpoint['id']}/test")
        await office.deliver()
    assert (good["object"], good["success"], good["responseStatus"]) == ("webhook_delivery", True, 204)
    assert (bad["success"], bad["responseStatus"]) == (False, 500)
    assert there.topics == ["webhook.test"] * 2
    found = await office.deliveries(endpoint)
    assert [(one["id"], one["state"], one["attempts"]) for one in found] == [
        (good["deliveryId"], "delivered", 1),
        (bad["deliveryId"], "failed", 1),
    ]


async def test_deliveries_are_listed_by_pages_and_state_and_a_strange_one_cannot_be_sent_again(office: Office) -> None:
    async with receiving() as there:
        endpoint = await office.endpoint(there)
        there.answers = [500]
        for number in range(4):
            await office.announce(number=number)
        await office.deliver()
    assert [one["state"] for one in await office.deliveries(endpoint)] == ["pending", "delivered", "delivered", "delivered"]
    assert len(await office.deliveries(endpoint, state="pending")) == 1
    path = f"/webhooks/{endpoint['id']}/deliveries"
    first = await office.world.ask("GET", path, params={"limit": "3"})
    rest = await office.world.ask("GET", path, params={"limit": "3", "cursor": first["nextCursor"]})
    assert (len(first["data"]), len(rest["data"]), rest["hasMore"]) == (3, 1, False)
    assert await office.world.refused("POST", f"{path}/whd_none/resend") == (404, "webhook_delivery_not_found")
    await office.world.ask("PATCH", f"/webhooks/{endpoint['id']}", {"isActive": False})
    again = f"{path}/{first['data'][0]['id']}/resend"
    assert await office.world.refused("POST", again) == (409, "webhook_inactive")


async def test_there_is_a_bound_to_endpoints_and_alerts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallybook.webhooks.rules.ENDPOINTS_MAX", 1)
    monkeypatch.setattr("tallybook.alerts.rules.ALERTS_MAX", 1)
    for path, body in (("/webhooks", HOOK), ("/alerts", ALERT)):
        await world.ask("POST", path, body)
        assert await world.refused("POST", path, body) == (400, "validation_error")


async def test_alerts_are_made_listed_changed_and_dropped(world: World) -> None:
    await world.metered()
    customer = await world.customer()
    made = await world.ask("POST", "/alerts", ALERT)
    assert made["id"].startswith("alt_")
    assert (made["object"], made["name"], made["customerId"]) == ("alert", "spend 100 amount", None)
    usage = {"metric": "usage", "threshold": 80, "unit": "percent", "featureCode": "api_calls", "customerId": customer}
    other = await world.ask("POST", "/alerts", {**usage, "name": "eighty"})
    assert (other["threshold"], other["featureCode"], other["customerId"]) == (80, "api_calls", customer)
    assert [one["id"] for one in (await world.ask("GET", "/alerts"))["data"]] == [other["id"], made["id"]]
    assert [one["id"] for one in (await world.ask("GET", "/alerts", params={"customerId": customer}))["data"]] == [other["id"]]
    changed = await world.ask("PATCH", f"/alerts/{other['id']}", {"threshold": 90, "unit": "units", "name": "ninety"})
    assert (changed["threshold"], changed["unit"], changed["name"], changed["isActive"]) == (90, "units", "ninety", True)
    assert await world.refused("PATCH", f"/alerts/{other['id']}", {"unit": "percent"}) == (400, "validation_error")
    assert (await world.ask("DELETE", f"/alerts/{other['id']}"))["deleted"] is True
    assert await world.refused("GET", f"/alerts/{other['id']}") == (404, "alert_not_found")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"metric": "mood"}, 400),
        ({"unit": "units"}, 400),
        ({"threshold": -1}, 400),
        ({"threshold": 0}, 400),
        ({"threshold": 10**10}, 400),
        ({"featureCode": "api_calls"}, 404),
        ({"customerId": "nobody"}, 404),
        ({"metric": "usage", "unit": "units"}, 400),
        ({"name": " "}, 400),
    ],
)
async def test_an_alert_that_breaks_a_rule_is_refused(world: World, change: dict[str, object], status: int) -> None:
    assert (await world.refused("POST", "/alerts", {**ALERT, **change}))[0] == status

"""The frame around every operation, on real stores: keys, bounds, shapes, one transaction, one answer per Idempotency-Key."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from datetime import timedelta

import msgspec
import pytest

from tallybook.core import clock, errors
from tallybook.entrypoints.http import auth, frame
from tallybook.entrypoints.http.routing import Call, HotCall, ListQuery, Operation, Page
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis
from tallybook.tenancy import actions as tenancy
from tests.support import api
from tests.support.api import Account, Api


class Thing(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """The body of a write that tests make up."""

    topic: str
    postal_codes: list[int] = []
    fail: bool = False


class Made(msgspec.Struct, rename="camel", kw_only=True):
    """What that write answers."""

    outbox_id: int
    note: dict[str, str]
    object: str = "thing"


_gate = asyncio.Event()


async def make(call: Call) -> Made:
    """Leaves one row for each time it really ran."""
    body: Thing = call.body
    made = await tenancy.announce(call.connection, call.tenant, body.topic, {"now": clock.iso(call.now)})
    if body.fail:
        raise errors.Conflict("duplicate", "asked to fail", details={"topic": body.topic})
    if body.topic == "bump":
        await tenancy.bump_tenant_terms(call.connection, call.tenant)
    if body.topic == "wait":
        await _gate.wait()
    return Made(outbox_id=made, note={"object": "mine"})


async def count(call: Call) -> Page:
    rows = await call.connection.fetch(
        "SELECT id FROM outbox WHERE tenant_id = $1 AND topic = $2", call.tenant.id, call.path["topic"]
    )
    return Page([Made(outbox_id=row["id"], note={}) for row in rows], "more" if call.query.limit == 1 else None)


async def nothing(_call: Call) -> None:
    return None


async def bug(_call: Call) -> None:
    raise RuntimeError("secret detail of a bug")


async def overloaded(_call: Call) -> None:
    raise errors.RateLimited("too much", retry_after_s=7)


async def hot(call: HotCall) -> dict[str, object]:
    if call.body == b"conflict":
        raise errors.Conflict("duplicate", "seen before", details={"id": 1})
    return {"size": len(call.body), "key": call.idempotency_key, "object": "hot", "livemode": call.tenant.livemode}


OPERATIONS = (
    Operation(
        method="POST",
        path="/things",
        id="make",
        summary="",
        permission="customer",
        handler=make,
        body=Thing,
        returns=Made,
        body_max=2000,
    ),
    Operation(
        method="GET",
        path="/things/{topic}",
        id="count",
        summary="",
        permission="customer",
        handler=count,
        query=ListQuery,
        is_list=True,
    ),
    Operation(method="DELETE", path="/things/{topic}", id="nothing", summary="", permission="customer", handler=nothing),
    Operation(method="GET", path="/bug", id="bug", summary="", permission="customer", handler=bug),
    Operation(method="GET", path="/overloaded", id="overloaded", summary="", permission="customer", handler=overloaded),
    Operation(method="POST", path="/hot", id="hot", summary="", permission="usage", handler=hot, hot=True, body_max=1000),
)


@pytest.fixture(scope="module")
async def services(database: postgres.Pool, redis_client: redis.Redis) -> Services:
    return await api.make_services(database, redis_client)


@pytest.fixture
async def account(services: Services) -> Account:
    return await api.make_account(services.database)


@pytest.fixture
async def http(services: Services, account: Account) -> AsyncGenerator[Api]:
    async with api.serving(services, OPERATIONS) as client:
        yield Api(client, account.key)


async def effects(http: Api, topic: str) -> int:
    return len((await http.send("GET", f"/api/v1/things/{topic}")).body["data"])


async def test_a_new_client_gets_the_plain_object_with_livemode(http: Api) -> None:
    answer = await http.send("POST", "/api/v1/things", {"topic": "a"})
    assert answer.status == 200
    assert answer.body["object"] == "thing"
    assert answer.body["livemode"] is False
    assert answer.body["note"] == {"object": "mine"}, "the caller's own data gets no livemode"
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("version", [None, "2026-07-23", "2025-01-01"])
async def test_an_older_client_or_none_gets_the_envelope(http: Api, version: str | None) -> None:
    headers = {} if version is None else {"commet-version": version}
    key = {"x-api-key": http.key or ""}
    async with http.client.post("/api/v1/things", json={"topic": "env"}, headers=key | headers) as response:
        made = await response.json()
    async with http.client.get("/api/v1/things/env?limit=1", headers=key | headers) as response:
        listed = await response.json()
    async with http.client.delete("/api/v1/things/env", headers=key | headers) as response:
        deleted = await response.json()
    assert made["success"] is True
    assert made["data"]["object"] == "thing"
    assert listed == {"success": True, "data": [made["data"] | {"note": {}}], "hasMore": True, "nextCursor": "more"}
    assert deleted == {"success": True, "data": None}


async def test_a_list_is_plain_from_the_version_on_that_made_it_so(http: Api) -> None:
    answer = await http.send("GET", "/api/v1/things/none", headers={"commet-version": "2026-07-24"})
    assert answer.body == {"object": "list", "data": [], "hasMore": False, "nextCursor": None}


async def test_the_unversioned_path_answers_the_same_and_points_to_its_successor(http: Api) -> None:
    old = await http.send("GET", "/api/things/none", params={"limit": "3"})
    new = await http.send("GET", "/api/v1/things/none", params={"limit": "3"})
    assert old.body == new.body
    assert old.headers["Deprecation"] == "true"
    assert old.headers["Link"] == '</api/v1/things/none>; rel="successor-version"'
    assert "Deprecation" not in new.headers


@pytest.mark.parametrize(
    "key", [None, "", "ck_", "nonsense", "ck_0123456789abcdef_" + "x" * 43, "ck_0123456789abcdef_" + "é" * 43, "k" * 5000]
)
async def test_a_request_without_a_good_key_is_unauthorized(http: Api, key: str | None) -> None:
    answer = await Api(http.client, key).send("GET", "/api/v1/things/a")
    assert (answer.status, answer.code, answer.body["error"]["type"]) == (401, "unauthorized", "authentication_error")
    assert answer.body["success"] is False
    assert set(answer.body["error"]) == {"type", "code", "message", "param", "details", "doc_url"}
    assert "x-request-id" in answer.headers


async def test_a_key_with_one_wrong_character_is_unauthorized(http: Api, account: Account) -> None:
    wrong = account.key[:-1] + ("A" if account.key[-1] != "A" else "B")
    assert (await Api(http.client, wrong).send("GET", "/api/v1/things/a")).status == 401


async def test_a_restricted_key_can_do_what_it_was_given_only(http: Api, services: Services) -> None:
    reader = await api.make_account(services.database, {"customer": frozenset({"read"})})
    restricted = Api(http.client, reader.key)
    assert (await restricted.send("GET", "/api/v1/things/a")).status == 200
    refused = await restricted.send("POST", "/api/v1/things", {"topic": "a"})
    assert (refused.status, refused.code) == (403, "forbidden")
    assert (await restricted.send("POST", "/api/v1/hot", data=b"")).status == 403


async def test_a_revoked_key_is_out_within_five_seconds_while_it_is_in_use(
    http: Api, services: Services, account: Account
) -> None:
    assert (await http.send("GET", "/api/v1/things/a")).status == 200
    async with postgres.transaction(services.database) as connection:
        await tenancy.revoke_api_key(connection, account.tenant, clock.real_clock(), account.key_id)
    loop = asyncio.get_running_loop()
    revoked_at = loop.time()
    while (await http.send("GET", "/api/v1/things/a")).status == 200:
        assert loop.time() - revoked_at < 5
        await asyncio.sleep(0.1)
    assert auth.FRESH_S < 5


async def test_last_use_of_a_key_is_written_down_when_the_server_stops(services: Services, account: Account) -> None:
    async with api.serving(services, OPERATIONS) as client:
        await Api(client, account.key).send("GET", "/api/v1/things/a")
    used = await services.database.fetchval("SELECT last_used_at FROM api_keys WHERE id = $1", account.key_id)
    assert clock.real_clock() - used < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("body", "code", "param", "told"),
    [
        (b'{"topic": 5}', "validation_error", "topic", "5"),
        (b'{"topic": "a", "postalCodes": [1, "x"]}', "validation_error", "postalCodes[1]", '"x"'),
        (b'{"topic": "a", "other": 1}', "validation_error", "other", "not a field"),
        (b"{}", "validation_error", "topic", "required"),
        (b"", "validation_error", "topic", "required"),
        (b"[]", "validation_error", None, "object"),
        (b'{"topic": "a", "topic": "b"}', "validation_error", "topic", "twice"),
        (b'{"topic": "a\\u0000"}', "validation_error", "topic", "NUL"),
        (b'{"topic": "\\ud800"}', "validation_error", "topic", "surrogate"),
        (b'{"topic": "a", "postalCodes": [NaN]}', "validation_error", "postalCodes[0]", "NaN"),
        (b'{"topic": "a", "postalCodes": [99999999999999999999]}', "validation_error", "postalCodes[0]", "64 bits"),
        (b'{"topic": "a", "postalCodes": [1e3000000]}', "validation_error", "postalCodes[0]", "out of range"),
        (b"[" * 900 + b"]" * 900, "validation_error", "[0]" * 33, "deep"),
        (b'{"topic": "a"', "invalid_json", None, "JSON"),
        (b'{"topic": "\xff"}', "invalid_json", None, "JSON"),
        (b'\xef\xbb\xbf{"topic": "a"}', "invalid_json", None, "JSON"),
    ],
)
async def test_a_bad_body_is_told_by_field_and_rule(http: Api, body: bytes, code: str, param: str | None, told: str) -> None:
    answer = await http.send("POST", "/api/v1/things", data=body)
    assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, code, param)
    assert told in answer.body["error"]["message"]
    assert answer.body["error"]["details"] == [{"field": param or "", "message": answer.body["error"]["message"]}]


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "x")], "limit"),
        ([("other", "1")], "other"),
        ([("limit", "1"), ("limit", "2")], "limit"),
    ],
)
async def test_a_bad_query_is_told_by_parameter(http: Api, params: list[tuple[str, str]], param: str) -> None:
    answer = await http.send("GET", "/api/v1/things/a", params=params)
    assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, "validation_error", param)


async def test_a_query_is_refused_where_none_is_taken(http: Api) -> None:
    assert (await http.send("DELETE", "/api/v1/things/a", params={"x": "1"})).body["error"]["param"] == "x"


@pytest.mark.parametrize("topic", ["a%00b", "x" * 300, "a%0Ab"])
async def test_a_path_parameter_that_no_object_could_have_is_refused(http: Api, topic: str) -> None:
    answer = await http.send("GET", f"/api/v1/things/{topic}")
    assert answer.status == 400
    assert answer.body["error"]["param"] == "topic"


async def test_a_body_larger_than_the_operation_takes_is_refused_before_it_is_read(http: Api) -> None:
    answer = await http.send("POST", "/api/v1/things", data=b"x" * 2001)
    assert (answer.status, answer.code) == (413, "payload_too_large")


@pytest.mark.parametrize("path", ["/api/v1/things", "/api/v1/hot"])
async def test_a_chunked_body_is_cut_off_while_it_is_read(http: Api, path: str) -> None:
    answered = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(100):
            yield b"x" * 100
        await answered.wait()

    headers = {"x-api-key": http.key or ""}
    async with http.client.post(path, data=chunks(), headers=headers) as response:
        assert response.status == 413
        answered.set()


async def test_a_compressed_body_is_refused(http: Api) -> None:
    answer = await http.send("POST", "/api/v1/hot", data=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, "validation_error", "Content-Encoding")


async def test_an_unknown_path_is_a_json_404_and_an_unknown_method_a_json_405(http: Api) -> None:
    unknown = await http.send("GET", "/api/v1/nothing/here")
    assert (unknown.status, unknown.code) == (404, "not_found")
    method = await http.send("PATCH", "/api/v1/things")
    assert (method.status, method.code, method.headers["Allow"]) == (405, "method_not_allowed", "POST")
    assert (await http.send("GET", "/")).status == 404
    of_two_lines = await http.send("DELETE", "/api/v1/ai-models/aliases/two%0Alines")
    assert (of_two_lines.status, of_two_lines.code) == (404, "not_found")


async def test_a_bug_is_told_without_its_details(http: Api) -> None:
    answer = await http.send("GET", "/api/v1/bug")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "secret detail" not in str(answer.body)


async def test_whoever_is_told_to_wait_is_told_how_long(http: Api) -> None:
    answer = await http.send("GET", "/api/v1/overloaded")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "rate_limited", "7")


async def test_a_failed_write_leaves_no_effect(http: Api) -> None:
    answer = await http.send("POST", "/api/v1/things", {"topic": "failed", "fail": True})
    assert (answer.status, answer.code, answer.body["error"]["details"]) == (409, "duplicate", {"topic": "failed"})
    assert await effects(http, "failed") == 0


async def test_the_same_idempotency_key_and_body_happen_once_and_are_answered_the_same(http: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await http.send("POST", "/api/v1/things", data=b'{"topic": "once", "fail": false}', headers=headers)
    again = await http.send("POST", "/api/v1/things", data=b'{"fail":false,"topic":"once"}', headers=headers)
    enveloped = await http.send(
        "POST", "/api/things", {"fail": False, "topic": "once"}, headers=headers | {"commet-version": "2026-01-01"}
    )
    assert first.body == again.body == enveloped.body["data"]
    assert await effects(http, "once") == 1


async def test_the_same_idempotency_key_with_another_body_or_operation_is_a_mismatch(http: Api) -> None:
    headers = {"Idempotency-Key": "mismatch"}
    await http.send("POST", "/api/v1/things", {"topic": "mismatch"}, headers=headers)
    body = await http.send("POST", "/api/v1/things", {"topic": "mismatch", "postalCodes": [1]}, headers=headers)
    operation = await http.send("DELETE", "/api/v1/things/mismatch", headers=headers)
    assert (body.status, body.code) == (operation.status, operation.code) == (409, "idempotency_key_mismatch")


async def test_another_tenant_may_use_the_same_idempotency_key(http: Api, services: Services) -> None:
    other = await api.make_account(services.database)
    headers = {"Idempotency-Key": "shared"}
    assert (await http.send("POST", "/api/v1/things", {"topic": "shared"}, headers=headers)).status == 200
    assert (await Api(http.client, other.key).send("POST", "/api/v1/things", {"topic": "theirs"}, headers=headers)).status == 200


async def test_a_failure_is_not_stored_under_an_idempotency_key(http: Api) -> None:
    headers = {"Idempotency-Key": "retry"}
    assert (await http.send("POST", "/api/v1/things", {"topic": 1}, headers=headers)).status == 400
    assert (await http.send("POST", "/api/v1/things", {"topic": "retry", "fail": True}, headers=headers)).status == 409
    assert (await http.send("POST", "/api/v1/things", {"topic": "retry"}, headers=headers)).status == 200


async def test_a_stored_response_counts_for_24_hours(http: Api, services: Services) -> None:
    headers = {"Idempotency-Key": "old"}
    first = await http.send("POST", "/api/v1/things", {"topic": "old"}, headers=headers)
    await services.database.execute("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'")
    second = await http.send("POST", "/api/v1/things", {"topic": "old"}, headers=headers)
    third = await http.send("POST", "/api/v1/things", {"topic": "old"}, headers=headers)
    assert first.body != second.body
    assert second.body == third.body


async def test_while_a_request_runs_the_same_key_is_in_progress_and_then_replayed(http: Api) -> None:
    _gate.clear()
    headers = {"Idempotency-Key": "slow"}
    both = [asyncio.create_task(http.send("POST", "/api/v1/things", {"topic": "wait"}, headers=headers)) for _ in range(2)]
    done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    _gate.set()
    meanwhile, first = await done.pop(), await waiting.pop()
    assert (meanwhile.status, meanwhile.code) == (409, "idempotency_in_progress")
    assert first.status == 200
    assert (await http.send("POST", "/api/v1/things", {"topic": "wait"}, headers=headers)).body == first.body
    assert await effects(http, "wait") == 1


@pytest.mark.parametrize("key", ["", "x" * 257, "a\tb"])
async def test_an_idempotency_key_out_of_bounds_is_refused(http: Api, key: str) -> None:
    answer = await http.send("POST", "/api/v1/things", {"topic": "a"}, headers={"Idempotency-Key": key})
    assert (answer.status, answer.body["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_change_of_terms_is_in_the_till_before_it_is_answered(http: Api, services: Services, account: Account) -> None:
    await http.send("POST", "/api/v1/things", {"topic": "bump"})
    assert (await services.till.read(account.tenant.id, 1)).tenant_version == 2


async def test_a_change_that_the_till_could_not_be_told_is_no_success_and_its_replay_tells_it(
    http: Api, services: Services, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*_arguments: object) -> None:
        raise redis.RedisError("gone")

    headers = {"Idempotency-Key": "bumped"}
    with monkeypatch.context() as broken:
        broken.setattr(type(services.till), "bump_terms", unreachable)
        first = await http.send("POST", "/api/v1/things", {"topic": "bump"}, headers=headers)
        assert (first.status, first.code, first.headers["Retry-After"]) == (503, "till_unavailable", "1")
        assert (await http.send("POST", "/api/v1/things", {"topic": "bump"}, headers=headers)).status == 503
    assert (await services.till.read(account.tenant.id, 1)).tenant_version == 0
    assert (await http.send("POST", "/api/v1/things", {"topic": "bump"}, headers=headers)).status == 200
    assert (await services.till.read(account.tenant.id, 1)).tenant_version == 2
    assert await effects(http, "bump") == 1


async def test_the_test_clock_is_the_time_of_a_sandbox(http: Api, services: Services, account: Account) -> None:
    moment = clock.real_clock() + timedelta(days=400)
    async with postgres.transaction(services.database) as connection:
        await tenancy.set_simulated_time(connection, account.tenant, moment)
    await http.send("POST", "/api/v1/things", {"topic": "later"})
    seen = await services.database.fetchval("SELECT payload ->> 'now' FROM outbox WHERE topic = 'later'")
    assert seen == clock.iso(moment)


async def test_a_hot_operation_gets_bytes_and_answers_in_both_shapes(http: Api) -> None:
    plain = await http.send("POST", "/api/v1/hot", data=b"not json", headers={"Idempotency-Key": "k"})
    assert plain.body == {"size": 8, "key": "k", "object": "hot", "livemode": False}
    old = await http.send("POST", "/api/v1/hot", data=b"not json", headers={"commet-version": "2025-12-31"})
    assert old.body["data"] == plain.body | {"key": None}
    refused = await http.send("POST", "/api/v1/hot", data=b"conflict")
    assert (refused.status, refused.code, refused.body["error"]["details"]) == (409, "duplicate", {"id": 1})


async def test_health_readiness_and_numbers_need_no_key(http: Api) -> None:
    anonymous = Api(http.client, None)
    assert (await anonymous.send("GET", "/healthz")).status == 200
    ready = await anonymous.send("GET", "/readyz")
    assert (ready.status, ready.body["checks"]) == (200, {"postgres": "ok", "till": "ok", "clock": "ok", "process": "ok"})
    await http.send("POST", "/api/v1/things", {"topic": "counted"})
    await http.send("POST", "/api/v1/things", {"topic": 1})
    numbers = await anonymous.send("GET", "/metrics")
    assert 'tallybook_http_requests_total{operation="make",status="200"}' in numbers.body
    assert 'tallybook_http_errors_total{code="validation_error",operation="make"}' in numbers.body
    assert "tallybook_till_queue_depth 0.0" in numbers.body


async def test_without_the_database_nothing_is_known_and_nothing_breaks(services: Services, postgres_url: str) -> None:
    gone = await postgres.connect(postgres_url)
    await gone.close()
    account = await api.make_account(services.database)
    async with api.serving(dataclasses.replace(services, database=gone), OPERATIONS) as client:
        http = Api(client, account.key)
        answer = await http.send("GET", "/api/v1/things/a")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "database_unavailable", "1")
        ready = await http.send("GET", "/readyz")
        assert ready.status == 503
        assert ready.body["checks"]["postgres"] != "ok"
        assert ready.body["checks"]["till"] == "ok"
        assert (await http.send("GET", "/healthz")).status == 200


async def test_more_requests_than_a_process_takes_at_once_are_told_to_come_back(
    http: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "IN_FLIGHT_MAX", 0)
    answer = await http.send("POST", "/api/v1/hot", data=b"")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "rate_limited", "1")


async def test_a_foreign_till_is_not_ready(http: Api, services: Services) -> None:
    epoch = await services.redis.execute_command("HGET", "{p00}:m", "epoch")
    await services.redis.execute_command("HSET", "{p00}:m", "epoch", "another")
    try:
        ready = await http.send("GET", "/readyz")
    finally:
        await services.redis.execute_command("HSET", "{p00}:m", "epoch", epoch)
    assert (ready.status, ready.body["status"], ready.headers["Retry-After"]) == (503, "not_ready", "1")
    assert "till_unknown" in ready.body["checks"]["till"] or "rebuild" in ready.body["checks"]["till"]

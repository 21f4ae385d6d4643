"""Batches: every event answered on its own, in order, and never one at the cost of another."""

import json
import uuid
from collections import Counter

import pytest

from tests.support.service import Account, Json


@pytest.fixture
def metered(account: Account) -> Account:
    """One customer with plenty of api_calls, one with a single one left."""
    account.feature("api_calls")
    account.plan("roomy", "metered", price={"price": 100}, features={"api_calls": {"unlimited": True}})
    account.plan("tight", "metered", price={"price": 100}, features={"api_calls": {"includedAmount": 1}})
    account.subscribe("roomy", "roomy")
    account.subscribe("tight", "tight")
    return account


def event(number: int, customer: str = "roomy", **more: object) -> Json:
    return {"featureCode": "api_calls", "customerId": customer, "eventId": f"e{number}", "value": 1, **more}


def hundred() -> list[Json]:
    """96 good events, and one each that is a duplicate, a conflict, invalid and refused."""
    events = [event(number) for number in range(96)]
    events.insert(20, event(3))
    events.insert(40, event(5, value=2))
    events.insert(60, event(500, value=-1))
    events.insert(80, event(501, customer="tight", value=2))
    return events


def statuses(batch: Json) -> list[str]:
    return [result["status"] for result in batch["results"]]


def used(account: Account) -> float:
    return account.done("GET", "/feature-access/api_calls?customerId=roomy")["consumption"]["unitsUsed"]


def test_a_hundred_events_with_one_of_each_trouble(metered: Account) -> None:
    batch = metered.batch(hundred())
    assert len(batch["results"]) == 100
    troubles = {place: status for place, status in enumerate(statuses(batch)) if status != "accepted"}
    assert troubles == {20: "duplicate", 40: "conflict", 60: "invalid", 80: "rejected"}
    assert {key: batch[key] for key in ("accepted", "duplicates", "conflicts", "rejected", "invalid", "retry")} == {
        "accepted": 96,
        "duplicates": 1,
        "conflicts": 1,
        "rejected": 1,
        "invalid": 1,
        "retry": 0,
    }
    assert batch["results"][20]["event"] == batch["results"][3]["event"]
    assert batch["results"][60]["error"]["param"] == "events[60].value"
    assert batch["results"][80]["error"]["code"] == "included_limit_reached"
    assert used(metered) == 96


def test_a_replay_of_the_whole_batch_changes_nothing(metered: Account) -> None:
    key = str(uuid.uuid4())
    first = metered.batch(hundred(), **{"Idempotency-Key": key})
    replay = metered.batch(hundred(), **{"Idempotency-Key": key})
    assert replay == first
    other = metered.batch(hundred())
    assert Counter(statuses(other)) == {"duplicate": 97, "conflict": 1, "invalid": 1, "rejected": 1}
    assert [one.get("event") for one in other["results"]] == [one.get("event") for one in first["results"]]
    assert used(metered) == 96


def test_events_without_ids_are_known_again_by_the_request_key_and_their_place(metered: Account) -> None:
    events = [{"featureCode": "api_calls", "customerId": "roomy"} for _ in range(5)]
    key = str(uuid.uuid4())
    first = metered.batch(events, **{"Idempotency-Key": key})
    assert metered.batch(events, **{"Idempotency-Key": key}) == first
    assert used(metered) == 5
    metered.batch(events)
    assert used(metered) == 10


def test_a_single_event_is_replayed_with_its_key_and_a_duplicate_with_another(metered: Account) -> None:
    body, key = event(1), {"Idempotency-Key": str(uuid.uuid4())}
    first = metered.call("POST", "/usage/events", body, headers=key)
    assert first.status == 200
    assert metered.call("POST", "/usage/events", body, headers=key).body == first.body
    duplicate = metered.call("POST", "/usage/events", body)
    assert (duplicate.status, duplicate.error["code"]) == (409, "duplicate")
    assert duplicate.error["details"] == first.body
    conflict = metered.call("POST", "/usage/events", event(1, value=2))
    assert (conflict.status, conflict.error["code"]) == (409, "conflict")
    mismatch = metered.call("POST", "/usage/events", event(1, value=2), headers=key)
    assert (mismatch.status, mismatch.error["code"]) == (409, "idempotency_key_mismatch")


def test_a_refused_event_may_be_sent_again_with_its_id(metered: Account) -> None:
    assert metered.track(**event(1, customer="tight", value=2)).status == 402
    assert metered.track(**event(1, customer="tight", value=1)).status == 200


@pytest.mark.parametrize(
    ("trouble", "param", "words"),
    [
        ({"value": -1}, "value", "0 to 1000000000"),
        ({"value": 1.0000000001}, "value", "9 digits"),
        ({"value": 1e10}, "value", "1000000000"),
        ({"eventId": ""}, "eventId", "1 to 128"),
        ({"eventId": "x" * 129}, "eventId", "128"),
        ({"customerId": "a\0b"}, "customerId", "control"),
        ({"featureCode": "Not A Code"}, "featureCode", "a-z"),
        ({"timestamp": "yesterday"}, "timestamp", "ISO 8601"),
        ({"timestamp": "2020-01-01T00:00:00Z"}, "timestamp", "35 days"),
        ({"timestamp": "2999-01-01T00:00:00Z"}, "timestamp", "5 minutes"),
        ({"properties": {f"p{number}": "x" for number in range(21)}}, "properties", "20"),
        ({"properties": {"long": "x" * 257}}, "properties.long", "256"),
        ({"colour": "red"}, "colour", "colour"),
        ({"model": "gpt-4o"}, "inputTokens", "inputTokens"),
        ({"model": "gpt-4o", "inputTokens": 10**9 + 1, "outputTokens": 0}, "inputTokens", "1000000000"),
        ({"inputTokens": 1, "outputTokens": 1}, "inputTokens", "model"),
    ],
)
def test_each_bound_is_named_and_never_costs_the_event_beside_it(metered: Account, trouble: Json, param: str, words: str) -> None:
    broken = event(1, **trouble)
    if "model" in trouble:
        del broken["value"]
    batch = metered.batch([event(0), broken, event(2)])
    assert statuses(batch) == ["accepted", "invalid", "accepted"], batch
    error = batch["results"][1]["error"]
    assert (error["code"], error["param"]) == ("validation_error", f"events[1].{param}"), error
    assert words in error["message"], error
    single = metered.call("POST", "/usage/events", broken)
    assert (single.status, single.error["code"], single.error["param"]) == (400, "validation_error", param), single


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "validation_error"),
        (b'{"events": []}', 400, "validation_error"),
        (b'{"events": {}}', 400, "validation_error"),
        (b'{"events": [' + b",".join([b"{}"] * 101) + b"]}", 400, "validation_error"),
        (b'{"events": ["' + b"x" * 262_144 + b'"]}', 413, "payload_too_large"),
        (b'{"events": [{}], "events": [{}]}', 400, "validation_error"),
        (b'\xff\xfe{"events": [{}]}', 400, "invalid_json"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole(metered: Account, body: bytes, status: int, code: str) -> None:
    answer = metered.call("POST", "/usage/events/batch", raw=body)
    assert (answer.status, answer.error["code"]) == (status, code), answer


def test_a_number_that_would_take_minutes_to_read_is_refused_at_once(metered: Account) -> None:
    body = b'{"events": [{"featureCode": "api_calls", "customerId": "roomy", "value": 1e3000000}]}'
    answer = metered.call("POST", "/usage/events/batch", raw=body)
    assert answer.body["results"][0]["error"]["param"] == "events[0].value"


def test_a_key_that_stands_twice_in_an_event_is_refused_by_name(metered: Account) -> None:
    raw = json.dumps({"events": [event(0), event(1)]}).replace('"eventId": "e1"', '"eventId": "e1", "value": 5')
    batch = metered.call("POST", "/usage/events/batch", raw=raw.encode()).body
    assert statuses(batch) == ["accepted", "invalid"]
    assert batch["results"][1]["error"]["param"] == "events[1].value"


def test_old_spellings_mean_the_same_event(metered: Account) -> None:
    new = {"featureCode": "api_calls", "customerId": "roomy", "eventId": "x", "properties": [{"property": "a", "value": "b"}]}
    old = {"feature": "api_calls", "customerId": "roomy", "idempotencyKey": "x", "properties": {"a": "b"}}
    assert metered.track(**new).status == 200
    assert metered.track(**old).error["code"] == "duplicate"


def test_clients_of_all_ages_are_answered_in_their_shape(metered: Account) -> None:
    plain = metered.call("POST", "/usage/events", event(1)).body
    assert plain["object"] == "usage_event"
    enveloped = metered.call("POST", "/usage/events", event(2), headers={"commet-version": "2026-05-01"}).body
    assert (enveloped["success"], enveloped["data"]["object"]) == (True, "usage_event")
    listed = metered.call("GET", "/features", headers={"commet-version": "2026-05-01"}).body
    assert (listed["success"], listed["hasMore"], listed["data"][0]["code"]) == (True, False, "api_calls")


def test_unknown_customers_features_and_models_are_named(metered: Account) -> None:
    batch = metered.batch([event(1, customer="nobody"), {**event(2), "featureCode": "unheard_of"}, event(3)])
    assert statuses(batch) == ["invalid", "invalid", "accepted"]
    assert [result.get("error", {}).get("code") for result in batch["results"]] == [
        "customer_not_found",
        "feature_not_found",
        None,
    ]

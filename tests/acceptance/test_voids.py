"""Single events against a started service: several API processes, a worker, and the answers in between."""

import uuid

import pytest

from tests.support.service import Account, Answer, Json

WHY = {"reason": "sent twice by a broken importer"}


@pytest.fixture
def metered(account: Account) -> Account:
    """A customer with 1000 api_calls."""
    account.feature("api_calls")
    account.plan("pro", "metered", price={"price": 100}, features={"api_calls": {"includedAmount": 1000}})
    account.subscribe("ada", "pro")
    return account


def track(account: Account, value: float, **more: object) -> Json:
    answer = account.track(customerId="ada", featureCode="api_calls", value=value, eventId=str(uuid.uuid4()), **more)
    assert answer.status == 200, answer
    return answer.body


def void(account: Account, event: Json, key: str | None = None) -> Answer:
    return account.call("POST", f"/usage/events/{event['id']}/void", WHY, headers={"Idempotency-Key": key or str(uuid.uuid4())})


def used(account: Account) -> float:
    return account.done("GET", "/feature-access/api_calls?customerId=ada")["consumption"]["unitsUsed"]


def test_an_event_can_be_looked_at_and_taken_back_whichever_process_answers(metered: Account) -> None:
    events = [track(metered, 10, properties={"job": "import"}) for _ in range(8)]
    for event in events[:6]:
        assert metered.done("GET", f"/usage/events/{event['id']}")["void"] is None
        done = void(metered, event)
        assert (done.status, done.body["void"]["reason"], done.body["properties"]) == (200, WHY["reason"], event["properties"])
        shown = metered.done("GET", f"/usage/events/{event['id']}")
        assert (shown["void"]["reason"], shown["eventId"], shown["value"]) == (WHY["reason"], event["eventId"], 10)
    assert used(metered) == 20


def test_a_void_is_replayed_for_its_key_and_refused_for_another(metered: Account) -> None:
    event = track(metered, 10)
    first = void(metered, event, "same")
    assert void(metered, event, "same").body == first.body
    again = void(metered, event)
    assert (again.status, again.error["code"]) == (409, "already_voided")
    assert used(metered) == 0


def test_what_was_given_back_can_be_used_again(metered: Account) -> None:
    event = track(metered, 1000)
    refused = metered.track(customerId="ada", featureCode="api_calls", value=1, eventId="more")
    assert (refused.status, refused.error["code"]) == (402, "included_limit_reached")
    assert void(metered, event).status == 200
    assert metered.track(customerId="ada", featureCode="api_calls", value=1, eventId="more").status == 200


def test_an_event_of_nobody_is_not_found(metered: Account) -> None:
    for method, path in (("GET", ""), ("POST", "/void")):
        answer = metered.call(method, f"/usage/events/evt_{'0' * 32}{path}", WHY if method == "POST" else None)
        assert (answer.status, answer.error["code"]) == (404, "usage_event_not_found")

"""What the load generator sends, and what it believes of an answer."""

from array import array

import orjson
import pytest

from benchmarks import load, traffic
from benchmarks.load import Run
from benchmarks.traffic import Expected, Spec

CUSTOMERS = [f"customer_{number}" for number in range(1000)]


@pytest.mark.parametrize("workload", ["W1", "W2", "W4"])
def test_each_use_of_a_template_has_fresh_ids_and_the_same_length(workload: str) -> None:
    template = traffic.templates(Spec(workload, "run", CUSTOMERS))[0]
    bodies = [template.next_body(number) for number in (1, 2, 99_999_999)]
    ids = [{event["eventId"] for event in orjson.loads(body)["events"]} for body in bodies]
    assert {len(body) for body in bodies} == {len(template.body)}
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]


def test_realistic_traffic_repeats_what_it_sent_before_as_often_as_it_says() -> None:
    sent: set[str] = set()
    repeats = expected = 0
    for _round in range(2):
        for number, template in enumerate(traffic.templates(Spec("W1", "run", CUSTOMERS)), _round * 10_000):
            for event in orjson.loads(template.next_body(number))["events"]:
                repeats += event["eventId"] in sent
                sent.add(event["eventId"])
            expected += template.expected.duplicates + template.expected.conflicts
    assert repeats == expected
    assert 0.008 < repeats / (2 * 4096 * 7) < 0.014


def test_the_top_customers_send_the_shares_of_the_power_law() -> None:
    shares = traffic.power_law(1000)
    assert sum(shares) == pytest.approx(1.0)
    assert [sum(shares[:top]) for top in (1, 5, 10)] == pytest.approx([0.35, 0.78, 0.90])


def answer(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def counts(accepted: int, duplicates: int = 0, conflicts: int = 0, rejected: int = 0, retry: int = 0) -> str:
    return (
        f'{{"results":[],"accepted":{accepted},"duplicates":{duplicates},"conflicts":{conflicts},"rejected":{rejected},'
        f'"invalid":0,"retry":{retry}}}'
    )


@pytest.mark.parametrize(
    ("expected", "given", "accepted", "unexpected", "unknown"),
    [
        (Expected(accepted=100), answer("200 OK", counts(100)), 100, 0, 0),
        (Expected(accepted=6, duplicates=1), answer("200 OK", counts(6, 1)), 6, 0, 0),
        (Expected(accepted=100), answer("200 OK", counts(99, rejected=1)), 99, 1, 0),
        (Expected(accepted=100), answer("200 OK", counts(99, retry=1)), 0, 1, 1),
        (Expected(accepted=100), answer("503 Service Unavailable", "{}"), 0, 1, 1),
        (Expected(accepted=1), answer("200 OK", "{}"), 1, 0, 0),
        (Expected(accepted=1), answer("409 Conflict", "{}"), 0, 1, 0),
        (Expected(accepted=1), answer("500 Internal Server Error", "{}"), 0, 1, 1),
        (Expected(checks=1), answer("200 OK", '{"allowed":true}'), 0, 0, 0),
        (Expected(checks=1), answer("200 OK", '{"allowed":false}'), 0, 1, 0),
    ],
)
def test_only_a_definite_answer_counts_and_only_an_expected_one_passes(
    expected: Expected, given: bytes, accepted: int, unexpected: int, unknown: int
) -> None:
    run = Run(until=0.0)
    run.note(expected, given, started=0.0)
    outcome = run.outcome
    assert (outcome.accepted, outcome.unexpected, outcome.unknown) == (accepted, unexpected, unknown)


def test_percentiles_are_those_of_the_sorted_latencies() -> None:
    latencies = array("d", [second / 1000 for second in range(1000, 0, -1)])
    assert load.percentiles_ms(latencies, (0.5, 0.99, 0.999)) == [501.0, 991.0, 1000.0]
    assert load.percentiles_ms(array("d"), (0.5,)) == [0.0]

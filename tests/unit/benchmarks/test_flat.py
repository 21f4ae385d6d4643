"""How the steps of the flat benchmark are compared and shown."""

from benchmarks import flat, results
from benchmarks.flat import FlatRun, Step
from benchmarks.run import Found


def step(us: float, *, customers: int = 1000, stored: int = 5) -> Step:
    return Step(customers, stored, us, {"api": us / 2, "redis": us / 2}, 1.0, 0.0)


def run(*us: float) -> FlatRun:
    return FlatRun([step(one) for one in us], [step(us[0])], [50_000_000], [])


def test_the_ratio_is_that_of_the_dearest_step_to_the_cheapest() -> None:
    found = run(20.0, 25.0, 22.0)
    assert (found.customers_ratio, found.events_ratio) == (1.25, 1.0)


def test_every_step_is_shown_and_what_the_disk_had_no_room_for() -> None:
    shown = results.as_text(results.as_json(Found(workloads={"flat": {"run": run(20.0, 25.0)}}), seconds=1.0))
    assert "1,000 customers             5 events     25.0 us an event: api 12.5 redis 12.5" in shown
    assert "no room for 50,000,000 events" in shown


def test_the_long_form_steps_through_what_is_promised() -> None:
    assert (flat.LONG.customers, flat.LONG.events) == ((1_000, 100_000, 1_000_000), (1_000_000, 10_000_000, 50_000_000))

"""Histories, one after the other, until there were enough steps."""

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.till_machine import TillMachine
from tests.properties.till_world import World

STEPS_A_HISTORY = 100
HISTORIES_A_ROUND = 5


def run(world: World, *, steps: int, seed_: str, shrink: bool = True) -> int:
    """Take at least `steps` steps and return how many they were. Raises what the shortest failing history raised."""
    taken = round_ = 0
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    chosen = settings(
        max_examples=HISTORIES_A_ROUND,
        stateful_step_count=STEPS_A_HISTORY,
        phases=phases,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        report_multiple_bugs=False,
    )
    while taken < steps:
        machine = seed(f"{seed_} {round_}")(type("Machine", (TillMachine,), {"world": world, "steps": 0}))
        run_state_machine_as_test(machine, settings=chosen)
        taken += machine.steps
        round_ += 1
    return taken

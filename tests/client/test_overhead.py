"""Tracking costs little beside what the SDKs themselves cost. `python -m tests.client.overhead` measures it in microseconds."""

import pytest

from tests.client import overhead
from tests.client.quiet import SDKS_ARE_QUIET

pytestmark = SDKS_ARE_QUIET
RATIO_MOST = 1.5


def test_a_tracked_call_costs_little_more_than_a_plain_one() -> None:
    figures = overhead.measure(40)
    too_much = {name: cost for name, cost in figures.items() if cost.tracked > cost.plain * RATIO_MOST}
    if too_much:
        pytest.fail(f"µs of CPU: {too_much}")

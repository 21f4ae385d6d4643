"""The service is away for a while: the caller does not notice, and every event arrives after, once.

TALLYBOOK_TEST_OUTAGE_S says for how long, in seconds; the suite takes 2.
"""

import os
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tallybook.client import MeterSettings, Tallybook, tracked
from tests.client import fake_provider, forwarder
from tests.client.provider_cases import OpenAIChat
from tests.client.quiet import SDKS_ARE_QUIET
from tests.support.recorded import recorded_events
from tests.support.service import Account

pytestmark = SDKS_ARE_QUIET
RATIO_MOST = 1.5
"""A call that waited for the service that is away would take many times a plain one."""
OUTAGE_S = float(os.environ.get("TALLYBOOK_TEST_OUTAGE_S", "2"))
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What does the fox do?"}]}


def one_call_s(client: Any) -> float:
    begun = time.perf_counter()
    assert client.chat.completions.create(**CHAT).usage.total_tokens > 0
    return time.perf_counter() - begun


@pytest.mark.parametrize("has_spool", [False, True], ids=["in memory", "with a spool"])
def test_an_outage_costs_the_caller_nothing_and_no_event(ai_account: Account, tmp_path: Path, *, has_spool: bool) -> None:
    settings = MeterSettings(linger_s=0.01, spool=tmp_path if has_spool else None, events_max=100_000)
    with forwarder.line(ai_account.service.url) as line, fake_provider.running() as fake:
        tallybook = Tallybook(ai_account.key, url=line.url, meter=settings, on_error=lambda _problem: None)
        with OpenAIChat().client(fake, is_async=False) as plain:
            client = tracked(plain, tallybook=tallybook, feature="ai_chat", customer_id="user_1", provider="openai")
            one_call_s(client)
            line.cut()
            times = during_the_outage(plain, client)
            line.mend()
            assert tallybook.flush(60 + OUTAGE_S)
        tallybook.close()
    # The lower quartile: what else the machine does slows some calls of both kinds by far more.
    without, with_it = (statistics.quantiles(each, n=4)[0] for each in times)
    assert with_it <= without * RATIO_MOST, f"plain {without * 1000:.2f} ms, tracked {with_it * 1000:.2f} ms"
    sent = [event.event_id for event in recorded_events(ai_account)]
    assert len(sent) == len(set(sent)) == len(times[1]) + 1
    assert set(sent) <= {served.id for served in fake.ledger}


def during_the_outage(plain: Any, client: Any) -> tuple[list[float], list[float]]:
    """Seconds of plain and of tracked calls in turns, until the outage is over."""
    times: tuple[list[float], list[float]] = ([], [])
    until = time.monotonic() + OUTAGE_S
    while time.monotonic() < until:
        times[0].append(one_call_s(plain))
        times[1].append(one_call_s(client))
    return times

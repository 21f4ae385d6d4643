"""The test clock of a sandbox: what time it shows, and turning it forward."""

from datetime import timedelta
from typing import Annotated, NoReturn

import msgspec

from tallybook.core import clock, errors
from tallybook.entrypoints.http import moments
from tallybook.entrypoints.http.routing import Call, Operation
from tallybook.flows import test_clock
from tallybook.subscriptions import clock_store, model
from tallybook.tenancy import store as tenants

_DAYS_MAX = test_clock.AHEAD_MAX.days


class AdvanceTestClock(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """How far to turn the clock: by whole days, or to a moment. One of the two."""

    advance_days: Annotated[int, msgspec.Meta(ge=1, le=_DAYS_MAX)] | None = None
    frozen_time: Annotated[str, msgspec.Meta(min_length=1, max_length=moments.CHARACTERS_MAX)] | None = None


class RunItem(msgspec.Struct, rename="camel", kw_only=True):
    """What became of one deadline."""

    kind: str
    status: str
    due_at: str
    subscription_id: str
    customer_name: str | None
    invoice_number: str | None
    invoice_id: str | None
    outcome: str | None
    detail: str | None
    error: str | None


class LatestRun(msgspec.Struct, rename="camel", kw_only=True):
    """The last turn of the clock. All deadlines are counted, the latest of them listed."""

    id: str
    status: str
    started_at_time: str
    target_time: str
    estimated_deadline_count: int
    completed_deadline_count: int
    failed_deadline_count: int
    error: str | None
    items: list[RunItem]


class TestClockRun(LatestRun, kw_only=True):
    """A turn of the clock."""

    object: str = "test_clock_run"


class TestClock(msgspec.Struct, rename="camel", kw_only=True):
    """What a sandbox's clock shows; `simulatedTime` is null as long as it was never turned."""

    object: str = "test_clock"
    simulated_time: str | None
    is_active: bool
    now: str
    latest_run: LatestRun | None


async def get(call: Call) -> TestClock:
    """The clock and its last run."""
    test_clock.check_sandbox(call.tenant)
    simulated = await tenants.simulated_at(call.connection, call.tenant)
    run = await clock_store.latest(call.connection, call.tenant)
    return TestClock(
        simulated_time=None if simulated is None else clock.iso(simulated),
        is_active=simulated is not None,
        now=clock.iso(call.now),
        latest_run=None if run is None else _run(run),
    )


async def advance(call: Call) -> TestClockRun:
    """Queue a run; the worker carries it out, and GET tells how far it is."""
    test_clock.check_sandbox(call.tenant)
    body: AdvanceTestClock = call.body
    if (body.advance_days is None) == (body.frozen_time is None):
        raise errors.invalid("advanceDays", "Send advanceDays or frozenTime, one of them.")
    if body.frozen_time is not None:
        target = moments.parse("frozenTime", body.frozen_time)
    else:
        target = call.now + timedelta(days=body.advance_days or 0)
    run = await test_clock.start(call.connection, call.tenant, call.now, target)
    return TestClockRun(**msgspec.structs.asdict(_run(run)))


class Gone(errors.NotFound):
    """The operation was retired."""

    status = 410


async def process_billing(call: Call) -> NoReturn:
    """Retired: advancing the clock bills what falls due on the way."""
    test_clock.check_sandbox(call.tenant)
    raise Gone(
        "endpoint_deprecated", "POST /test-clock turns the clock and bills what falls due; this operation does nothing more."
    )


def _run(run: model.ClockRun) -> LatestRun:
    return LatestRun(
        id=run.id,
        status=run.status,
        started_at_time=clock.iso(run.started_at_time),
        target_time=clock.iso(run.target_time),
        estimated_deadline_count=run.estimated,
        completed_deadline_count=run.completed,
        failed_deadline_count=run.failed,
        error=run.error,
        items=[msgspec.convert(item, RunItem) for item in run.items],
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/test-clock",
        id="get-test-clock",
        summary="Get what time it is in the sandbox, and how the last turn of the clock went.",
        permission="test_clock",
        handler=get,
        returns=TestClock,
    ),
    Operation(
        method="POST",
        path="/test-clock",
        id="advance-test-clock",
        summary="Turn the sandbox's clock forward; every period that ends on the way is closed and billed.",
        permission="test_clock",
        handler=advance,
        body=AdvanceTestClock,
        returns=TestClockRun,
        status=202,
        example={"advanceDays": 31},
    ),
    Operation(
        method="POST",
        path="/test-clock/process-billing",
        id="process-test-clock-billing",
        summary="Retired: advancing the clock bills what falls due.",
        permission="test_clock",
        handler=process_billing,
        refusals=(410,),
    ),
)

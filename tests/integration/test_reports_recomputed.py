"""Revenue, forecast and the ranking of customers against a diary of what was sent, by arithmetic that knows nothing of the book."""

import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tallybook.ai_models import actions
from tallybook.core import clock, pools
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.reports import forecast
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing, diary
from tests.support.billing import Json, World, at
from tests.support.diary import LAST, NANO, NANO_PER_CENT, Diary, Line, Subscription, Use

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Australia/Lord_Howe", "Asia/Kolkata")
ALL = {"from": "2026-09-01", "to": "2026-12-01"}
MONTHS: Sequence[Mapping[str, str]] = (
    ALL,
    {"from": "2026-10-01", "to": "2026-11-01"},
    {"from": "2026-10-25", "to": "2026-10-26"},
)
SINGLE, DOUBLE = (
    Price((Band(0, Listed(*(factor * pico for pico in (3_000_000, 15_000_000, 300_000, 3_750_000)))),)) for factor in (1, 2)
)
KINDS = {"balance": "balance", "credits": "credits", "api_calls": "units"}


@dataclass(frozen=True, slots=True)
class Lived:
    """A world and its diary."""

    world: World
    diary: Diary

    async def rows(self, path: str, **params: str) -> tuple[list[Json], Json]:
        """The rows of all pages of a report, and its totals."""
        found: list[Json] = []
        cursor: dict[str, str] = {}
        while True:
            body = await self.world.ask("GET", f"/reports/{path}", params={**params, **cursor})
            found += body["data"]
            if not body["hasMore"]:
                return found, body["totals"]
            cursor = {"cursor": body["nextCursor"]}


@pytest.fixture(scope="module")
async def lived(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[Lived]:
    async with billing.world(database, redis_client) as world:
        async with postgres.transaction(database) as connection:
            await actions.load_packaged(connection, clock.real_clock)
            for price, since in ((SINGLE, at("2026-09-01")), (DOUBLE, diary.PRICE_CHANGE)):
                await actions.set_override(connection, world.tenant, diary.MODEL, price, world.clock(), since)
        async with database.acquire() as connection:
            world.services.book = await actions.load_book(connection)
        yield Lived(world, await diary.Author(world, 5).live())


def bucket(moment: datetime, word: str, zone: str) -> str:
    local = moment.astimezone(ZoneInfo(zone))
    if word == "hour":
        return local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes")
    if word == "week":
        return f"{local.date() - timedelta(days=local.weekday())}"
    return local.strftime("%Y-%m" if word == "month" else "%Y-%m-%d")


def within(moment: datetime, span: Mapping[str, str], zone: str) -> bool:
    starts_at, ends_at = (datetime.fromisoformat(span[name]).replace(tzinfo=ZoneInfo(zone)) for name in ("from", "to"))
    return starts_at <= moment < ends_at


# ── revenue ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def words_of_line(line: Line, word: str, zone: str) -> str | None:
    known = {
        "customerId": line.subscription.customer_id,
        "planCode": line.subscription.plan,
        "featureCode": line.feature,
        "lineType": line.line_type,
    }
    return known[word] if word in known else bucket(line.billed_at, word, zone)


async def check_revenue(lived: Lived, words: str, zone: str, span: Mapping[str, str], **filters: str) -> int:
    asked = [word for word in words.split(",") if word]
    expected: dict[tuple[str | None, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for line in lived.diary.lines():
        if within(line.billed_at, span, zone) and all(
            words_of_line(line, word, zone) == value for word, value in filters.items()
        ):
            sums = expected[tuple(words_of_line(line, word, zone) for word in asked)]
            sums[0] += 1
            sums[1] += line.cents if line.line_type == "plan_base" else 0
            sums[2] += line.cents if line.line_type != "plan_base" else 0
    rows, totals = await lived.rows("revenue", groupBy=words, timeZone=zone, limit="7", **span, **filters)
    got = {tuple(row[word] for word in asked): revenue_of(row) for row in rows}
    if not asked and not expected:
        expected[()] = [0, 0, 0]
    assert got == dict(expected)
    assert len(rows) == len(got)
    assert revenue_of(totals) == [sum(sums[place] for sums in expected.values()) for place in range(3)]
    assert all(Decimal(row["base"]) + Decimal(row["overage"]) == Decimal(row["revenue"]) for row in (*rows, totals))
    return int(totals["lines"])


def revenue_of(row: Json) -> list[int]:
    return [row["lines"], *(int(Decimal(row[name]) * 100) for name in ("base", "overage"))]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "words", ["", "lineType", "planCode,featureCode,lineType", "customerId,day", "hour", "day", "week", "month"]
)
async def test_revenue_is_what_the_diary_bills_however_it_is_grouped(lived: Lived, zone: str, words: str) -> None:
    """Mutants: overage at the price of its end; late usage billed by its closed period; hours of UTC in every zone."""
    counts = [await check_revenue(lived, words, zone, span) for span in MONTHS]
    assert counts[0] > counts[1] > counts[2] > 0


@pytest.mark.parametrize("filters", [{"planCode": "pro"}, {"planCode": "weekly"}, {"featureCode": "api_calls"}])
async def test_filtered_revenue_is_what_the_diary_bills(lived: Lived, filters: dict[str, str]) -> None:
    for zone in ZONES:
        assert await check_revenue(lived, "customerId,lineType,month", zone, ALL, **filters) > 0
    for one in lived.diary.subscriptions:
        await check_revenue(lived, "lineType,day", "Australia/Sydney", ALL, customerId=one.customer_id)


def test_the_diary_has_all_that_is_hard_about_a_month(lived: Lived) -> None:
    """What the tests above are worth: late usage, voids, both price changes, boundaries in the hour that comes twice."""
    lines, uses = lived.diary.lines(), lived.diary.uses
    assert {line.line_type for line in lines} == {"plan_base", "feature_overage", "balance_overage"}
    assert sum(use.sign < 0 for use in uses) > 40
    assert {use.at >= diary.PRICE_CHANGE for use in uses if use.model} == {True, False}
    assert {line.cents for line in lines if line.line_type == "plan_base"} >= {9_900, 12_900, 1_000, 900}
    hours = {bucket(line.billed_at, "hour", "Europe/Berlin") for line in lines}
    assert {"2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"} <= hours
    nights = {bucket(use.at, "hour", "Australia/Sydney") for use in uses}
    assert {"2026-10-04T01:00+10:00", "2026-10-04T03:00+11:00"} <= nights
    priced = [line for line in lines if line.line_type == "feature_overage" and line.subscription.plan == "pro"]
    assert len(priced) == 2
    assert len([line for line in lines if line.line_type == "balance_overage"]) >= 2


# ── the largest customers ─────────────────────────────────────────────────────────────────────────────────────────────

MEASURES: Mapping[str, Callable[[Use], int]] = {
    "events": lambda use: use.sign,
    "quantity": lambda use: use.quantity,
    "charge": lambda use: use.charge,
    "credits": lambda use: use.credits,
    "cost": lambda use: use.cost,
    "inputTokens": lambda use: use.tokens.get("inputTokens", 0),
    "outputTokens": lambda use: use.tokens.get("outputTokens", 0),
    "cacheReadTokens": lambda use: use.tokens.get("cacheReadTokens", 0),
    "cacheWriteTokens": lambda use: use.tokens.get("cacheWriteTokens", 0),
}
COUNTS = frozenset({"events", "inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"})


def ranked(found: Mapping[Subscription, Mapping[str, int]], by: str) -> list[tuple[str, dict[str, int]]]:
    order = sorted(found, key=lambda one: (-found[one][by], one.customer_id))
    return [(one.customer_id, dict(found[one])) for one in order]


def shown(row: Json, names: Mapping[str, object]) -> dict[str, int]:
    return {name: row[name] if name in COUNTS else int(Decimal(row[name]) * NANO) for name in names}


async def check_ranking(
    lived: Lived, by: str, zone: str, span: Mapping[str, str], wanted: Callable[[Use], bool], **filters: str
) -> int:
    expected: dict[Subscription, dict[str, int]] = defaultdict(lambda: dict.fromkeys(MEASURES, 0))
    for use in lived.diary.uses:
        if within(use.at, span, zone) and wanted(use):
            for name, measure in MEASURES.items():
                expected[use.subscription][name] += measure(use)
    rows, totals = await lived.rows("top-customers", by=by, timeZone=zone, limit="2", **span, **filters)
    assert [(row["customerId"], shown(row, MEASURES)) for row in rows] == ranked(expected, by)
    assert shown(totals, MEASURES) == {name: sum(sums[name] for sums in expected.values()) for name in MEASURES}
    return len(rows)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("by", ["charge", "cost", "credits", "events", "quantity", "inputTokens", "outputTokens"])
async def test_customers_are_ranked_by_what_the_diary_says(lived: Lived, by: str, zone: str) -> None:
    """Mutants: voids not taken off; late usage counted when it came; equals in any order; a page's totals in place of all."""
    counts = [await check_ranking(lived, by, zone, span, lambda _use: True) for span in MONTHS]
    assert counts[0] == len(lived.diary.subscriptions)
    assert counts[2] > 0


async def test_a_filtered_ranking_is_what_the_diary_says(lived: Lived) -> None:
    cases: Sequence[tuple[dict[str, str], Callable[[Use], bool]]] = (
        ({"planCode": "ai"}, lambda use: use.subscription.plan == "ai"),
        ({"featureCode": "exports"}, lambda use: use.feature == "exports"),
        ({"model": diary.MODEL}, lambda use: use.model is not None),
        ({"provider": "anthropic"}, lambda use: use.model is not None),
    )
    for (filters, wanted), zone in itertools.product(cases, ZONES):
        assert await check_ranking(lived, "charge", zone, ALL, wanted, **filters) > 0


@pytest.mark.parametrize("zone", ZONES)
async def test_customers_are_ranked_by_the_revenue_that_the_diary_bills(lived: Lived, zone: str) -> None:
    for span in MONTHS:
        expected: dict[Subscription, dict[str, int]] = defaultdict(lambda: {"revenue": 0})
        for line in lived.diary.lines():
            if within(line.billed_at, span, zone):
                expected[line.subscription]["revenue"] += line.cents * NANO_PER_CENT
        rows, _ = await lived.rows("top-customers", by="revenue", timeZone=zone, limit="3", **span)
        assert [(row["customerId"], shown(row, {"revenue": 0})) for row in rows] == ranked(expected, "revenue")


# ── forecast ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def half_even(value: Fraction) -> int:
    return diary.round_half_even(value)


def forecast_of(book: Diary, one: Subscription, what: str, start: datetime) -> dict[str, Any]:
    """A row of the forecast for a running pool."""
    pool, end = book.pools[one, what, start], one.period(start)[1]
    allowed = diary.included(one, what) + pool.added
    projected = max(pool.used, half_even(Fraction(pool.used * ((end - start) // MICROSECOND), (LAST - start) // MICROSECOND)))
    overage = max(0, projected - max(allowed, 0))
    charge = 0
    if one.trial_ends is None or start >= one.trial_ends:
        if what == "balance":
            charge = half_even(Fraction(overage, NANO_PER_CENT)) * NANO_PER_CENT
        elif what != "credits":
            price = book.overage_price(one.plan, start, LAST + MICROSECOND)
            charge = half_even(Fraction(overage * price, NANO * NANO_PER_CENT)) * NANO_PER_CENT
    runs_out = None
    if projected > allowed and pool.used > 0:
        runs_out = start + max(allowed, 0) * ((LAST - start) // MICROSECOND) // pool.used * MICROSECOND
    return {
        "customerId": one.customer_id,
        "planCode": one.plan,
        "kind": KINDS[what],
        "periodStart": clock.iso(start),
        "periodEnd": clock.iso(end),
        "included": allowed,
        "used": pool.used,
        "projectedUsed": projected,
        "projectedOverage": overage,
        "projectedCharge": charge,
        "runsOutAt": None if runs_out is None else clock.iso(runs_out),
    }


MICROSECOND = timedelta(microseconds=1)
AMOUNTS = ("included", "used", "projectedUsed", "projectedOverage", "projectedCharge")


def as_forecast(row: Json) -> dict[str, Any]:
    names = ("customerId", "planCode", "kind", "periodStart", "periodEnd", "runsOutAt")
    return {**{name: row[name] for name in names}, **{name: int(Decimal(row[name]) * NANO) for name in AMOUNTS}}


def expected_forecast(book: Diary, *subscriptions: Subscription) -> list[dict[str, Any]]:
    running = [key for key in book.pools if key[0] in subscriptions and key[2] <= LAST < key[0].period(key[2])[1]]
    return sorted((forecast_of(book, *key) for key in running), key=lambda row: row["customerId"])


async def test_the_forecast_is_the_run_rate_of_what_the_diary_says(lived: Lived) -> None:
    """Mutants: voids, or totals that were set, left out; a lower price that came later; overage of a trial; purchased credits."""
    rows, totals = await lived.rows("forecast", limit="2")
    expected = expected_forecast(lived.diary, *lived.diary.subscriptions)
    assert sorted(map(as_forecast, rows), key=lambda row: row["customerId"]) == expected
    assert totals["pools"] == len(expected) == len(lived.diary.subscriptions)
    assert int(Decimal(totals["projectedCharge"]) * NANO) == sum(row["projectedCharge"] for row in expected) > 0
    assert {row["kind"] for row in expected} == {"balance", "credits", "units"}
    assert sum(row["runsOutAt"] is not None for row in expected) >= 2
    free = [row for row in expected if row["projectedOverage"] > 0 and row["projectedCharge"] == 0]
    assert "trial" in {row["planCode"] for row in free}


async def test_a_forecast_can_be_of_one_customer_or_plan(lived: Lived) -> None:
    for one in lived.diary.subscriptions:
        rows, _ = await lived.rows("forecast", customerId=one.customer)
        assert [as_forecast(row) for row in rows] == expected_forecast(lived.diary, one)
    of_plan = [one for one in lived.diary.subscriptions if one.plan == "trial"]
    rows, _ = await lived.rows("forecast", planCode="trial")
    assert sorted(map(as_forecast, rows), key=lambda row: row["customerId"]) == expected_forecast(lived.diary, *of_plan)


async def test_the_pools_running_low_are_those_of_the_forecast_with_the_least_left(lived: Lived) -> None:
    """Mutants: purchased credits left out; the share of what is used in place of what is left."""
    async with lived.world.services.database.acquire() as connection:
        found = await forecast.running_low(connection, lived.world.tenant, LAST, 60, 100)
    everything = expected_forecast(lived.diary, *lived.diary.subscriptions)
    spare = await lived.world.services.database.fetchval(
        "SELECT balance FROM pool_balances WHERE tenant_id = $1 AND pool = $2", lived.world.tenant.id, pools.PURCHASED_CREDITS
    )
    left = {row["customerId"]: row["included"] - row["used"] for row in everything}
    [packs] = [one for one in lived.diary.subscriptions if one.plan == "packs"]
    used_now = lived.diary.pools[packs, "credits", packs.period(LAST)[0]].used
    left[packs.customer_id] = max(0, diary.included(packs, "credits") - used_now) + int(spare)
    expected = {
        row["customerId"]: left[row["customerId"]] for row in everything if left[row["customerId"]] * 100 <= row["included"] * 60
    }
    assert {str(row["customerId"]): row["left"] for row in found} == expected
    assert 0 < len(found) < len(everything)
    shares = [Fraction(int(str(row["left"])), int(str(row["included"]))) for row in found]
    assert shares == sorted(shares)

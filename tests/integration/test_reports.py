"""Reports over HTTP against the same figures computed by plain Python from the raw events."""

import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tallybook.core.usage_log import place
from tallybook.reports import store
from tallybook.reports.composition import Source
from tallybook.reports.model import Question, ReportName
from tallybook.storage import postgres
from tallybook.storage.postgres import Row
from tallybook.storage.redis import Redis
from tests.support import api, report_book
from tests.support.api import Api
from tests.support.report_book import Catalog

Json = dict[str, Any]
EVENTS = 4_000
NANO = Decimal(10**9)


@dataclass(frozen=True, slots=True)
class Books:
    """A served API over a book with usage of two tenants."""

    api: Api
    database: postgres.Pool
    made: Catalog
    events: list[Row]

    async def ask(self, path: str, **params: str) -> Json:
        answer = await self.api.send("GET", f"/api/v1{path}", params=params)
        assert answer.status == 200, answer.body
        return answer.body

    async def every_page(self, path: str, **params: str) -> tuple[list[Json], Json]:
        """The rows of all pages, and the totals that each page says."""
        rows: list[Json] = []
        body = await self.ask(path, **params)
        while True:
            rows += body["data"]
            if not body["hasMore"]:
                return rows, body.get("totals", {})
            totals = body.get("totals")
            body = await self.ask(path, **params, cursor=body["nextCursor"])
            assert body.get("totals") == totals


@pytest.fixture(scope="module")
async def books(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[Books]:
    rng = random.Random(7)
    services = await api.make_services(database, redis_client)
    account, other = await api.make_account(database), await api.make_account(database)
    async with postgres.transaction(database) as connection:
        made, foreign = [await report_book.catalog(connection, one.tenant) for one in (account, other)]
    await report_book.write(database, report_book.records(made, EVENTS, rng, report_book.anywhen), rng)
    await report_book.write(database, report_book.records(foreign, 300, rng, report_book.anywhen), rng)
    async with api.serving(services) as caller:
        events = await database.fetch("SELECT * FROM usage_events WHERE tenant_id = $1", account.tenant.id)
        yield Books(Api(caller, account.key), database, made, events)


def usage(books: Books) -> Iterator[tuple[Row, int, Mapping[str, str]]]:
    """Usage and voids, the sign that they count with, and the properties of the event or of what was taken back."""
    at = {(row["partition"], place(row["seq"], row["position"])): row for row in books.events}
    for row in books.events:
        if row["kind"] == 0:
            yield row, 1, row["properties"] or {}
        elif row["kind"] == 5:
            yield row, -1, at[row["partition"], row["voids"]]["properties"] or {}


def bucket(moment: datetime, word: str, zone: str) -> str:
    local = moment.astimezone(ZoneInfo(zone))
    if word == "hour":
        return local.replace(minute=0, second=0, microsecond=0).isoformat(timespec="minutes")
    if word == "week":
        year, week, _ = local.isocalendar()
        return datetime.fromisocalendar(year, week, 1).strftime("%Y-%m-%d")
    return local.strftime("%Y-%m" if word == "month" else "%Y-%m-%d")


def group_of(books: Books, word: str, row: Row, properties: Mapping[str, str], zone: str) -> str | None:
    made, model = books.made, row["model"]
    if word == "customerId":
        return next(one.public_id for one in made.clients if one.row == row["customer_id"])
    if word == "featureCode":
        return next(code for code, number in made.features.items() if number == row["feature_id"])
    if word == "planCode":
        return {"b": "plan_balance", "c": "plan_credits", "f": "plan_metered"}[row["pool"].split(".")[1][0]]
    if word == "provider":
        return model.split("/")[0] if model and "/" in model else None
    if word.startswith("property:"):
        return properties.get(word.removeprefix("property:"))
    return model if word == "model" else bucket(row["occurred_at"], word, zone)


def measures_of(row: Row, sign: int, report: str) -> dict[str, int]:
    kind = row["pool"].split(".")[1][0]
    charge = row["amount"] if kind == "b" else 0
    found = {
        "events": sign,
        "quantity": row["quantity_nano"],
        "charge": charge,
        "credits": row["amount"] if kind == "c" else 0,
        "cost": row["cost_nano"],
        "margin": charge - row["cost_nano"],
        "inputTokens": row["input_tokens"],
        "outputTokens": row["output_tokens"],
        "cacheReadTokens": row["cache_read_tokens"],
        "cacheWriteTokens": row["cache_write_tokens"],
    }
    left_out = {"usage": {"margin"}, "ai-costs": {"quantity", "credits"}, "margin": {"quantity", "credits", *list(found)[6:]}}
    return {name: value for name, value in found.items() if name not in left_out[report]}


def recomputed(
    books: Books, report: str, words: list[str], zone: str, wanted: Callable[[Row, Mapping[str, str]], bool]
) -> dict[tuple[str | None, ...], dict[str, int]]:
    sums: dict[tuple[str | None, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row, sign, properties in usage(books):
        if (report == "usage" or row["price_id"]) and wanted(row, properties):
            group = tuple(group_of(books, word, row, properties, zone) for word in words)
            for name, value in measures_of(row, sign, report).items():
                sums[group][name] += value
    return {group: dict(measures) for group, measures in sums.items()}


def as_integers(row: Json, names: Mapping[str, int]) -> dict[str, int]:
    return {name: row[name] if isinstance(row[name], int) else int(Decimal(row[name]) * NANO) for name in names}


async def check(
    books: Books, report: str, group_by: str, zone: str = "UTC", *, page_rows: int = 1000, **params: str
) -> list[Json]:
    """A report's rows are what raw events say, and its totals the sum of its rows."""
    words = [word for word in group_by.split(",") if word]
    starts_at, ends_at = (
        datetime.fromisoformat(params.get(name, f"{moment:%Y-%m-%d}"))
        for name, moment in (("from", report_book.FROM), ("to", report_book.TO))
    )
    local = ZoneInfo(zone)
    bounds = [moment if moment.tzinfo else moment.replace(tzinfo=local) for moment in (starts_at, ends_at)]

    def wanted(row: Row, properties: Mapping[str, str]) -> bool:
        if not bounds[0] <= row["occurred_at"] < bounds[1]:
            return False
        return all(
            group_of(books, word, row, properties, zone) == value for word, value in params.items() if word in FILTERS
        ) and (
            "property" not in params or properties.get(params["property"].split(":")[0]) == params["property"].split(":", 1)[1]
        )

    times = {"from": f"{report_book.FROM:%Y-%m-%d}", "to": f"{report_book.TO:%Y-%m-%d}"}
    rows, totals = await books.every_page(
        f"/reports/{report}", **{**times, **params}, groupBy=group_by, timeZone=zone, limit=str(page_rows)
    )
    expected = recomputed(books, report, words, zone, wanted)
    names = next(iter(expected.values()))
    got = {tuple(row[word] for word in words): as_integers(row, names) for row in rows}
    assert len(got) == len(rows)
    assert got == expected
    sums = {name: sum(one[name] for one in expected.values()) for name in names}
    assert as_integers(totals, names) == sums
    assert sums["events"] > 0
    return rows


FILTERS = frozenset({"customerId", "featureCode", "planCode", "model", "provider"})


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("word", ["hour", "day", "week", "month"])
async def test_usage_by_time_is_what_the_raw_events_say_in_every_time_zone(books: Books, zone: str, word: str) -> None:
    """Mutants: a day of UTC for every zone; totals by UTC hour for a zone that is half an hour off; voids not taken off."""
    await check(books, "usage", word, zone)


@pytest.mark.parametrize("word", ["hour", "day"])
async def test_a_zone_half_an_hour_off_is_exact_between_whole_hours_too(books: Books, word: str) -> None:
    """Mutant: any question between whole hours is answered from the totals by UTC hour."""
    whole = {"from": "2026-03-01T00:00:00+00:00", "to": "2026-06-01T00:00:00+00:00"}
    await check(books, "usage", word, "Asia/Kolkata", page_rows=1000, **whole)


@pytest.mark.parametrize(
    "words",
    [
        "customerId",
        "featureCode",
        "model",
        "provider",
        "planCode",
        "property:region",
        "planCode,model,day",
        "customerId,property:region",
    ],
)
@pytest.mark.parametrize("report", ["usage", "ai-costs", "margin"])
async def test_a_report_is_what_the_raw_events_say_whatever_it_is_grouped_by(books: Books, report: str, words: str) -> None:
    """Mutants: usage after a change of plan counted for the plan before; a void without the properties of its event."""
    await check(books, report, words, "Europe/Berlin")


@pytest.mark.parametrize(
    "filters",
    [
        {"model": "anthropic/claude-x"},
        {"model": "own-model"},
        {"provider": "openai"},
        {"planCode": "plan_balance"},
        {"featureCode": "ai_chat"},
        {"property": "region:eu"},
        {"property": "region:eu", "model": "openai/gpt-y", "planCode": "plan_balance"},
        {"from": "2026-10-01", "to": "2026-11-01"},
        {"from": "2026-10-05T10:17:30.250+00:00", "to": "2026-10-20T00:00:00+00:00"},
    ],
)
@pytest.mark.parametrize("report", ["usage", "ai-costs"])
async def test_filters_leave_out_what_the_raw_events_say(books: Books, report: str, filters: dict[str, str]) -> None:
    await check(books, report, "customerId", "America/New_York", page_rows=1000, **filters)


async def test_a_customer_is_found_by_both_of_its_names(books: Books) -> None:
    client = books.made.clients[0]
    first = await check(books, "ai-costs", "model,day", "Europe/Berlin", customerId=client.public_id)
    body = await books.ask(
        "/reports/ai-costs",
        customerId="user_0",
        groupBy="model,day",
        timeZone="Europe/Berlin",
        **{"from": "2026-02-01", "to": "2026-12-01"},
    )
    assert body["data"] == first[:100]


@pytest.mark.parametrize("words", ["day", "customerId,model", "property:region,customerId"])
async def test_pages_put_together_are_the_whole_report(books: Books, words: str) -> None:
    """Mutant: a page that begins with the last row of the one before, or after the row that follows it."""
    await check(books, "usage", words, page_rows=3)


async def test_a_day_in_which_clocks_are_set_has_23_or_25_hours(books: Books) -> None:
    rows = await check(books, "usage", "day,hour", "Europe/Berlin")
    hours: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        hours[row["day"]].add(row["hour"])
    assert {"2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"} <= hours["2026-10-25"]
    assert (len(hours["2026-03-29"]), len(hours["2026-10-25"])) == (23, 25)


async def test_rows_by_unit_price_tell_prices_margin_and_every_kind_of_tokens(books: Books) -> None:
    rows, totals = await books.every_page(
        "/reports/ai-costs", groupBy="model,unitPrice", limit="4", **{"from": "2026-02-01", "to": "2026-12-01"}
    )
    expected: dict[tuple[object, ...], list[int]] = defaultdict(lambda: [0] * 4)
    for row, sign, _ in usage(books):
        if row["price_id"]:
            price = str(Decimal(row["input_pico"]) / 10**6)
            key = row["model"], Decimal(price), Decimal(row["margin_bps"]) / 100
            for index, value in enumerate((sign, row["cache_write_1h_tokens"], row["web_searches"], row["amount"])):
                expected[key][index] += value
    got = {
        (row["model"], Decimal(row["inputPrice"]), Decimal(row["appliedMarginPercent"])): [
            *(row[name] for name in ("events", "cacheWrite1hTokens", "webSearches")),
            int(Decimal(row["charge"]) * NANO),
        ]
        for row in rows
    }
    assert got == expected
    assert totals["webSearches"] == sum(row["webSearches"] for row in rows) > 0
    claude = [row for row in rows if row["model"] == "anthropic/claude-x"]
    assert {row["inputPrice"] for row in claude} == {"3", "6"}
    assert {row["webSearchPrice"] for row in claude} == {"0.01"}


async def test_a_price_for_several_models_is_told_apart_by_the_raw_events(books: Books) -> None:
    """Mutant: the model of an hour is the pattern of its price row."""
    tenant = books.made.tenant.id
    price = await books.database.fetchval(
        "INSERT INTO ai_price_overrides (tenant_id, pattern, price, effective_from, reaches_back, created_at) "
        "VALUES ($1, 'o*', '{}', $2, false, $2) RETURNING id",
        *(tenant, report_book.FROM),
    )
    changed = "UPDATE {} SET price_id = $2 WHERE tenant_id = $1 AND price_id = $3"
    own = books.made.prices["own-model"][0]
    for table in ("usage_events", "usage_hourly"):
        await books.database.execute(changed.format(table), tenant, price, own)
    try:
        await check(books, "ai-costs", "model")
        await check(books, "margin", "provider")
    finally:
        for table in ("usage_events", "usage_hourly"):
            await books.database.execute(changed.format(table), tenant, own, price)
        await books.database.execute("DELETE FROM ai_price_overrides WHERE id = $1", price)


async def test_hourly_totals_answer_wherever_they_are_exact(books: Books) -> None:
    """The raw events are read only for what the totals cannot tell: half an hour, properties, unit prices."""
    async with books.database.acquire() as connection:
        sources = [await store.source(connection, question) for question in _questions(books)]
    assert sources == [Source.HOURS, Source.HOURS, Source.HOURS, Source.EVENTS, Source.EVENTS, Source.EVENTS, Source.EVENTS]


def _questions(books: Books) -> Iterator[Question]:
    def asked(zone: str = "UTC", *words: str, report: ReportName = "usage", start: datetime = report_book.FROM) -> Question:
        return Question(books.made.tenant, report, start, report_book.TO, zone, words)

    yield asked("UTC", "customerId", "day")
    yield asked("Europe/Berlin", "planCode", "week")
    yield asked("Asia/Kolkata", "model", report="ai-costs")
    yield asked("Asia/Kolkata", "day")
    yield asked("UTC", "property:region")
    yield asked("UTC", "unitPrice", report="ai-costs")
    yield asked(start=report_book.FROM.replace(minute=1))


@pytest.mark.parametrize("by", ["charge", "cost", "events", "inputTokens"])
async def test_the_largest_customers_come_first_and_their_sum_is_that_of_all(books: Books, by: str) -> None:
    times = {"from": "2026-02-01", "to": "2026-12-01"}
    rows, totals = await books.every_page("/reports/top-customers", by=by, limit="2", **times)
    values = [Decimal(row[by]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert len({row["customerId"] for row in rows}) == len(rows) == len(books.made.clients)
    assert Decimal(totals[by]) == sum(values)
    whole, _ = await books.every_page("/reports/usage", groupBy="customerId", **times)
    assert {row["customerId"]: row[by] for row in rows} == {row["customerId"]: row[by] for row in whole}


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("usage", {"groupBy": "colour"}, "validation_error"),
        ("usage", {"groupBy": "day,day"}, "validation_error"),
        ("revenue", {"groupBy": "model"}, "validation_error"),
        ("revenue", {"model": "openai/gpt-y"}, "validation_error"),
        ("usage", {"groupBy": "unitPrice"}, "validation_error"),
        ("usage", {"timeZone": "Mars/Olympus"}, "validation_error"),
        ("usage", {"timeZone": "../../etc/passwd"}, "validation_error"),
        ("usage", {"from": "2026-13-01"}, "validation_error"),
        ("usage", {"from": "2026-03-02", "to": "2026-03-01"}, "validation_error"),
        ("usage", {"cursor": "W10"}, "validation_error"),
        ("usage", {"groupBy": "day", "cursor": "WyJ4Il0"}, "validation_error"),
        ("usage", {"property": "region"}, "validation_error"),
        ("top-customers", {"by": "luck"}, "validation_error"),
        ("usage", {"customerId": "nobody"}, "customer_not_found"),
        ("usage", {"featureCode": "nothing"}, "feature_not_found"),
    ],
)
async def test_what_a_report_does_not_understand_is_told(books: Books, path: str, params: dict[str, str], code: str) -> None:
    answer = await books.api.send("GET", f"/api/v1/reports/{path}", params=params)
    assert answer.code == code, answer.body


@pytest.mark.parametrize("name", ['a"; DROP TABLE customers; --', "{measures}", "x' OR '1'='1", "€"])
async def test_the_name_of_a_property_is_never_read_as_sql(books: Books, name: str) -> None:
    body = await books.ask("/reports/usage", groupBy=f"property:{name}", **{"from": "2026-02-01", "to": "2026-12-01"})
    [row] = body["data"]
    assert row[f"property:{name}"] is None


async def test_another_organization_sees_nothing_of_it(books: Books) -> None:
    stranger = await api.make_account(books.database)
    caller = Api(books.api.client, stranger.key)
    for path in ("usage", "ai-costs", "revenue", "margin", "top-customers", "forecast"):
        answer = await caller.send("GET", f"/api/v1/reports/{path}", params={} if path == "forecast" else {"from": "2026-01-01"})
        assert answer.status == 200
        assert [row for row in answer.body["data"] if row.get("customerId")] == []
    listed = await caller.send("GET", "/api/v1/usage/events", params={"from": "2026-01-01"})
    assert listed.body["data"] == []


async def test_the_events_of_an_hour_add_up_to_the_hour(books: Books) -> None:
    """Each hour of a customer's report, opened, sums to the unit; mutants: voids left out, one record twice over two pages."""
    client = books.made.clients[0]
    hours, _ = await books.every_page(
        "/reports/usage", customerId=client.public_id, groupBy="hour", limit="1000", **{"from": "2026-10-24", "to": "2026-10-26"}
    )
    assert len(hours) > 10
    for hour in hours[:12]:
        start = datetime.fromisoformat(hour["hour"])
        bounds = {"from": start.isoformat(), "to": start.replace(hour=start.hour).isoformat()[:14] + "59:59.999+00:00"}
        rows, _ = await books.every_page("/usage/events", customerId=client.public_id, limit="2", **bounds)
        assert len({row["id"] for row in rows}) == len(rows)
        for name in ("quantity", "charge", "cost"):
            assert sum(Decimal(row[name]) for row in rows) == Decimal(hour[name])
        assert sum(1 if row["kind"] == "usage" else -1 for row in rows) == hour["events"]


async def test_events_are_listed_newest_first_by_every_filter(books: Books) -> None:
    times = {"from": "2026-02-01", "to": "2026-12-01"}
    rows, _ = await books.every_page("/usage/events", limit="1000", **times)
    assert len(rows) == sum(1 for _ in usage(books))
    moments = [row["occurredAt"] for row in rows]
    assert moments == sorted(moments, reverse=True)
    tests: list[tuple[dict[str, str], str, Callable[[str], bool]]] = [
        ({"model": "own-model"}, "model", lambda value: value == "own-model"),
        ({"provider": "openai"}, "model", lambda value: str(value).startswith("openai/")),
        ({"planCode": "plan_credits"}, "planCode", lambda value: value == "plan_credits"),
        ({"featureCode": "exports"}, "featureCode", lambda value: value == "exports"),
        ({"kind": "void"}, "kind", lambda value: value == "void"),
    ]
    for params, name, wanted in tests:
        found, _ = await books.every_page("/usage/events", limit="1000", **times, **params)
        assert [row["id"] for row in found] == [row["id"] for row in rows if wanted(row[name])], params
    corrections, _ = await books.every_page("/usage/events", limit="1000", kind="adjustment,set", **times)
    assert len(corrections) == sum(row["kind"] in (1, 2) for row in books.events) > 0

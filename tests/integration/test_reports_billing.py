"""Revenue, drill-down, forecast, the month's close and statements over months that were really billed."""

import argparse
import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest

from tallybook.ai_models import actions
from tallybook.cli import report_close
from tallybook.core import clock
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.reports import statement, statement_html, statement_pdf
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World, at

DOUBLE = Price((Band(0, Listed(6_000_000, 30_000_000, 600_000, 7_500_000)),))
ALL = {"from": "2026-09-01", "to": "2027-01-01"}


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        async with postgres.transaction(database) as connection:
            await actions.load_packaged(connection, clock.real_clock)
        async with database.acquire() as connection:
            made.services.book = await actions.load_book(connection)
        await made.stand_at("2026-09-20")
        await made.metered()
        await made.plan("ai", 5000, consumptionModel="balance", price_includedBalance=1000)
        await made.feature("ai", "ai_chat", pricingMode="ai_model", margin=20)
        await made.feature("ai", "exports", overage={"unitPrice": 333})
        yield made


async def chat(world: World, customer: str, **fields: object) -> Json:
    tokens = {"inputTokens": 10_000, "outputTokens": 2_000, "cacheReadTokens": 7_000, "cacheWriteTokens": 1_000}
    event = {"customerId": customer, "featureCode": "ai_chat", "eventId": f"c{next(world.events)}", "model": "claude-sonnet-4-6"}
    return await world.ask("POST", "/usage/events", {**event, **tokens, **fields})


async def two_months(world: World) -> tuple[Json, Json]:
    """Two customers, two closed periods: late usage, voids, corrections, a price change, a day of 25 hours."""
    metered, ai = await world.subscribe("pro"), await world.subscribe("ai")
    for value in (400, 700.5, 300):
        await world.use(metered["customer"], "api_calls", value, timestamp="2026-09-19T23:59:00Z")
    twice = await world.use(metered["customer"], "api_calls", 77)
    await world.ask("POST", f"/usage/events/{twice['id']}/void", {"reason": "twice"})
    total = {"customerId": metered["customer"], "featureCode": "api_calls", "value": 1900.25, "reason": "recount"}
    await world.ask("PUT", "/usage", total)
    for _ in range(4):
        await chat(world, ai["customer"])
    await world.use(ai["customer"], "exports", 3.7)
    wrong = await chat(world, ai["customer"])
    await world.ask("POST", f"/usage/events/{wrong['id']}/void", {"reason": "wrong customer"})
    await world.advance_to("2026-10-25")
    async with postgres.transaction(world.services.database) as connection:
        await actions.set_override(
            connection, world.tenant, "anthropic/claude-sonnet-4.6", DOUBLE, world.clock(), at("2026-10-22")
        )
    async with world.services.database.acquire() as connection:
        world.services.book = await actions.load_book(connection)
    for moment in ("2026-10-15T10:00:00Z", "2026-10-23T10:00:00Z", "2026-10-24T23:30:00Z"):
        await chat(world, ai["customer"], timestamp=moment)
    await chat(world, ai["customer"])
    await world.use(metered["customer"], "api_calls", 1100, timestamp="2026-10-10T10:00:00Z")
    await world.use(metered["customer"], "api_calls", 5)
    await world.advance_to("2026-11-21")
    await world.caught_up()
    return metered, ai


async def every_row(world: World, path: str, **params: str) -> tuple[list[Json], Json]:
    rows: list[Json] = []
    cursor: dict[str, str] = {}
    while True:
        body = await world.ask("GET", path, params={**params, **cursor})
        rows += body["data"]
        if not body["hasMore"]:
            return rows, body.get("totals", {})
        cursor = {"cursor": body["nextCursor"]}


def money_of(row: Json, *names: str) -> list[Decimal]:
    return [Decimal(row[name]) for name in names]


async def test_revenue_is_the_sum_of_the_invoices_however_it_is_grouped(world: World) -> None:
    """Mutants: overage dropped; a line counted once a pool; the invoice's total in place of the line's amount."""
    subscriptions = await two_months(world)
    invoices = [invoice for one in subscriptions for invoice in await world.invoices(one)]
    lines = [line for invoice in invoices for line in invoice["lineItems"]]
    assert {line["lineType"] for line in lines} == {"plan_base", "feature_overage", "balance_overage"}
    expected: dict[str, int] = defaultdict(int)
    for line in lines:
        expected[line["lineType"]] += line["amount"]
    for words in ("planCode,featureCode,lineType", "customerId,month", "lineType", "day", ""):
        rows, totals = await every_row(world, "/reports/revenue", groupBy=words, limit="2", **ALL)
        assert sum(Decimal(row["revenue"]) for row in rows) == Decimal(totals["revenue"]) == Decimal(sum(expected.values())) / 100
        for row in [*rows, totals]:
            base, overage, revenue = money_of(row, "base", "overage", "revenue")
            assert base + overage == revenue
        assert sum(row["lines"] for row in rows) == totals["lines"] == len(lines)
    by_type, _ = await every_row(world, "/reports/revenue", groupBy="lineType", **ALL)
    assert {row["lineType"]: Decimal(row["revenue"]) * 100 for row in by_type} == expected
    plan, _ = await every_row(world, "/reports/revenue", planCode="pro", groupBy="planCode", **ALL)
    of_pro = [invoice["total"] for invoice in await world.invoices(subscriptions[0])]
    assert [(row["planCode"], Decimal(row["revenue"]) * 100) for row in plan] == [("pro", sum(of_pro))]
    best, _ = await every_row(world, "/reports/top-customers", by="revenue", **ALL)
    totals_by_customer = [sum(one["total"] for one in await world.invoices(each)) for each in subscriptions]
    assert [Decimal(row["revenue"]) * 100 for row in best] == sorted(totals_by_customer, reverse=True)


async def test_each_step_from_an_invoice_line_to_its_events_sums_to_the_step_above(world: World) -> None:
    """Mutants: late usage counted where it occurred; a void left out; a correction taken for usage."""
    opened = 0
    for subscription in await two_months(world):
        for invoice in await world.invoices(subscription):
            for position, line in enumerate(invoice["lineItems"], 1):
                path = f"/invoices/{invoice['id']}/lines/{position}/usage"
                if line["lineType"] == "plan_base":
                    assert (await world.ask("GET", path))["data"] == []
                    continue
                shown = await world.ask("GET", path, params={"timeZone": "Europe/Berlin"})
                assert (shown["amount"], shown["lineType"]) == (line["amount"], line["lineType"])
                await _open(world, shown)
                opened += 1
    assert opened == 4


async def _open(world: World, shown: Json) -> None:
    in_units = shown["lineType"] == "feature_overage"
    measure = "quantity" if in_units else "charge"
    used, counted, corrections, included = money_of(shown, "used", "counted", "corrections", "included")
    assert counted - corrections == used
    assert used - included == Decimal(shown["overage"])
    hours, totals = shown["data"], shown["totals"]
    assert sum(Decimal(hour[measure]) for hour in hours) == Decimal(totals[measure]) == counted
    for hour in hours:
        start = datetime.fromisoformat(hour["hour"])
        params = {
            "customerId": shown["customerId"],
            "pool": shown["pool"],
            "featureCode": hour["featureCode"],
            "from": start.isoformat(),
            "to": (start + timedelta(hours=1)).isoformat(),
        }
        if hour["model"]:
            params["model"] = hour["model"]
        events, _ = await every_row(world, "/usage/events", **params)
        assert sum(Decimal(event["taken"]) for event in events) == Decimal(hour[measure])
        assert sum(1 if event["kind"] == "usage" else -1 for event in events) == hour["events"]
    if in_units:
        corrected, _ = await every_row(
            world, "/usage/events", customerId=shown["customerId"], pool=shown["pool"], kind="adjustment,set", **ALL
        )
        assert -sum(Decimal(event["taken"]) for event in corrected) == corrections


async def test_an_event_shows_each_price_that_made_its_charge(world: World) -> None:
    subscription = await world.subscribe("ai")
    await chat(world, subscription["customer"])
    await world.caught_up()
    [event], _ = await every_row(world, "/usage/events", customerId=subscription["customer"])
    per_token = {
        name: Decimal(event[name]) / 10**6 for name in ("inputPrice", "outputPrice", "cacheReadPrice", "cacheWritePrice")
    }
    cost = (
        2_000 * per_token["inputPrice"]
        + 2_000 * per_token["outputPrice"]
        + 7_000 * per_token["cacheReadPrice"]
        + 1_000 * per_token["cacheWritePrice"]
    )
    assert (cost, Decimal(event["cost"])) == (Decimal("0.04185"), Decimal("0.04185"))
    assert (event["charge"], event["margin"], event["appliedMarginPercent"]) == ("0.05022", "0.00837", "20")
    report = await world.ask(
        "GET", "/reports/ai-costs", params={"customerId": subscription["customer"], "groupBy": "model,unitPrice"}
    )
    [row] = report["data"]
    assert (row["cost"], row["charge"], row["margin"], row["markupPercent"]) == ("0.04185", "0.05022", "0.00837", "20")
    assert (row["inputPrice"], row["outputPrice"], row["cacheReadPrice"], row["cacheWritePrice"]) == ("3", "15", "0.3", "3.75")
    assert (row["inputTokens"], row["outputTokens"], row["cacheReadTokens"], row["cacheWriteTokens"]) == (
        10_000,
        2_000,
        7_000,
        1_000,
    )


async def test_a_forecast_carries_the_run_rate_on_to_the_end_of_the_period(world: World) -> None:
    """A third of the period is over. Mutants: the rate of a calendar month; no rounding of the projected line."""
    metered, ai = await world.subscribe("pro"), await world.subscribe("ai")
    await world.stand_at("2026-09-30")
    await world.use(metered["customer"], "api_calls", 500.5)
    await chat(world, ai["customer"])
    await world.caught_up()
    body = await world.ask("GET", "/reports/forecast", params={"limit": "1"})
    following = await world.ask("GET", "/reports/forecast", params={"limit": "1", "cursor": body["nextCursor"]})
    assert body["totals"] == following["totals"] == {"pools": 2, "projectedCharge": "5.07"}
    assert not following["hasMore"]
    rows = {row["kind"]: row for row in [*body["data"], *following["data"]]}
    units, balance = rows["units"], rows["balance"]
    assert (units["used"], units["projectedUsed"], units["projectedOverage"]) == ("500.5", "1501.5", "501.5")
    assert (units["projectedCharge"], units["planCode"], units["featureCode"]) == ("5.02", "pro", "api_calls")
    assert (balance["used"], balance["included"], balance["projectedUsed"], balance["projectedCharge"]) == (
        "0.05022",
        "0.1",
        "0.15066",
        "0.05",
    )
    assert units["runsOutAt"].startswith("2026-10-09T23:31")
    one = await world.ask("GET", "/reports/forecast", params={"customerId": ai["customer"]})
    assert [row["kind"] for row in one["data"]] == ["balance"]


async def test_usage_of_a_period_that_has_just_begun_counts_as_a_days(world: World) -> None:
    """Mutants: the rate of the minute; a balance that is used up and runs out tomorrow."""
    ai, spent = await world.subscribe("ai"), await world.subscribe("ai")
    begun = datetime.fromisoformat(ai["currentPeriod"]["start"])
    await world.stand_at(f"{begun + timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}")
    await chat(world, ai["customer"])
    for _ in range(3):
        await chat(world, spent["customer"])
    await world.caught_up()
    body = await world.ask("GET", "/reports/forecast")
    rows = {row["customerId"]: row for row in body["data"]}
    row, gone = (rows[each["customerId"]] for each in (ai, spent))
    days = (datetime.fromisoformat(row["periodEnd"]) - begun).days
    assert Decimal(row["projectedUsed"]) == Decimal("0.05022") * days
    assert Decimal(gone["used"]) > Decimal(gone["included"])
    assert datetime.fromisoformat(gone["runsOutAt"]) < begun + timedelta(minutes=1) < datetime.fromisoformat(row["runsOutAt"])


def arguments(world: World, month: str, form: str = "csv", zone: str = "UTC") -> argparse.Namespace:
    return argparse.Namespace(month=month, time_zone=zone, format=form, organization=world.tenant.organization_id, live=False)


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


async def test_the_close_of_a_month_says_one_sum_by_three_ways(world: World, tmp_path: Path) -> None:
    """Mutants: a digest of another file; the ledger's side computed from the invoices."""
    subscriptions = await two_months(world)
    folder = tmp_path / "october"
    manifest = cast("Json", await report_close.write(world.services, arguments(world, "2026-10"), folder))
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    october = [
        invoice for one in subscriptions for invoice in await world.invoices(one) if invoice["periodStart"].startswith("2026-10")
    ]
    total = f"{Decimal(sum(invoice['total'] for invoice in october)) / 100:f}".rstrip("0").rstrip(".")
    assert manifest["sums"] == {"invoices": total, "revenueReport": total, "ledger": total}
    assert (manifest["invoices"], manifest["reconciled"], manifest["final"]) == (len(october), True, True)
    assert f"Σ invoices = ${total}" in "\n".join(report_close.summary(manifest))
    for file in manifest["files"]:
        content = (folder / file["name"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file["sha256"], file["bytes"])
    assert {path.name for path in folder.iterdir()} == {file["name"] for file in manifest["files"]} | {"manifest.json"}
    lines = read_csv(folder / "invoices.csv")
    assert sum(Decimal(line["amount"]) for line in lines) == Decimal(total)
    adjustments = read_csv(folder / "adjustments.csv")
    assert adjustments == []
    september = await report_close.write(world.services, arguments(world, "2026-09"), tmp_path / "september")
    changed = read_csv(tmp_path / "september" / "adjustments.csv")
    assert (sorted(row["kind"] for row in changed), september["final"]) == (["set", "void", "void"], True)


async def test_a_close_whose_ledger_was_changed_says_so(world: World, tmp_path: Path) -> None:
    await two_months(world)
    found = await world.services.database.fetchval(
        "SELECT pool FROM invoice_lines AS l JOIN invoices AS i ON i.id = l.invoice_id "
        "WHERE i.tenant_id = $1 AND l.pool IS NOT NULL ORDER BY i.id LIMIT 1",
        world.tenant.id,
    )
    changed = "UPDATE pool_ledger SET amount = amount + $2 WHERE pool = $1 AND kind = 'opening'"
    await world.services.database.execute(changed, found, 10**9 * 10)
    try:
        manifest = await report_close.write(world.services, arguments(world, "2026-10"), tmp_path / "pack")
        assert (manifest["sumsAgree"], manifest["reconciled"], manifest["final"]) == (False, False, False)
    finally:
        await world.services.database.execute(changed, found, -(10**9) * 10)


async def test_a_month_that_is_not_billed_to_its_end_is_not_final(world: World, tmp_path: Path) -> None:
    await world.subscribe("pro")
    await world.stand_at("2026-11-05")
    manifest = cast("Json", await report_close.write(world.services, arguments(world, "2026-10", "parquet"), tmp_path / "pack"))
    assert (manifest["sumsAgree"], manifest["unbilledPeriods"], manifest["final"]) == (True, 1, False)
    assert "NOT FINAL: 1 billing periods" in report_close.summary(manifest)[-1]


async def test_a_statement_shows_every_line_and_the_total_as_html_and_pdf(world: World) -> None:
    """Mutants: a name is put into the page as it is; the lines of usage left out."""
    metered, _ = await two_months(world)
    await world.services.database.execute(
        "UPDATE customers SET full_name = $2 WHERE external_id = $1 AND tenant_id = $3",
        *(metered["customer"], "<script>alert(1)</script> & Söhne", world.tenant.id),
    )
    invoice = (await world.invoices(metered))[1]
    async with world.services.database.acquire() as connection:
        found = await statement.find(connection, world.tenant, invoice["id"])
        assert await statement.find(connection, world.tenant, "inv_none") is None
    assert found is not None
    assert found.total == f"${invoice['total'] / 100:,.2f}"
    assert [line.amount for line in (*found.base, *found.usage)] == [
        f"${item['amount'] / 100:,.2f}" for item in invoice["lineItems"]
    ]
    page = statement_html.html(found)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Söhne" in page
    for line in (*found.base, *found.usage):
        assert line.amount in page
    assert "900.25" in page
    document = statement_pdf.pdf(found)
    assert document.startswith(b"%PDF-")
    assert document == statement_pdf.pdf(found)

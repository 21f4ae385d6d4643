"""The dashboard without a browser: its figures are the API's, and nobody gets in who should not."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import test_utils

from tallybook.core import clock
from tallybook.entrypoints.http.dashboard import figures
from tallybook.entrypoints.http.dashboard import pages as pages_of_dashboard
from tallybook.flows.services import Services
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import web_sessions
from tallybook.tenancy.model import Permissions
from tests.support import api, report_book
from tests.support.api import Account, Api
from tests.support.billing import HandClock
from tests.support.pages import Page

NOW = datetime(2026, 11, 2, 13, 20, tzinfo=UTC)
"""Berlin has set its clocks eight days ago, New York one."""
Client = test_utils.TestClient[Any, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """A served application over a book with usage."""

    client: Client
    services: Services
    account: Account
    clock: HandClock

    @property
    def database(self) -> postgres.Pool:
        """Its book."""
        return self.services.database

    async def get(self, path: str, cookies: Mapping[str, str], **headers: str) -> tuple[int, Mapping[str, str], str]:
        """A page as a browser with these cookies gets it; redirects are not followed."""
        self.client.session.cookie_jar.clear()
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), **headers}
        async with self.client.get(path, headers=sent, allow_redirects=False) as answer:
            return answer.status, answer.headers, await answer.text()

    async def post(
        self, path: str, cookies: Mapping[str, str], fields: Mapping[str, str], **headers: str
    ) -> tuple[int, dict[str, str], dict[str, str], str]:
        """A form as a browser sends it: status, headers, cookies that were set, and the page."""
        self.client.session.cookie_jar.clear()
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), **headers}
        async with self.client.post(path, data=dict(fields), headers=sent, allow_redirects=False) as answer:
            found = {name: morsel.value for name, morsel in answer.cookies.items()}
            return answer.status, dict(answer.headers), found, await answer.text()

    async def form(self) -> tuple[dict[str, str], dict[str, str]]:
        """The cookie and the hidden field of a fresh form."""
        async with self.client.get("/dashboard/sign-in") as answer:
            page = Page(await answer.text())
            return {"tallybook_form": answer.cookies["tallybook_form"].value}, {"token": page.fields["token"]}

    async def sign_in(self, key: str) -> dict[str, str]:
        """The cookies of somebody who signed in."""
        cookies, fields = await self.form()
        status, _, found, page = await self.post("/dashboard/sign-in", cookies, {**fields, "key": key})
        assert status == 303, page
        return {"tallybook_session": found["tallybook_session"]}

    async def show(self, cookies: Mapping[str, str], query: str = "") -> Page:
        """The dashboard."""
        status, _, text = await self.get(f"/dashboard{query}", cookies)
        assert status == 200, text
        return Page(text)


@pytest.fixture(scope="module")
async def site(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[Site]:
    rng, hands = random.Random(11), HandClock(NOW)
    services = replace(await api.make_services(database, redis_client), clock=hands)
    account = await api.make_account(database)
    async with postgres.transaction(database) as connection:
        made = await report_book.catalog(connection, account.tenant)
        await connection.execute("UPDATE tenants SET simulated_at = $2 WHERE id = $1", account.tenant.id, NOW)
    await report_book.write(database, report_book.records(made, 3_000, rng, _lately), rng)
    async with api.serving(services) as caller:
        yield Site(caller, services, account, hands)


def _lately(rng: random.Random) -> datetime:
    """The last weeks, and often the last day."""
    back = rng.choice((timedelta(days=33), timedelta(days=33), timedelta(hours=30)))
    return NOW - back * rng.random()


@pytest.fixture(autouse=True)
def right_time(site: Site) -> None:
    site.clock.shows = NOW


async def key_with(site: Site, permissions: Permissions | None, expires_in_days: int | None = None) -> Account:
    """Another key of the same sandbox."""
    async with postgres.transaction(site.database) as connection:
        made = await tenancy.create_api_key(
            connection, site.account.tenant, NOW, "another", permissions=permissions, expires_in_days=expires_in_days
        )
    return Account(site.account.tenant, made.key.id, made.text)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("picked", ["24h", "7d", "30d", "month"])
async def test_each_figure_is_the_one_that_the_api_answers(
    site: Site, picked: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutants: days of UTC in every zone; only the first page of AI costs; the chart's models without the others."""
    monkeypatch.setattr(figures, "_ROWS_AT_ONCE", 7)
    page = await site.show(await site.sign_in(site.account.key), f"?range={picked}&zone={zone}&by=cost")
    over = figures.span(figures.Choice(picked, zone), NOW)
    asked = {"from": clock.iso(over.starts_at), "to": clock.iso(over.ends_at), "timeZone": zone, "limit": "1000"}
    caller = Api(site.client, site.account.key)

    async def report(name: str, **params: str) -> Any:  # noqa: ANN401 - JSON
        answer = await caller.send("GET", f"/api/v1/reports/{name}", params={**asked, **params})
        assert answer.status == 200, answer.body
        return answer.body

    usage = await report("usage", groupBy=over.grain)
    shown = {row[0]: row[1] for row in page.tables["usage-table"].body}
    assert {name: int(events) for name, events in shown.items() if events != "0"} == {
        row[over.grain]: row["events"] for row in usage["data"] if row["events"]
    }
    assert sum(map(int, shown.values())) == usage["totals"]["events"] > 0

    models = await report("ai-costs", groupBy="model")
    found = {row[0]: row[1:] for row in page.tables["models-table"].body}
    names = ("cost", "charge", "margin", "events", "inputTokens", "outputTokens")
    assert found == {row["model"]: [str(row[name]) for name in names] for row in models["data"]}
    assert page.tables["models-table"].foot[1:] == [str(models["totals"][name]) for name in names]

    costs = await report("ai-costs", groupBy=f"{over.grain},model")
    head, *rows = page.tables["cost-table"].rows
    got = {(row[0], model): Decimal(cost) for row in rows for model, cost in zip(head[1:], row[1:], strict=True)}
    assert {key: cost for key, cost in got.items() if cost} == {
        (row[over.grain], row["model"]): Decimal(row["cost"]) for row in costs["data"] if Decimal(row["cost"])
    }
    assert sum(got.values()) == Decimal(costs["totals"]["cost"])

    customers = await report("top-customers", by="cost")
    assert [row[1:] for row in page.tables["customers-table"].body] == [
        [str(row[name]) for name in ("events", "charge", "cost", "credits")] for row in customers["data"] if row["cost"] != "0"
    ]
    assert page.tables["customers-table"].foot[1:] == [
        str(customers["totals"][name]) for name in ("events", "charge", "cost", "credits")
    ]


async def test_more_models_than_a_chart_can_tell_apart_are_one_series(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: the models beyond the first ones are left out of the stack."""
    monkeypatch.setattr("tallybook.entrypoints.http.dashboard.view._SERIES", 1)
    page = await site.show(await site.sign_in(site.account.key), "?range=30d")
    head, *rows = page.tables["cost-table"].rows
    assert head[1:] == [page.tables["models-table"].body[0][0], "Other models"]
    total = Decimal(page.tables["models-table"].foot[1])
    assert sum(Decimal(cell) for row in rows for cell in row[1:]) == total


async def test_hours_and_days_in_which_nothing_happened_are_shown_as_zero(site: Site) -> None:
    page = await site.show(await site.sign_in(site.account.key), "?range=24h&zone=Europe/Berlin")
    hours = [row[0] for row in page.tables["usage-table"].body]
    assert hours[0] == "2026-11-01T15:00+01:00"
    assert hours[-1] == "2026-11-02T14:00+01:00"
    assert len(hours) == 24
    days = [row[0] for row in (await site.show(await site.sign_in(site.account.key), "?range=30d")).tables["usage-table"].body]
    assert (len(days), days[0], days[-1]) == (30, "2026-10-04", "2026-11-02")


async def test_a_customers_name_is_never_read_as_html(site: Site) -> None:
    name = '<img src=x onerror="alert(1)">'
    await site.database.execute("UPDATE customers SET external_id = $1 WHERE external_id = 'user_0'", name)
    await site.database.execute("UPDATE organizations SET name = $1", f"{name} & Co")
    try:
        page = await site.show(await site.sign_in(site.account.key), "?range=30d&by=cost")
        assert name in page.text
        assert "x" not in page.links
    finally:
        await site.database.execute("UPDATE customers SET external_id = 'user_0' WHERE external_id = $1", name)
        await site.database.execute("UPDATE organizations SET name = 'Acme'")


@pytest.mark.parametrize("query", ["?range=99d", "?zone=Mars/Olympus", "?by=luck", "?zone=../../etc/passwd"])
async def test_what_there_is_not_to_pick_is_told(site: Site, query: str) -> None:
    status, _, text = await site.get(f"/dashboard{query}", await site.sign_in(site.account.key))
    assert status == 400
    assert "That did not work" in Page(text).text


async def test_without_a_session_there_is_only_the_form(site: Site) -> None:
    for path in ("/dashboard", "/dashboard?range=7d", "/dashboard/invoices/inv_1", "/dashboard/invoices/inv_1.pdf"):
        for cookies in ({}, {"tallybook_session": web_sessions.new_token()}, {"tallybook_session": "x"}):
            status, headers, _ = await site.get(path, cookies)
            assert (status, headers["Location"]) == (303, "/dashboard/sign-in")


async def test_the_cookie_holds_no_key_and_only_its_own_pages_get_it(site: Site) -> None:
    """Mutants: the key in the cookie; a cookie that scripts can read; one that another site can have sent."""
    cookies, fields = await site.form()
    _, headers, found, _ = await site.post("/dashboard/sign-in", cookies, {**fields, "key": site.account.key})
    cookie = next(value for name, value in headers.items() if name == "Set-Cookie" and "tallybook_session" in value)
    assert {"HttpOnly", "SameSite=Strict", "Path=/dashboard", "Max-Age=43200"} <= set(re.split(r";\s*", cookie))
    assert "Secure" not in cookie
    secret = site.account.key.removeprefix("ck_").split("_", 1)
    assert not any(part in cookie for part in secret)
    stored = await site.database.fetchval("SELECT string_agg(encode(digest, 'hex'), '') FROM web_sessions")
    assert found["tallybook_session"] not in stored


async def test_behind_https_the_cookie_stays_there(site: Site) -> None:
    cookies, fields = await site.form()
    answer = await site.post("/dashboard/sign-in", cookies, {**fields, "key": site.account.key}, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in next(value for name, value in answer[1].items() if name == "Set-Cookie")


async def test_a_wrong_key_is_told_and_soon_not_even_looked_up(site: Site) -> None:
    """Mutant: no limit."""
    async with api.serving(site.services) as fresh:
        other = replace(site, client=fresh)
        cookies, fields = await other.form()
        wrong = site.account.key[:-4] + "AAAA"
        for _ in range(10):
            status, _, found, text = await other.post("/dashboard/sign-in", cookies, {**fields, "key": wrong})
            assert (status, found.keys() & {"tallybook_session"}) == (401, set())
            assert "This key is unknown, expired or revoked." in Page(text).text
        status, headers, _, text = await other.post("/dashboard/sign-in", cookies, {**fields, "key": site.account.key})
        assert status == 429
        assert int(headers["Retry-After"]) >= 1
        assert "Too many wrong keys" in Page(text).text


async def test_right_keys_do_not_count_as_tries(site: Site) -> None:
    assert [bool(await site.sign_in(site.account.key)) for _ in range(12)]


@pytest.mark.parametrize(
    ("cookies", "changed", "headers"),
    [
        ({}, {}, {}),
        ({"tallybook_form": "another"}, {}, {}),
        (None, {"token": ""}, {}),
        (None, {"token": "0" * 64}, {}),
        (None, {}, {"Origin": "https://evil.example"}),
        (None, {}, {"Origin": "null"}),
        (None, {}, {"Sec-Fetch-Site": "cross-site"}),
        (None, {}, {"Sec-Fetch-Site": "same-site"}),
    ],
)
async def test_a_form_that_is_not_ours_is_refused(
    site: Site, cookies: dict[str, str] | None, changed: dict[str, str], headers: dict[str, str]
) -> None:
    """Mutants: any token will do; the origin is not looked at."""
    own, fields = await site.form()
    sent = {**fields, "key": site.account.key, **changed}
    status, _, found, _ = await site.post("/dashboard/sign-in", own if cookies is None else cookies, sent, **headers)
    assert (status, found) == (403, {})


async def test_a_session_ends_with_its_form_and_for_good(site: Site) -> None:
    """Mutants: signing out only drops the cookie; another session's form signs this one out."""
    cookies, other = await site.sign_in(site.account.key), await site.sign_in(site.account.key)
    token, foreign = [(await site.show(one)).fields["token"] for one in (cookies, other)]
    status, *_ = await site.post("/dashboard/sign-out", cookies, {"token": foreign})
    assert status == 403
    await site.show(cookies)
    status, headers, found, _ = await site.post("/dashboard/sign-out", cookies, {"token": token})
    assert (status, headers["Location"], found["tallybook_session"]) == (303, "/dashboard/sign-in", "")
    assert (await site.get("/dashboard", cookies))[0] == 303
    await site.show(other)


async def test_a_revoked_key_ends_its_sessions_at_once(site: Site) -> None:
    """Mutant: a session is remembered for a while."""
    key = await key_with(site, None)
    cookies = await site.sign_in(key.key)
    await site.show(cookies)
    async with postgres.transaction(site.database) as connection:
        await tenancy.revoke_api_key(connection, key.tenant, NOW, key.key_id)
    assert (await site.get("/dashboard", cookies))[0] == 303
    cookies, fields = await site.form()
    assert (await site.post("/dashboard/sign-in", cookies, {**fields, "key": key.key}))[0] == 401


async def test_a_session_is_over_after_twelve_hours_or_with_its_key(site: Site) -> None:
    lasting, short = await site.sign_in(site.account.key), await key_with(site, None, expires_in_days=1)
    site.clock.shows = NOW + timedelta(hours=15)
    late = await site.sign_in(short.key)
    assert (await site.get("/dashboard", lasting))[0] == 303
    await site.show(late)
    site.clock.shows = NOW + timedelta(hours=24)
    assert (await site.get("/dashboard", late))[0] == 303


async def test_a_key_has_no_more_sessions_than_it_may(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_sessions, "OF_A_KEY_MAX", 2)
    key = await key_with(site, None)
    cookies: list[dict[str, str]] = []
    for second in range(4):
        site.clock.shows = NOW + timedelta(seconds=second)
        cookies.append(await site.sign_in(key.key))
    assert [(await site.get("/dashboard", one))[0] for one in cookies] == [303, 303, 200, 200]


async def test_reading_is_enough_and_shows_what_may_be_read(site: Site) -> None:
    """Mutants: any key gets in; a key without invoices sees them."""
    read = frozenset({"read"})
    page = await site.show(await site.sign_in((await key_with(site, {"usage": read})).key), "?range=30d")
    assert page.text.count("may not read invoices") == 2
    assert "customers-table" not in page.tables
    assert page.tables["usage-table"].body
    cookies = await site.sign_in((await key_with(site, {"usage": read, "invoice": read})).key)
    assert "customers-table" in (await site.show(cookies, "?range=30d&by=cost")).tables
    cookies, fields = await site.form()
    unfit = await key_with(site, {"customer": frozenset({"read", "write"})})
    status, _, found, text = await site.post("/dashboard/sign-in", cookies, {**fields, "key": unfit.key})
    assert (status, "tallybook_session" in found) == (403, False)
    assert "may not read usage" in Page(text).text


async def test_a_session_shows_its_own_organization_and_mode_only(site: Site) -> None:
    stranger = await api.make_account(site.database, livemode=True)
    page = await site.show(await site.sign_in(stranger.key), "?range=30d")
    assert "No usage yet" in page.text
    assert page.tables == {}
    assert "Live" in page.text


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/sign-in", "/dashboard/invoices/inv_none", "/dashboard?range=no"])
async def test_no_page_runs_what_is_written_into_it(site: Site, path: str) -> None:
    """Mutants: inline scripts or styles are allowed; a page may be framed or cached."""
    cookies = await site.sign_in(site.account.key)
    _, headers, text = await site.get(path, cookies)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == (
        "no-store",
        "nosniff",
        "DENY",
    )
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", text)


async def test_scripts_and_styles_come_from_here_and_are_kept_for_good(site: Site) -> None:
    page = await site.show(await site.sign_in(site.account.key))
    files = [link for link in page.links if "/assets/" in link]
    assert len(files) == 5
    assert all(link.startswith(("/", "#")) for link in page.links)
    for path in files:
        status, headers, text = await site.get(path, {})
        assert (status, headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
        assert text
        again = await site.get(path, {}, **{"If-None-Match": headers["ETag"]})
        assert (again[0], again[2]) == (304, "")
    for path in ("/dashboard/assets/0000000000000000/dashboard.js", "/dashboard/assets/x/..%2f..%2fpages.py"):
        assert (await site.get(path, {}))[0] == 404


async def test_a_form_too_large_or_of_another_kind_is_refused(site: Site) -> None:
    cookies, fields = await site.form()
    assert (await site.post("/dashboard/sign-in", cookies, {**fields, "key": "x" * 5_000}))[0] == 413
    assert (await site.post("/dashboard/sign-in", cookies, {f"f{n}": "1" for n in range(20)}))[0] == 400
    sent = {"Cookie": f"tallybook_form={cookies['tallybook_form']}"}
    async with site.client.post("/dashboard/sign-in", json={**fields, "key": "x"}, headers=sent) as answer:
        assert answer.status == 400


async def test_more_pages_than_may_be_made_at_once_wait_and_then_are_told_to_come_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: any number of pages takes the connections that the API needs."""
    monkeypatch.setattr(pages_of_dashboard, "_QUEUE_S_MAX", 0.2)
    cookies, is_open, made = await site.sign_in(site.account.key), asyncio.Event(), figures.read

    async def slowly(*arguments: Any) -> figures.Figures:  # noqa: ANN401 - those of the function
        await is_open.wait()
        return await made(*arguments)

    monkeypatch.setattr(figures, "read", slowly)
    asked = [asyncio.create_task(site.get("/dashboard", cookies)) for _ in range(pages_of_dashboard.AT_ONCE_MAX + 1)]
    first, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    is_open.set()
    assert [task.result()[0] for task in first] == [429]
    assert sorted(answer[0] for answer in await asyncio.gather(*asked)) == [200, 200, 429]

"""The dashboard in a real browser: signing in by keyboard, charts, narrow and wide windows, light and dark, screen readers."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tallybook.ai_models import actions
from tallybook.core import clock
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.tenancy import actions as tenancy
from tests.support import api, billing, browser, waiting
from tests.support.billing import World
from tests.support.browser import Tab

PROGRAM = browser.program()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"no browser is installed: looked for {', '.join(browser.PROGRAMS)}")
MODELS = ("claude-sonnet-4-6", "gpt-4o", "gpt-4o-mini", "gemini-2.5-flash", "claude-haiku-4-5", "gpt-4.1", "gemini-2.5-pro")
WIDTHS = (400, 1600)
ENTER, TAB = ("Enter", 13, "\r"), ("Tab", 9)

TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CLIPPED = """[...document.querySelectorAll('.wide')].filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth)
  .map((one) => `${one.querySelector('table').id}: ${one.scrollWidth} in ${one.clientWidth}`)"""
PAINTED = """[...document.querySelectorAll('.plot canvas')].map((canvas) => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
})"""
# Contrast as WCAG defines it, of every piece of text against the nearest ground that is painted behind it.
POOR_CONTRAST = """(() => {
  const channels = (color) => (color.match(/[0-9.]+/g) ?? []).map(Number);
  const light = (color) => {
    const [red, green, blue] = channels(color).slice(0, 3).map((one) => {
      const share = one / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    for (let here = element; here; here = here.parentElement) {
      const color = getComputedStyle(here).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest('.unseen, option')) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) poor.push(`${walker.currentNode.textContent.trim()}: ${contrast.toFixed(2)}`);
  }
  return poor;
})()"""
FACTS = """({
  language: document.documentElement.lang,
  title: document.title,
  headings: [...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1])),
  landmarks: ['header', 'main', 'nav'].map((one) => document.querySelectorAll(`body ${one}`).length),
  unnamed: [...document.querySelectorAll('nav, section, [role=region], [role=img]')]
    .filter((one) => !one.ariaLabel && !document.getElementById(one.getAttribute('aria-labelledby'))).length,
  unlabelled: [...document.querySelectorAll('input:not([type=hidden]), select')].filter((one) => !one.labels.length).length,
  headless: [...document.querySelectorAll('table')]
    .filter((one) => !one.caption || [...one.querySelectorAll('th')].some((head) => !head.scope || !head.textContent.trim())).length,
  doubled: [...document.querySelectorAll('[id]')].map((one) => one.id).filter((id, place, every) => every.indexOf(id) !== place),
  live: document.querySelectorAll('[aria-live=polite]').length,
})"""
FOCUS = """(() => {
  const here = document.activeElement;
  const style = getComputedStyle(here);
  const name = here.id || here.textContent.trim().slice(0, 20) || here.tagName;
  return [name, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
})()"""


@dataclass(frozen=True, slots=True)
class Desk:
    """A world with a month of usage, and a browser that looks at it."""

    world: World
    tab: Tab
    url: str

    async def sign_in(self, key: str) -> None:
        """Type the key and press Enter, with nothing but the keyboard."""
        await self.tab.send("Network.clearBrowserCookies")
        await self.tab.open(f"{self.url}/dashboard")
        await waiting.until(self.is_in_the_field)
        await self.tab.type(key)
        async with self.tab.loading():
            await self.tab.press(*ENTER)

    async def is_in_the_field(self) -> bool:
        """Whether what is typed goes into the form."""
        return await self.tab.run("document.activeElement.id") == "key"

    async def look(self, width: int, query: str = "?range=7d", *, dark: bool = False) -> None:
        """Open the dashboard in a window of a width."""
        await self.tab.size(width, dark=dark)
        await self.tab.open(f"{self.url}/dashboard{query}")

    async def column(self, table: str, place: int) -> list[str]:
        """The exact values in a column of a table."""
        script = (
            f"[...document.querySelectorAll('#{table} tbody tr')].map((row) => row.cells[{place}].querySelector('data').value)"
        )
        found: list[str] = await self.tab.run(script)
        return found


@pytest.fixture(scope="module")
async def desk(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[Desk]:
    assert PROGRAM is not None
    async with billing.world(database, redis_client) as world, browser.opened(PROGRAM) as tab:
        async with postgres.transaction(database) as connection:
            await actions.load_packaged(connection, clock.real_clock)
        async with database.acquire() as connection:
            world.services.book = await actions.load_book(connection)
        await _live_a_month(world)
        made = Desk(world, tab, f"http://127.0.0.1:{world.api.client.port}")
        await tab.size(1600)
        await made.sign_in(world.account.key)
        tab.complaints.clear()
        yield made


async def _live_a_month(world: World) -> None:
    """Two customers with AI usage, one of whom has used up its balance; one with calls; and one renewal."""
    await world.stand_at("2026-10-10")
    await world.metered()
    await world.plan("ai", 5000, consumptionModel="balance", price_includedBalance=10_000)
    await world.feature("ai", "ai_chat", pricingMode="ai_model", margin=20)
    subscriptions = [await world.subscribe(plan) for plan in ("ai", "ai", "pro")]
    await world.advance_to("2026-11-18T14:20:00")
    for number in range(60):
        moment = f"2026-11-{11 + number % 8:02d}T{number % 14:02d}:30:00Z"
        owner = subscriptions[number % 5 % 2]["customer"]
        tokens = {"inputTokens": 9_000 * (1 + number % 4), "outputTokens": 900, "model": MODELS[number % 7]}
        event = {"customerId": owner, "featureCode": "ai_chat", "eventId": f"n{number}", "timestamp": moment, **tokens}
        await world.ask("POST", "/usage/events", event)
    await world.use(subscriptions[2]["customer"], "api_calls", 17)
    await world.caught_up()


async def test_somebody_with_a_keyboard_signs_in_and_out(desk: Desk) -> None:
    tab = desk.tab
    await desk.sign_in("ck_wrong")
    assert await tab.run("document.querySelector('[role=alert]').textContent") == "This key is unknown, expired or revoked."
    await waiting.until(desk.is_in_the_field)
    await tab.type(desk.world.account.key)
    async with tab.loading():
        await tab.press(*ENTER)
    assert await tab.run("location.pathname + document.querySelector('h1').textContent") == "/dashboardDashboard"
    assert await tab.run("document.cookie") == ""
    zone = await tab.run("Intl.DateTimeFormat().resolvedOptions().timeZone")
    assert await tab.run("document.querySelector('select[name=zone]').value") == zone
    async with tab.loading():
        await tab.run("document.querySelector('header button').click()")
    assert await tab.run("location.pathname") == "/dashboard/sign-in"
    await desk.look(1600)
    assert await tab.run("location.pathname") == "/dashboard/sign-in"
    await desk.sign_in(desk.world.account.key)
    tab.complaints.clear()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
async def test_nothing_is_wider_than_the_window_or_hard_to_read(desk: Desk, width: int, dark: bool) -> None:  # noqa: FBT001 - a case
    """Mutants: a table that widens the page; grey on grey; a chart that does not know the colours of the dark."""
    for query in ("?range=24h&zone=Asia/Kolkata", "?range=30d&zone=Europe/Berlin&by=events", "?range=month"):
        await desk.look(width, query, dark=dark)
        assert await desk.tab.run(TOO_WIDE) == 0
        await desk.tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert await desk.tab.run(TOO_WIDE) == 0
        assert await desk.tab.run(POOR_CONTRAST) == []


async def test_a_wide_window_shows_every_column(desk: Desk) -> None:
    """Mutant: a plan's name may not be broken."""
    await desk.look(1600)
    plans = "document.querySelectorAll('#invoices-table td:nth-child(3), #low-table td:nth-child(4)')"
    await desk.tab.run(
        f"{plans}.forEach((cell) => {{ cell.textContent = 'Enterprise with credits, priority support and seats' }})"
    )
    assert await desk.tab.run(CLIPPED) == []


async def test_the_figures_are_the_apis_and_the_charts_are_drawn_from_them(desk: Desk) -> None:
    await desk.look(1600, "?range=7d&zone=UTC")
    asked = {"from": "2026-11-12", "to": "2026-11-19"}
    usage = await desk.world.ask("GET", "/reports/usage", params={**asked, "groupBy": "day"})
    costs = await desk.world.ask("GET", "/reports/ai-costs", params={**asked, "groupBy": "model"})
    assert sum(map(int, await desk.column("usage-table", 1))) == usage["totals"]["events"] > 40
    series = await desk.tab.run("document.querySelectorAll('#cost-table thead th').length") - 1
    assert series == 6
    cells = [cell for place in range(1, series + 1) for cell in await desk.column("cost-table", place)]
    assert sum(map(Decimal, cells)) == Decimal(costs["totals"]["cost"]) > 0
    colors: list[int] = await desk.tab.run(PAINTED)
    assert len(colors) == 2
    assert colors[0] >= 3
    assert colors[1] > 6, "six series and the ground"


async def test_the_low_balance_and_the_invoices_are_there(desk: Desk) -> None:
    await desk.look(1600)
    low: list[str] = await desk.tab.run("[...document.querySelectorAll('#low-table tbody tr')].map((row) => row.textContent)")
    forecast = await desk.world.ask("GET", "/reports/forecast")
    expected = [
        row
        for row in forecast["data"]
        if Decimal(row["included"]) > 0 and (Decimal(row["included"]) - Decimal(row["used"])) * 5 <= Decimal(row["included"])
    ]
    assert len(low) == len(expected) > 0
    shown = [Decimal(cell) for cell in await desk.column("low-table", 1)]
    assert shown == sorted(Decimal(row["included"]) - Decimal(row["used"]) for row in expected)
    invoices = await desk.world.ask("GET", "/invoices")
    assert [Decimal(total) * 100 for total in await desk.column("invoices-table", 3)] == [
        one["total"] for one in invoices["data"]
    ]
    document = "fetch(document.querySelector('#invoices-table td:last-child a').href)"
    head = f"{document}.then(async (got) => [got.headers.get('content-type'), (await got.text()).slice(0, 5)])"
    assert await desk.tab.run(head) == ["application/pdf", "%PDF-"]
    async with desk.tab.loading():
        await desk.tab.run("document.querySelector('#invoices-table a').click()")
    assert await desk.tab.run("document.querySelector('h1').textContent") == f"Invoice {invoices['data'][0]['invoiceNumber']}"
    assert await desk.tab.run("getComputedStyle(document.querySelector('.head')).display") == "flex", "its style was refused"


async def test_a_refresh_shows_what_has_happened_and_says_so(desk: Desk) -> None:
    """Mutants: an opened table is closed; nobody is told; old charts stay."""
    await desk.look(1600, "?range=24h&zone=UTC")
    before = sum(map(int, await desk.column("usage-table", 1)))
    await desk.tab.run("document.getElementById('usage-figures').open = true")
    await desk.tab.run("document.querySelector('#usage-figures summary').focus()")
    reference = (await desk.world.ask("GET", "/customers"))["data"][0]["id"]
    await desk.world.use(reference, "api_calls", 1)
    await desk.world.caught_up()
    await desk.tab.run("document.getElementById('refresh').click()")

    async def is_told() -> bool:
        return str(await desk.tab.run("document.getElementById('told').textContent")).startswith("Figures updated")

    await waiting.until(is_told)
    assert sum(map(int, await desk.column("usage-table", 1))) == before + 1
    assert await desk.tab.run("document.getElementById('usage-figures').open")
    assert await desk.tab.run("document.activeElement.closest('details').id") == "usage-figures"
    assert await desk.tab.run("document.querySelectorAll('.plot canvas').length") == 2


async def test_a_pointer_over_a_bar_reads_its_exact_figures(desk: Desk) -> None:
    await desk.look(1600)
    await desk.tab.run("document.querySelector('#cost').scrollIntoView()")
    middle = "(({left, top, width, height}) => [left + width * 0.65, top + height / 2])"
    box: list[float] = await desk.tab.run(f"{middle}(document.querySelector('#cost .u-over').getBoundingClientRect())")
    await desk.tab.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    async def is_read() -> bool:
        return "$" in str(await desk.tab.run("document.querySelector('#cost .readout').textContent"))

    await waiting.until(is_read)


@pytest.mark.parametrize("path", ["/dashboard?range=7d", "/dashboard/sign-in"])
async def test_screen_readers_find_their_way(desk: Desk, path: str) -> None:
    """Mutants: a field without a label; a table without a caption; a heading left out; one id twice."""
    await desk.tab.open(f"{desk.url}{path}")
    facts: dict[str, Any] = await desk.tab.run(FACTS)
    is_form = "sign-in" in path
    assert facts["language"] == "en"
    assert facts["title"].endswith("Tallybook")
    assert facts["headings"][0] == 1
    assert facts["headings"].count(1) == 1
    assert all(level <= 2 for level in facts["headings"])
    assert facts["landmarks"] == [1, 1, 0 if is_form else 1]
    assert (facts["unnamed"], facts["unlabelled"], facts["headless"], facts["doubled"]) == (0, 0, 0, [])
    assert facts["live"] == (0 if is_form else 1)
    tree = await desk.tab.tree()
    roles = {"button", "link", "textbox", "combobox", "checkbox", "image", "region", "table", "columnheader", "rowheader"}
    nameless = [role for role, name in tree if role in roles and not name.strip()]
    assert nameless == []
    if not is_form:
        assert sum(role == "image" for role, _ in tree) == 2


async def test_every_stop_of_the_tab_key_can_be_seen_and_the_first_skips_the_header(desk: Desk) -> None:
    await desk.look(1600)
    stops: list[str] = []
    for _ in range(16):
        await desk.tab.press(*TAB)
        name, is_visible = await desk.tab.run(FOCUS)
        assert is_visible, name
        stops.append(name)
    assert stops[0] == "Skip to the figures"
    assert len(set(stops)) > 12
    await desk.look(1600)
    await desk.tab.press(*TAB)
    await desk.tab.press(*ENTER)
    assert await desk.tab.run("document.activeElement.id") == "main"


async def test_without_usage_it_says_how_to_send_the_first_event(desk: Desk) -> None:
    stranger = await api.make_account(desk.world.services.database)
    try:
        for width in WIDTHS:
            await desk.tab.size(width)
            await desk.sign_in(stranger.key)
            assert await desk.tab.run("document.getElementById('first-title').textContent") == "No usage yet"
            assert f"{desk.url}/api/v1/usage/events" in await desk.tab.run("document.querySelector('pre').textContent")
            assert await desk.tab.run(TOO_WIDE) == 0
            assert await desk.tab.run("document.querySelectorAll('.plot').length") == 0
    finally:
        await desk.sign_in(desk.world.account.key)


async def test_a_revoked_key_is_out_at_the_next_refresh(desk: Desk) -> None:
    world = desk.world
    async with postgres.transaction(world.services.database) as connection:
        made = await tenancy.create_api_key(connection, world.tenant, clock.real_clock(), "short", expires_in_days=None)
    await desk.sign_in(made.text)
    async with postgres.transaction(world.services.database) as connection:
        await tenancy.revoke_api_key(connection, world.tenant, clock.real_clock(), made.key.id)
    try:
        async with desk.tab.loading():
            await desk.tab.run("document.getElementById('refresh').click()")
        assert await desk.tab.run("location.pathname") == "/dashboard/sign-in"
    finally:
        await desk.sign_in(world.account.key)


async def test_the_browser_had_nothing_to_complain_about_and_asked_nobody_else(desk: Desk) -> None:
    """Mutants: an inline style; a script from elsewhere; an icon that is not there."""
    desk.tab.requests.clear()
    desk.tab.complaints.clear()
    for width in WIDTHS:
        await desk.look(width, "?range=30d")
        await desk.tab.run("document.querySelectorAll('summary').forEach((one) => one.click())")
    assert desk.tab.complaints == []
    assert len(desk.tab.requests) > 5
    assert [url for url in desk.tab.requests if not url.startswith(desk.url)] == []

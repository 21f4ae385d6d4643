"""The page with the figures. Each chart is drawn by the script from the table under it, so both say the same. Pure."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from tallybook.entrypoints.http.dashboard import figures, layout, numbers
from tallybook.entrypoints.http.dashboard.figures import LOW_PERCENT, RANGES, RANKINGS, TOP, Choice, Figures
from tallybook.entrypoints.http.dashboard.markup import Child, Markup, element, together
from tallybook.entrypoints.http.dashboard.security import PATH
from tallybook.reports import rules
from tallybook.reports.model import Grain

Row = dict[str, Any]
_SERIES = 5
"""Models that a chart tells apart; the others are one more series."""
_LEVEL_S = 2.0
_FULL = 100


def page(shown: Figures, form_token: str, url: str) -> bytes:
    """The whole page. `url` is where the API is, for the example."""
    sections = (
        _tiles(shown),
        together(_usage(shown), _costs(shown), _models(shown), _customers(shown)) if shown.has_usage else _first_event(url),
        _low(shown),
        _invoices(shown),
    )
    content = element("div", sections, id="figures")
    return layout.page("Dashboard", _header(shown, form_token), [_toolbar(shown), content], with_charts=True)


def _header(shown: Figures, form_token: str) -> Markup:
    mode = "Live" if shown.livemode else "Sandbox"
    sign_out = element(
        "form",
        layout.hidden("token", form_token),
        element("button", "Sign out", type="submit", class_="plain"),
        method="post",
        action=f"{PATH}/sign-out",
    )
    who = element("span", shown.organization, " ", element("span", mode, class_=f"mode {mode.lower()}"), class_="who")
    return together(layout.brand(), who, sign_out)


def _toolbar(shown: Figures) -> Markup:
    picked = shown.choice
    ranges = element(
        "nav",
        [
            element("a", name, href=_link(picked, word), aria_current="page" if word == picked.range else None)
            for word, name in RANGES.items()
        ],
        aria_label="Range",
        class_="ranges",
    )
    choose = element(
        "form",
        layout.hidden("range", picked.range),
        element("label", "Time zone ", _select("zone", {name: name for name in zones()}, picked.zone)),
        element("label", "Rank customers by ", _select("by", RANKINGS, picked.by)),
        element("button", "Apply", type="submit"),
        method="get",
        action=PATH,
        class_="choose",
    )
    local = shown.now.astimezone(rules.zone(picked.zone))
    freshness = element(
        "div",
        element("span", f"As of {local:%d %b %Y, %H:%M:%S} {picked.zone}", id="as-of"),
        element("button", "Refresh", type="button", id="refresh", hidden=True),
        element("label", element("input", type="checkbox", id="every-minute"), " every minute", id="every", hidden=True),
        element("span", role="status", aria_live="polite", id="told", class_="unseen"),
        class_="fresh",
    )
    return together(element("h1", "Dashboard"), element("div", ranges, choose, freshness, class_="toolbar"))


def _link(picked: Choice, word: str) -> str:
    return f"{PATH}?range={word}&zone={picked.zone}&by={picked.by}"


def _select(name: str, options: dict[str, str], value: str) -> Markup:
    chosen = [element("option", text, value=word, selected=word == value) for word, text in options.items()]
    return element("select", chosen, name=name)


@cache
def zones() -> tuple[str, ...]:
    """Time zones to pick from."""
    return ("UTC", *sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/"))))


def _tiles(shown: Figures) -> Markup:
    costs, usage = shown.models.totals, shown.usage.totals
    tokens = costs["inputTokens"] + costs["outputTokens"]
    tiles = (
        ("Events", numbers.count(usage["events"]), None),
        ("Charged", numbers.money(usage["charge"]), "from balances, AI and other"),
        ("AI cost", numbers.money(costs["cost"]), f"for {numbers.short(tokens)} tokens"),
        ("AI margin", numbers.money(costs["margin"]), _share(costs["marginPercent"])),
        ("Rollup lag", *_lag(shown)),
    )
    return element(
        "section",
        element("h2", "At a glance", id="glance", class_="unseen"),
        element("dl", [_tile(*tile) for tile in tiles], class_="tiles"),
        aria_labelledby="glance",
    )


def _share(percent: str | None) -> str | None:
    return None if percent is None else f"{percent} % of what AI was charged"


def _tile(name: str, value: Child, note: str | None) -> Markup:
    more = None if note is None else element("dd", note, class_="quiet")
    return element("div", element("dt", name), element("dd", value, class_="value"), more)


def _lag(shown: Figures) -> tuple[Child, str]:
    if shown.waiting is None:
        return "unknown", "the till does not answer"
    if shown.waiting == 0:
        return "none", "the book has everything"
    age = "under 2 s" if shown.lag_s < _LEVEL_S else f"{shown.lag_s:.0f} s"
    return age, f"{shown.waiting:,} entries wait to be booked"


def _usage(shown: Figures) -> Markup:
    grain = shown.span.grain
    found = {row[grain]: row for row in shown.usage.data}
    cells = [[numbers.count(found[name]["events"] if name in found else 0)] for name, _ in shown.buckets]
    return _chart(shown, "usage", f"Events by {grain}", ["Events"], cells, None)


def _costs(shown: Figures) -> Markup:
    """AI cost by time, of the dearest models and all others together."""
    grain = shown.span.grain
    named = [row["model"] for row in shown.models.data[:_SERIES]]
    costs: dict[tuple[str, str | None], Decimal] = {}
    others = False
    for row in shown.costs.data:
        model = row["model"] if row["model"] in named else _OTHERS
        others = others or model is _OTHERS
        costs[row[grain], model] = costs.get((row[grain], model), Decimal(0)) + Decimal(row["cost"])
    series = [*named, _OTHERS] if others else named
    cells = [[numbers.money(f"{costs.get((name, one), Decimal(0)):f}") for one in series] for name, _ in shown.buckets]
    return _chart(shown, "cost", f"AI cost by {grain} and model", [one or "no model" for one in series], cells, "$")


_OTHERS = "Other models"


def _chart(
    shown: Figures, name: str, title: str, series: Sequence[str], cells: Sequence[Sequence[Markup]], unit: str | None
) -> Markup:
    if not series:
        return _section(name, title, element("p", "Nothing in this range.", class_="quiet"))
    stacked = len(series) > 1
    legend = [element("li", element("span", class_=f"swatch s{place}"), one) for place, one in enumerate(series, 1)]
    about = f"Bar chart: {title.lower()}. The table below has the same figures."
    plot = element("div", role="img", aria_label=about, class_="plot", data_table=f"{name}-table", data_unit=unit)
    readout = element("p", class_="readout quiet", aria_hidden="true")
    heads = ["Hour" if shown.span.grain is Grain.HOUR else "Day", *series]
    rows = [[_time(shown, bucket, start), *row] for (bucket, start), row in zip(shown.buckets, cells, strict=True)]
    table = _table(f"{name}-table", title, heads, rows)
    below = element("details", element("summary", "Figures as a table"), table, id=f"{name}-figures")
    return _section(name, title, plot, readout, element("ul", legend, class_="legend") if stacked else None, below)


def _time(shown: Figures, bucket: str, start: Any) -> Markup:  # noqa: ANN401 - a datetime
    local = start.astimezone(rules.zone(shown.choice.zone))
    text = f"{local:%H:%M}" if shown.span.grain is Grain.HOUR else f"{local:%a %d %b}"
    return element("time", text, datetime=bucket, title=bucket)


def _section(name: str, title: str, *children: Child) -> Markup:
    return element(
        "section", element("h2", title, id=f"{name}-title"), children, id=name, aria_labelledby=f"{name}-title", class_="card"
    )


def _table(name: str, title: str, heads: Sequence[str], rows: Iterable[Sequence[Child]], foot: Sequence[Child] = ()) -> Markup:
    """A table whose first column names its rows; it scrolls by itself where it is too wide."""
    top = element("thead", element("tr", [element("th", head, scope="col") for head in heads]))
    body = element("tbody", [_row(row) for row in rows])
    end = element("tfoot", _row(foot)) if foot else None
    table = element("table", element("caption", title, class_="unseen"), top, body, end, id=name)
    return element("div", table, class_="wide", role="region", tabindex="0", aria_label=f"Table: {title}")


def _row(cells: Sequence[Child]) -> Markup:
    return element("tr", element("th", cells[0], scope="row"), [element("td", cell) for cell in cells[1:]])


def _with_bar(name: Child, value: Decimal, most: Decimal) -> Markup:
    """A name, and a bar for the eye; the figure stands beside it."""
    width = max(Decimal(0), value) * _FULL / most if most > 0 else Decimal(0)
    rect = element("rect", width=f"{width:.2f}", height="6")
    svg = element(
        "svg", rect, viewBox="0 0 100 6", preserveAspectRatio="none", class_="bar", aria_hidden="true", focusable="false"
    )
    return together(name, svg)


def _models(shown: Figures) -> Markup:
    title = "AI cost by model"
    if not shown.models.data:
        return _section("models", title, element("p", "No AI usage in this range.", class_="quiet"))
    most = max(Decimal(row["cost"]) for row in shown.models.data)
    heads = ["Model", "AI cost", "Charge", "Margin", "Events", "Input tokens", "Output tokens"]
    rows = [[_with_bar(row["model"] or "no model", Decimal(row["cost"]), most), *_model_cells(row)] for row in shown.models.data]
    more = (
        element("p", f"The {TOP} dearest models; the last row is all of them.", class_="quiet") if shown.models.has_more else None
    )
    foot = ["All models", *_model_cells(shown.models.totals)]
    return _section("models", title, _table("models-table", title, heads, rows, foot), more)


def _model_cells(row: Row) -> list[Child]:
    money = [numbers.money(row[name]) for name in ("cost", "charge", "margin")]
    return [*money, *(numbers.count(row[name]) for name in ("events", "inputTokens", "outputTokens"))]


def _customers(shown: Figures) -> Markup:
    by = shown.choice.by
    title = f"Top {TOP} customers by {RANKINGS[by]}"
    if shown.customers is None:
        return _section("customers", title, _not_allowed("invoices"))
    rows = [row for row in shown.customers.data if Decimal(row[by])]
    if not rows:
        return _section("customers", title, element("p", f"No customer has any {RANKINGS[by]} in this range.", class_="quiet"))
    most = Decimal(rows[0][by])
    heads = ["Customer", "Events", "Charge", "AI cost", "Credits"]
    shown_rows = [[_with_bar(_customer(row), Decimal(row[by]), most), *_customer_cells(row)] for row in rows]
    foot = ["All customers", *_customer_cells(shown.customers.totals)]
    return _section("customers", title, _table("customers-table", title, heads, shown_rows, foot))


def _customer_cells(row: Row) -> list[Child]:
    return [
        numbers.count(row["events"]),
        numbers.money(row["charge"]),
        numbers.money(row["cost"]),
        numbers.plain(row["credits"]),
    ]


def _customer(row: Row) -> Markup:
    return element("span", row["externalId"] or row["customerId"], title=row["customerId"])


def _low(shown: Figures) -> Markup:
    title = "Balances running low"
    if not shown.low:
        return _section("low", title, element("p", f"Nobody has less than {LOW_PERCENT} % left.", class_="quiet"))
    heads = ["Customer", "Left", "Of", "Plan", "Runs out"]
    rows = [
        [
            _with_bar(_customer(row), Decimal(row["left"]), Decimal(row["included"])),
            numbers.amount(row["kind"], row["left"]),
            numbers.amount(row["kind"], row["included"]),
            together(row["planCode"], element("span", f" {row['featureCode']}", class_="quiet") if row["featureCode"] else None),
            _runs_out(shown, row),
        ]
        for row in shown.low
    ]
    return _section("low", title, _table("low-table", title, heads, rows))


def _runs_out(shown: Figures, row: Row) -> Child:
    if Decimal(row["left"]) <= 0:
        return element("strong", "used up")
    if row["runsOutAt"] is None:
        return "after the period, at this rate"
    return together(numbers.day(row["runsOutAt"], shown.choice.zone), ", at this rate")


def _invoices(shown: Figures) -> Markup:
    title = "Latest invoices"
    if shown.latest is None:
        return _section("invoices", title, _not_allowed("invoices"))
    if not shown.latest:
        return _section("invoices", title, element("p", "No invoice yet.", class_="quiet"))
    rows = [
        [
            element("a", invoice.number_text, href=f"{PATH}/invoices/{invoice.public_id}"),
            element("span", invoice.customer_public_id, class_="code"),
            invoice.plan_name,
            numbers.money(figures.invoice_total(invoice)),
            invoice.status.capitalize(),
            numbers.day(figures.iso(invoice.issued_at), shown.choice.zone),
            element("a", "PDF", href=f"{PATH}/invoices/{invoice.public_id}.pdf", aria_label=f"PDF of {invoice.number_text}"),
        ]
        for invoice in shown.latest
    ]
    heads = ["Invoice", "Customer", "Plan", "Total", "Status", "Issued", "PDF"]
    return _section("invoices", title, _table("invoices-table", title, heads, rows))


def _not_allowed(what: str) -> Markup:
    return element("p", f"The key you signed in with may not read {what}.", class_="quiet")


def _first_event(url: str) -> Markup:
    """What to do when there is nothing to show."""
    example = f"""curl -X POST {url}/api/v1/usage/events \\
  -H "x-api-key: $KEY" -H "Content-Type: application/json" \\
  -d '{{"featureCode": "ai_chat", "customerId": "user_123",
       "eventId": "req_1", "model": "anthropic/claude-sonnet-4.6",
       "inputTokens": 10000, "outputTokens": 2000}}'"""
    return _section(
        "first",
        "No usage yet",
        element(
            "p", "Figures appear here a second or two after the first event. Send one for a customer who has a subscription:"
        ),
        element("pre", element("code", example), tabindex="0", aria_label="Example"),
        element(
            "p",
            "Features, plans, customers and subscriptions are made by the API too: see ",
            element("a", "its description", href="/docs"),
            ".",
        ),
    )

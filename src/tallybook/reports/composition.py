"""From a question to one SQL statement: templates of queries.sql, filled with what is grouped by and filtered. Pure.

Facts are summed by ids first, names are joined to the few rows that remain. Values travel as parameters; the only texts that are
put into SQL are the ones in this file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tallybook.core import clock, pools
from tallybook.core.pools import PoolKind
from tallybook.reports import rules
from tallybook.reports.model import Column, EventFilters, Grain, Question, ReportName, Unit, Value


class Source(StrEnum):
    """Where a report's facts come from."""

    HOURS = "hourly_facts"
    EVENTS = "event_facts"
    INVOICES = "invoice_facts"


_MOMENT = {Source.HOURS: "h.hour", Source.EVENTS: "e.occurred_at", Source.INVOICES: "i.billed_at"}
_TABLE = {Source.HOURS: "h", Source.EVENTS: "e", Source.INVOICES: "i"}
_FEATURE = {Source.HOURS: "h.feature_id", Source.EVENTS: "e.feature_id", Source.INVOICES: "l.feature_id"}
_PAYING = "split_part(e.pool, '.', 1)::bigint"
"""The subscription whose pool paid for a raw event."""
_VENDOR = "CASE WHEN strpos({model}, '/') > 0 THEN split_part({model}, '/', 1) ELSE '' END"
_PROPERTIES = """CASE e.kind WHEN 5 THEN (
        SELECT o.properties FROM usage_events AS o
        WHERE o.customer_id = e.customer_id AND o.occurred_at = e.occurred_at AND o.kind = 0 AND o.partition = e.partition
            AND o.seq || '-' || o.position = e.voids
    ) ELSE e.properties END"""
"""A void has the properties of what it takes back."""
_JOINS = {
    "customers": "INNER JOIN customers AS c ON c.id = f.customer_id",
    "features": "LEFT JOIN features AS ft ON ft.id = f.feature_id",
    "prices": """LEFT JOIN (
        SELECT id, model_id FROM ai_model_prices UNION ALL SELECT id, pattern FROM ai_price_overrides
    ) AS m ON m.id = f.price_id""",
    "payers": "LEFT JOIN subscriptions AS s ON s.id = f.subscription_id",
    # A period is named by the second it starts in, and belongs to the subscription that ran then.
    "runners": """LEFT JOIN subscriptions AS s ON s.customer_id = f.customer_id
        AND date_trunc('second', s.started_at) <= f.period_start
        AND (s.ended_at IS NULL OR f.period_start < date_trunc('second', s.ended_at))""",
    "plans": "LEFT JOIN plans AS p ON p.id = s.plan_id",
}
_MODELS_LIKE = """h.price_id IN (
        SELECT id FROM ai_model_prices WHERE {catalog} UNION ALL
        SELECT id FROM ai_price_overrides WHERE tenant_id = {tenant} AND {own}
    )"""
_PLANS_LIKE = """{subscription} IN (
        SELECT s.id FROM subscriptions AS s INNER JOIN plans AS p ON p.id = s.plan_id WHERE s.tenant_id = {tenant} AND p.code = {code}
    )"""

_TOKENS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadTokens": "cache_read_tokens",
    "cacheWriteTokens": "cache_write_tokens",
}
_SPLIT_TOKENS = {"cacheWrite1hTokens": "cache_write_1h_tokens", "webSearches": "web_searches"}
_UNIT_PRICES = {
    "inputPrice": ("input_pico", Unit.PICO_PER_TOKEN),
    "outputPrice": ("output_pico", Unit.PICO_PER_TOKEN),
    "cacheReadPrice": ("cache_read_pico", Unit.PICO_PER_TOKEN),
    "cacheWritePrice": ("cache_write_pico", Unit.PICO_PER_TOKEN),
    "cacheWrite1hPrice": ("cache_write_1h_pico", Unit.PICO_PER_TOKEN),
    "webSearchPrice": ("web_search_pico", Unit.PICO),
    "appliedMarginPercent": ("margin_bps", Unit.BPS),
}
_AI_REPORTS: frozenset[ReportName] = frozenset({"ai-costs", "margin"})
_BY_PLAN_MODEL: frozenset[ReportName] = frozenset({"usage", "top-customers"})
"""Reports that tell money from credits."""


@dataclass(slots=True)
class Arguments:
    """The parameters of a statement in the order of their places."""

    values: list[object] = field(default_factory=list[object])

    def add(self, value: object, kind: str) -> str:
        """The place of a value."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


@dataclass(frozen=True, slots=True)
class Composed:
    """A question in SQL: the statement up to its grouped rows, the columns of these, and the parameters."""

    grouped: str
    keys: tuple[Column, ...]
    measures: tuple[Column, ...]
    arguments: Arguments


@dataclass(slots=True)
class _Parts:
    """What the words of a question ask for. `ids` are what facts are summed by, `keys` what rows are."""

    ids: dict[str, str] = field(default_factory=dict[str, str])
    keys: list[tuple[Column, str]] = field(default_factory=list[tuple[Column, str]])
    joins: list[str] = field(default_factory=list[str])

    def join(self, *names: str) -> None:
        self.joins += [name for name in names if name not in self.joins]


def compose(question: Question, source: Source, templates: Mapping[str, str]) -> Composed:
    """The statement of a question. `templates` are those of queries.sql."""
    arguments, parts = Arguments(), _Parts()
    tenant = arguments.add(question.tenant.id, "integer")
    where = _conditions(question, source, arguments, tenant)
    for word in question.group_by:
        _add_word(parts, word, question, source, arguments)
    named_where = _named_conditions(question, source, parts, arguments)
    if source is Source.HOURS and question.report in _BY_PLAN_MODEL:
        _know_plan(parts, source)
    measures = _measures(question, source)
    facts = _fill(
        templates[source],
        ids="".join(f"{expression} AS {name}, " for name, expression in parts.ids.items()),
        where=" AND ".join(where),
        group=_group_by(len(parts.ids)),
    )
    grouped = _fill(
        templates["grouped"],
        facts=facts,
        keys="".join(f'{expression} AS "{column.key}", ' for column, expression in parts.keys),
        measures=", ".join(f'coalesce({expression}, 0) AS "{column.key}"' for column, expression in measures),
        joins="\n    ".join(_JOINS[name] for name in parts.joins),
        where=" AND ".join(named_where) or "true",
        group=_group_by(len(parts.keys)),
    )
    return Composed(grouped, tuple(column for column, _ in parts.keys), tuple(column for column, _ in measures), arguments)


def page(
    composed: Composed, templates: Mapping[str, str], after: Sequence[Value], limit: int, ranked_by: str | None, skipped: int
) -> str:
    """The statement for one page and the totals; it starts after these keys, or behind `skipped` rows of a ranking."""
    arguments, names = composed.arguments, [f'g."{column.key}"' for column in composed.keys]
    order = ", ".join(names) or "1"
    beyond = ""
    if ranked_by is not None:
        order = f'g."{ranked_by}" DESC, {order}'
    elif after and names:
        places = [arguments.add(value, _SQL_TYPE[column.unit]) for column, value in zip(composed.keys, after, strict=True)]
        beyond = f"WHERE ({', '.join(names)}) > ({', '.join(places)})"
    return _fill(
        templates["page"],
        grouped=composed.grouped,
        after=beyond,
        order=order,
        limit=arguments.add(limit, "integer"),
        offset=f"OFFSET {arguments.add(skipped, 'bigint')}" if skipped else "",
        nulls="".join(f"NULL::{_SQL_TYPE[column.unit]}, " for column in composed.keys),
        totals=", ".join(f'coalesce(sum("{column.key}"), 0)' for column in composed.measures),
    )


def every_row(composed: Composed, templates: Mapping[str, str], ranked_by: str | None) -> str:
    """The statement for all rows."""
    names = [f'g."{column.key}"' for column in composed.keys]
    order = ", ".join([*([f'g."{ranked_by}" DESC'] if ranked_by else []), *names])
    return _fill(templates["every_row"], grouped=composed.grouped, order=order or "1")


_SQL_TYPE = {
    Unit.TEXT: "text",
    Unit.COUNT: "bigint",
    Unit.NANO: "numeric",
    Unit.PICO: "bigint",
    Unit.PICO_PER_TOKEN: "bigint",
    Unit.BPS: "integer",
    Unit.INSTANT: "timestamptz",
    Unit.BUCKET: "timestamptz",
}


def _fill(template: str, **words: str) -> str:
    for name, text in words.items():
        template = template.replace("{" + name + "}", text)
    return template


def _group_by(number: int) -> str:
    return "GROUP BY " + ", ".join(map(str, range(1, number + 1))) if number else ""


def _conditions(question: Question, source: Source, arguments: Arguments, tenant: str) -> list[str]:
    filters, table, moment = question.filters, _TABLE[source], _MOMENT[source]
    found = [
        f"{table}.tenant_id = {tenant}",
        f"{moment} >= {arguments.add(question.starts_at, 'timestamptz')}",
        f"{moment} < {arguments.add(question.ends_at, 'timestamptz')}",
    ]
    if filters.customer_id is not None:
        found.append(f"{table}.customer_id = {arguments.add(filters.customer_id, 'bigint')}")
    if filters.feature_ids is not None:
        found.append(f"{_FEATURE[source]} = ANY ({arguments.add(list(filters.feature_ids), 'integer[]')})")
    if filters.period_start is not None:
        found.append(f"{table}.period_start = {arguments.add(filters.period_start, 'timestamptz')}")
    if filters.pool is not None:
        found += _pool_conditions(filters.pool, source, arguments)
    if question.report in _AI_REPORTS:
        found.append(f"{table}.price_id <> 0")
    found += _model_conditions(question, source, arguments, tenant)
    if filters.plan_code is not None and source is not Source.HOURS:
        paying = _PAYING if source is Source.EVENTS else "i.subscription_id"
        code = arguments.add(filters.plan_code, "text")
        found.append(_fill(_PLANS_LIKE, subscription=paying, tenant=tenant, code=code))
    if filters.property is not None:
        name, value = arguments.add(filters.property.name, "text"), arguments.add(filters.property.value, "text")
        found.append(f"({_PROPERTIES}) ->> {name} = {value}")
    return found


def _pool_conditions(pool: str, source: Source, arguments: Arguments) -> list[str]:
    """Hourly totals know the pool of a customer by its period, and by its feature where it holds units of one."""
    if source is Source.EVENTS:
        return [f"e.pool = {arguments.add(pool, 'text')}"]
    name = pools.parse(pool)
    start = clock.from_ms(name.period_start_s * 1000)
    found = [f"h.period_start = {arguments.add(start, 'timestamptz')}"]
    if name.kind is PoolKind.FEATURE:
        found.append(f"h.feature_id = {arguments.add(name.feature_id, 'integer')}")
    return found


def events(
    which: EventFilters, templates: Mapping[str, str], before: tuple[datetime, int, int, int] | None, limit: int | None
) -> Composed:
    """The statement that lists single records; without a limit all of them."""
    arguments = Arguments()
    where = _event_conditions(which, arguments)
    if before is not None:
        kinds = ("timestamptz", "integer", "bigint", "integer")
        places = ", ".join(arguments.add(value, kind) for value, kind in zip(before, kinds, strict=True))
        where.append(f"(e.occurred_at, e.partition, e.seq, e.position) < ({places})")
    statement = _fill(
        templates["events"],
        keys="c.public_id AS customer, c.external_id AS external, ft.code AS feature, p.code AS plan",
        where=" AND ".join(where),
        limit="" if limit is None else f"LIMIT {arguments.add(limit, 'integer')}",
    )
    return Composed(statement, (), (), arguments)


def _event_conditions(which: EventFilters, arguments: Arguments) -> list[str]:
    filters = which.filters
    found = [
        f"e.tenant_id = {arguments.add(which.tenant.id, 'integer')}",
        f"e.kind = ANY ({arguments.add(list(which.kinds), 'integer[]')})",
    ]
    tests: list[tuple[str, object, str]] = [
        ("e.occurred_at >= {}", which.starts_at, "timestamptz"),
        ("e.occurred_at < {}", which.ends_at, "timestamptz"),
        ("e.customer_id = {}", filters.customer_id, "bigint"),
        ("e.feature_id = ANY ({})", None if filters.feature_ids is None else list(filters.feature_ids), "integer[]"),
        ("e.model = {}", filters.model, "text"),
        (_fill(_VENDOR, model="e.model") + " = {}", filters.provider, "text"),
        ("p.code = {}", filters.plan_code, "text"),
        ("e.period_start = {}", filters.period_start, "timestamptz"),
        ("e.pool = {}", filters.pool, "text"),
    ]
    found += [test.replace("{}", arguments.add(value, kind)) for test, value, kind in tests if value is not None]
    if filters.property is not None:
        name, value = arguments.add(filters.property.name, "text"), arguments.add(filters.property.value, "text")
        found.append(f"({_PROPERTIES}) ->> {name} = {value}")
    return found


def _model_conditions(question: Question, source: Source, arguments: Arguments, tenant: str) -> list[str]:
    found: list[str] = []
    for value, shape in ((question.filters.model, "{model}"), (question.filters.provider, _VENDOR)):
        if value is None:
            continue
        place = arguments.add(value, "text")
        if source is Source.HOURS:
            catalog, own = (f"{_fill(shape, model=column)} = {place}" for column in ("model_id", "pattern"))
            found.append(_fill(_MODELS_LIKE, catalog=catalog, own=own, tenant=tenant))
        else:
            found.append(f"{_fill(shape, model='e.model')} = {place}")
    return found


def _named_conditions(question: Question, source: Source, parts: _Parts, arguments: Arguments) -> list[str]:
    if question.filters.plan_code is None or source is not Source.HOURS:
        return []
    _know_plan(parts, source)
    return [f"p.code = {arguments.add(question.filters.plan_code, 'text')}"]


def _know_plan(parts: _Parts, source: Source) -> None:
    """Join the plan of the subscription that paid."""
    if source is Source.HOURS:
        parts.ids |= {"customer_id": "h.customer_id", "period_start": "h.period_start"}
        parts.join("runners", "plans")
    else:
        parts.ids["subscription_id"] = _PAYING if source is Source.EVENTS else "i.subscription_id"
        parts.join("payers", "plans")


def _add_word(parts: _Parts, word: str, question: Question, source: Source, arguments: Arguments) -> None:
    if word in Grain.__members__.values():
        parts.ids[f"bucket_{word}"] = f"date_trunc('{word}', {_MOMENT[source]}, {arguments.add(question.zone, 'text')})"
        parts.keys.append((Column(word, Unit.BUCKET, Grain(word)), f"f.bucket_{word}"))
    elif word.startswith(rules.PROPERTY):
        name = f"property_{len(parts.keys)}"
        parts.ids[name] = f"coalesce(({_PROPERTIES}) ->> {arguments.add(word.removeprefix(rules.PROPERTY), 'text')}, '')"
        parts.keys.append((Column(word, Unit.TEXT, alias=name), f"f.{name}"))
    elif word == rules.UNIT_PRICE:
        for column, (name, unit) in _UNIT_PRICES.items():
            parts.ids[name] = f"e.{name}"
            parts.keys.append((Column(column, unit), f"f.{name}"))
    else:
        _add_name(parts, word, source)


def _add_name(parts: _Parts, word: str, source: Source) -> None:
    column = Column(word, Unit.TEXT)
    if word == "customerId":
        parts.ids["customer_id"] = f"{_TABLE[source]}.customer_id"
        parts.join("customers")
        parts.keys += [(column, "c.public_id"), (Column("externalId", Unit.TEXT), "coalesce(c.external_id, '')")]
    elif word == "featureCode":
        parts.ids["feature_id"] = _FEATURE[source]
        parts.join("features")
        parts.keys.append((column, "coalesce(ft.code, '')"))
    elif word == "planCode":
        _know_plan(parts, source)
        parts.keys.append((column, "coalesce(p.code, '')"))
    elif word == "lineType":
        parts.ids["line_type"] = "l.line_type"
        parts.keys.append((column, "f.line_type"))
    else:
        parts.keys.append((column, f"coalesce({_model_of(parts, word, source)}, '')"))


def _model_of(parts: _Parts, word: str, source: Source) -> str:
    if source is Source.HOURS:
        parts.ids["price_id"] = "h.price_id"
        parts.join("prices")
        model = "m.model_id"
    else:
        parts.ids["model"] = "e.model"
        model = "f.model"
    return model if word == "model" else _fill(_VENDOR, model=model)


def _measures(question: Question, source: Source) -> list[tuple[Column, str]]:
    if source is Source.INVOICES:
        lines = [(Column("lines", Unit.COUNT), "sum(f.lines)")]
        return lines + [(Column(name, Unit.NANO), f"sum(f.{name})") for name in ("base", "overage", "revenue")]
    charge, credit = _paid(question, source)
    events = (Column("events", Unit.COUNT), "sum(f.events)")
    cost = (Column("cost", Unit.NANO), "sum(f.cost)")
    charged = (Column("charge", Unit.NANO), charge)
    margin = (Column("margin", Unit.NANO), f"coalesce({charge}, 0) - coalesce(sum(f.cost), 0)")
    tokens = [(Column(name, Unit.COUNT), f"sum(f.{column})") for name, column in _TOKENS.items()]
    if question.report == "margin":
        return [events, cost, charged, margin]
    if question.report == "ai-costs":
        split = rules.UNIT_PRICE in question.group_by
        more = [(Column(name, Unit.COUNT), f"sum(f.{column})") for name, column in _SPLIT_TOKENS.items()] if split else []
        return [events, *tokens, *more, cost, margin, charged]
    quantity = (Column("quantity", Unit.NANO), "sum(f.quantity)")
    return [events, quantity, charged, (Column("credits", Unit.NANO), credit), cost, *tokens]


def _paid(question: Question, source: Source) -> tuple[str, str]:
    """What was taken in money, and in credits; what is priced by AI model is always paid in money."""
    if source is Source.EVENTS:
        return "sum(f.charge)", "sum(f.credits)"
    if question.report in _AI_REPORTS:
        return "sum(f.amount)", "0"
    by_model = "sum(f.amount) FILTER (WHERE p.consumption_model = '{}')"
    return by_model.format("balance"), by_model.format("credits")

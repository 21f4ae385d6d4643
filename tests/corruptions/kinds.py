"""The ways in which data can be wrong. Each picks a place by dice, spoils it, and says what a report must name.

Those of the book are one statement about one row; those of the till and its log are commands about one key.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tallybook.charge import identities, states
from tallybook.charge.states import Pool, State
from tallybook.core import partitions, usage_log
from tallybook.core.usage_log import Applied
from tallybook.rollup import log_reader
from tallybook.storage import redis
from tests.corruptions.installation import Installation
from tests.support import api

Row = dict[str, Any]
_TOGETHER = {"invoices": ("invoices", "invoice_lines"), "invoice_lines": ("invoices", "invoice_lines")}
"""What a statement about a table may change."""


@dataclass(frozen=True, slots=True)
class Injected:
    """What was spoiled. `names` are words that the report must contain, such as the customer."""

    where: str
    names: Sequence[str]
    tables: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Corruption:
    """A kind of corruption."""

    name: str
    inject: Callable[[Installation, random.Random], Awaitable[Injected]]


def _in_book(
    name: str, table: str, statement: str, *, where: str = "true", names: Callable[[Row], Sequence[str]] | None = None
) -> Corruption:
    """One row of a table that fits `where`; `{row}` in the statement stands for it, `{sign}` for + or -."""

    async def inject(made: Installation, dice: random.Random) -> Injected:
        rows = await made.database.fetch(
            f"SELECT tableoid::regclass::text AS part, ctid::text AS ctid, t.* FROM {table} AS t WHERE {where}"
        )
        row = dict(dice.choice(sorted(rows, key=lambda one: (one["part"], one["ctid"]))))
        this = f"tableoid = '{row['part']}'::regclass AND ctid = '{row['ctid']}'"
        await made.database.execute(
            statement.format(row=this, sign=dice.choice("+-"), **{k: v for k, v in row.items() if k != "row"})
        )
        found = names(row) if names is not None else [f"customer {row['customer_id']} "]
        return Injected(f"{table} {row['ctid']}", found, _TOGETHER.get(table, (table,)))

    return Corruption(name, inject)


def _pool(row: Row) -> Sequence[str]:
    return [f"customer {row['customer_id']} pool {row['pool']}"]


def _hour(row: Row) -> Sequence[str]:
    return [f"customer {row['customer_id']} feature {row['feature_id']} hour {row['hour']:%Y-%m-%dT%H}"]


def _event(row: Row) -> Sequence[str]:
    return [f"customer {row['customer_id']} event {row['event_id']} "]


def _hour_of_event(row: Row) -> Sequence[str]:
    return [f"customer {row['customer_id']} feature {row['feature_id']} hour {row['occurred_at']:%Y-%m-%dT%H}"]


_USAGE, _AI = "kind = 0", "kind = 0 AND price_id <> 0"
_COUNTERS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_COPY_EVENT = "INSERT INTO usage_events SELECT * FROM usage_events WHERE {row}"

EVENTS = (
    _in_book("an event is missing", "usage_events", "DELETE FROM usage_events WHERE {row}", where=_USAGE, names=_hour_of_event),
    _in_book("an event is there twice", "usage_events", _COPY_EVENT, where=_USAGE, names=_hour_of_event),
    _in_book(
        "a correction is missing", "usage_events", "DELETE FROM usage_events WHERE {row}", where="kind IN (1, 2)", names=_pool
    ),
    _in_book("a void is missing", "usage_events", "DELETE FROM usage_events WHERE {row}", where="kind = 5", names=_hour_of_event),
    _in_book("an expiry is missing", "usage_events", "DELETE FROM usage_events WHERE {row}", where="kind = 3", names=_pool),
    *(
        _in_book(
            f"an event's {column} is off by one",
            "usage_events",
            f"UPDATE usage_events SET {column} = {column} {{sign}} 1 WHERE {{row}}",
            where=_AI if column in (*_COUNTERS, "cost_nano") else _USAGE,
            names=_hour_of_event,
        )
        for column in ("amount", "quantity_nano", "cost_nano", *_COUNTERS)
    ),
    *(
        _in_book(
            f"an event's {column} is other",
            "usage_events",
            f"UPDATE usage_events SET {column} = {column} {change} WHERE {{row}}",
            where=f"{_AI} AND web_searches > 0",
            names=_event,
        )
        for column, change in (
            *(
                ("input_pico", "+ 1000"),
                ("output_pico", "+ 1000"),
                ("cache_read_pico", "- 1000"),
                ("cache_write_1h_pico", "+ 1000"),
            ),
            *(("web_search_pico", "+ 1000"), ("margin_bps", "+ 100"), ("web_searches", "+ 1"), ("cache_write_1h_tokens", "- 1")),
        )
    ),
    _in_book(
        "an event is in another hour",
        "usage_events",
        "UPDATE usage_events SET occurred_at = occurred_at {sign} interval '1 hour' WHERE {row}",
        where=_USAGE,
        names=_hour_of_event,
    ),
    _in_book(
        "an event arrived in another hour",
        "usage_events",
        "UPDATE usage_events SET accepted_at = accepted_at - interval '1 hour' WHERE {row}",
        where=f"{_USAGE} AND pool <> ''",
        names=_pool,
    ),
    _in_book(
        "an event is another customer's",
        "usage_events",
        "UPDATE usage_events SET customer_id = (SELECT min(id) FROM customers WHERE id <> {customer_id}) WHERE {row}",
        where=_USAGE,
        names=_hour_of_event,
    ),
    *(
        _in_book(
            f"an event has another {column}",
            "usage_events",
            f"UPDATE usage_events SET {column} = {value} WHERE {{row}}",
            where=_USAGE,
            names=_hour_of_event,
        )
        for column, value in (
            *(("feature_id", "feature_id + 1"), ("tenant_id", "tenant_id + 1"), ("price_id", "price_id + 1")),
            *(("period_start", "period_start - interval '1 day'"), ("kind", "5")),
        )
    ),
    _in_book(
        "an event is paid by another pool",
        "usage_events",
        "UPDATE usage_events SET pool = pool || '1' WHERE {row}",
        where=f"{_USAGE} AND pool <> ''",
        names=_pool,
    ),
    _in_book(
        "purchased credits paid another part",
        "usage_events",
        "UPDATE usage_events SET spare_amount = spare_amount {sign} 1 WHERE {row}",
        where=f"{_USAGE} AND pool LIKE '%.c.%'",
        names=_pool,
    ),
    _in_book(
        "an event stands beyond the offset",
        "usage_events",
        "UPDATE usage_events SET seq = seq + 1000 WHERE {row}",
        names=lambda row: [f"partition {row['partition']} has an event of entry {row['seq'] + 1000}"],
    ),
    _in_book(
        "an event has another identity",
        "usage_events",
        "UPDATE usage_events SET digest = set_byte(digest, 4, get_byte(digest, 4) # 1) WHERE {row}",
        where=_USAGE,
        names=_event,
    ),
    _in_book(
        "an event is indexed under another identity",
        "usage_events",
        "UPDATE usage_events SET identity = identity + 1 WHERE {row}",
        where=_USAGE,
        names=_event,
    ),
    _in_book(
        "an event has another id",
        "usage_events",
        "UPDATE usage_events SET event_id = event_id || 'x' WHERE {row}",
        where=_USAGE,
        names=lambda row: [f"customer {row['customer_id']} event {row['event_id']}x "],
    ),
    _in_book(
        "an event has another payload",
        "usage_events",
        "UPDATE usage_events SET fingerprint = set_byte(fingerprint, 0, get_byte(fingerprint, 0) # 1) WHERE {row}",
        where=_USAGE,
        names=_event,
    ),
)

_HOURLY_MEASURES = ("events", "quantity_nano", "amount", "cost_nano", *_COUNTERS)
HOURS = (
    *(
        _in_book(
            f"an hour's {column} is off by one",
            "usage_hourly",
            f"UPDATE usage_hourly SET {column} = {column} {{sign}} 1 WHERE {{row}}",
            names=_hour,
        )
        for column in _HOURLY_MEASURES
    ),
    _in_book("an hour is missing", "usage_hourly", "DELETE FROM usage_hourly WHERE {row}", names=_hour),
    _in_book(
        "an hour is another one",
        "usage_hourly",
        "UPDATE usage_hourly SET hour = hour - interval '1 hour' WHERE {row}",
        names=_hour,
    ),
    _in_book(
        "two hours differ and cancel out",
        "usage_hourly",
        "UPDATE usage_hourly SET amount = amount + CASE WHEN {row} THEN 1 ELSE -1 END "
        "WHERE ({row}) OR ctid = (SELECT ctid FROM usage_hourly WHERE NOT ({row}) ORDER BY ctid LIMIT 1)",
        names=_hour,
    ),
)

POOLS = (
    *(
        _in_book(
            f"a pool's {column} is off by one",
            "pool_balances",
            f"UPDATE pool_balances SET {column} = {column} {{sign}} 1 WHERE {{row}}",
            names=_pool,
        )
        for column in ("opening", "charged", "adjusted", "expired")
    ),
    _in_book(
        "two sides of a pool are off and cancel out",
        "pool_balances",
        "UPDATE pool_balances SET charged = charged + 1, adjusted = adjusted + 1 WHERE {row}",
        names=_pool,
    ),
    _in_book("a pool is missing", "pool_balances", "DELETE FROM pool_balances WHERE {row}", names=_pool),
    _in_book(
        "an open pool is closed",
        "pool_balances",
        "UPDATE pool_balances SET closed = true WHERE {row}",
        where="NOT closed",
        names=_pool,
    ),
    _in_book(
        "a closed pool is open",
        "pool_balances",
        "UPDATE pool_balances SET closed = false WHERE {row}",
        where="closed",
        names=_pool,
    ),
    _in_book(
        "a pool is another tenant's",
        "pool_balances",
        "UPDATE pool_balances SET tenant_id = tenant_id - 1 WHERE {row}",
        names=_pool,
    ),
    _in_book(
        "a ledger row is off by one", "pool_ledger", "UPDATE pool_ledger SET amount = amount {sign} 1 WHERE {row}", names=_pool
    ),
    _in_book("a ledger row is missing", "pool_ledger", "DELETE FROM pool_ledger WHERE {row}", where="amount <> 0", names=_pool),
    _in_book(
        "a ledger row counts one entry less",
        "pool_ledger",
        "UPDATE pool_ledger SET entries = entries - 1 WHERE {row}",
        where="kind <> 'opening'",
        names=_pool,
    ),
    _in_book(
        "a ledger row is in another hour",
        "pool_ledger",
        "UPDATE pool_ledger SET hour = hour - interval '1 hour' WHERE {row}",
        where="kind <> 'opening'",
        names=_pool,
    ),
    _in_book(
        "a charge stands in the ledger as an expiry",
        "pool_ledger",
        "UPDATE pool_ledger SET kind = 'expiry', hour = hour - interval '1 day' WHERE {row}",
        where="kind = 'charge'",
        names=_pool,
    ),
    _in_book(
        "a charge stands in the ledger as a void",
        "pool_ledger",
        "UPDATE pool_ledger SET kind = 'void', hour = hour - interval '1 day' WHERE {row}",
        where="kind = 'charge'",
        names=_pool,
    ),
    _in_book(
        "a ledger row is another tenant's",
        "pool_ledger",
        "UPDATE pool_ledger SET tenant_id = tenant_id - 1 WHERE {row}",
        names=_pool,
    ),
)


def _partition(row: Row) -> Sequence[str]:
    return [f"partition {row['partition']}"]


OFFSETS = (
    _in_book(
        "an offset is back by one",
        "log_offsets",
        "UPDATE log_offsets SET last_seq = last_seq - 1 WHERE {row}",
        where="EXISTS (SELECT FROM usage_events AS e WHERE e.partition = t.partition AND e.seq = t.last_seq)",
        names=_partition,
    ),
    _in_book(
        "an offset is ahead by one",
        "log_offsets",
        "UPDATE log_offsets SET last_seq = last_seq + 1 WHERE {row}",
        where="partition IN (SELECT e.partition FROM usage_events AS e)",
        names=lambda _row: ["customer "],
    ),
    _in_book(
        "an offset is beyond the log",
        "log_offsets",
        "UPDATE log_offsets SET last_seq = last_seq + 1000 WHERE {row}",
        names=_partition,
    ),
    _in_book("an offset is gone", "log_offsets", "DELETE FROM log_offsets WHERE {row}", where="last_seq > 0", names=_partition),
)


def _invoice(row: Row) -> Sequence[str]:
    return [f"invoice {row['public_id']}"] if "public_id" in row else []


_BILL_TWICE = """
WITH moved AS (UPDATE invoices SET total_cents = total_cents + {amount_cents} WHERE id = {invoice_id})
INSERT INTO invoice_lines
SELECT (jsonb_populate_record(l, '{{"position": 90}}')).* FROM invoice_lines AS l WHERE {row}
"""
_OVERAGE = "line_type LIKE '%_overage'"
INVOICES = (
    _in_book(
        "an invoice's total is off by a cent",
        "invoices",
        "UPDATE invoices SET total_cents = total_cents {sign} 1 WHERE {row}",
        names=_invoice,
    ),
    *(
        _in_book(
            f"an invoice line's {column} is off by one",
            "invoice_lines",
            f"UPDATE invoice_lines SET {column} = {column} {{sign}} {step} WHERE {{row}}",
            where=where,
            names=lambda row: ["invoice inv_", f"line {row['position']}"],
        )
        for column, step, where in (
            *(("amount_cents", 1, "true"), ("exact_nano", 1, "true"), ("unit_price_nano", 1, "true")),
            *(("quantity_nano", 1, _OVERAGE), ("overage_nano", 1, _OVERAGE)),
        )
    ),
    _in_book(
        "an invoice line and its total are off by a cent",
        "invoice_lines",
        "WITH moved AS (UPDATE invoices SET total_cents = total_cents + 1 WHERE id = {invoice_id}) "
        "UPDATE invoice_lines SET amount_cents = amount_cents + 1 WHERE {row}",
        names=lambda row: ["invoice inv_", f"line {row['position']}"],
    ),
    _in_book(
        "an invoice line is missing",
        "invoice_lines",
        "DELETE FROM invoice_lines WHERE {row}",
        where="amount_cents <> 0",
        names=lambda _row: ["invoice inv_"],
    ),
    _in_book(
        "an overage is missing on the invoice and in its total",
        "invoice_lines",
        "WITH moved AS (UPDATE invoices SET total_cents = total_cents - {amount_cents} WHERE id = {invoice_id}) "
        "DELETE FROM invoice_lines WHERE {row}",
        where=_OVERAGE,
        names=lambda row: [f"pool {row['pool']}"],
    ),
    _in_book(
        "an overage is billed twice",
        "invoice_lines",
        _BILL_TWICE,
        where=_OVERAGE,
        names=lambda row: [f"pool {row['pool']}"],
    ),
    _in_book(
        "an invoice is missing",
        "invoices",
        "WITH lines AS (DELETE FROM invoice_lines WHERE invoice_id = {id}) DELETE FROM invoices WHERE {row}",
        names=lambda row: [f"tenant {row['tenant_id']} "],
    ),
    _in_book(
        "an invoice is another customer's",
        "invoices",
        "UPDATE invoices SET customer_id = (SELECT min(id) FROM customers WHERE id <> {customer_id}) WHERE {row}",
        names=_invoice,
    ),
    _in_book(
        "an invoice has another number",
        "invoices",
        "UPDATE invoices SET number = number + 1000 WHERE {row}",
        names=lambda row: [f"tenant {row['tenant_id']} "],
    ),
    _in_book("an overage is decided by nobody", "overage_decisions", "DELETE FROM overage_decisions WHERE {row}", names=_pool),
    _in_book(
        "another overage was decided",
        "overage_decisions",
        "UPDATE overage_decisions SET overage_nano = overage_nano + 1 WHERE {row}",
        names=_pool,
    ),
)


def _customer_of_item(row: Row) -> Sequence[str]:
    return [f"customer {msgspec.msgpack.decode(row['payload'], type=Applied).record.customer_id} "]


QUARANTINE = (
    _in_book("an item of quarantine is gone", "quarantine", "DELETE FROM quarantine WHERE {row}", names=_customer_of_item),
    _in_book(
        "an item of quarantine can't be read",
        "quarantine",
        "UPDATE quarantine SET payload = '\\x00' || payload WHERE {row}",
        names=lambda row: [f"item {row['id']}"],
    ),
    _in_book(
        "an item of quarantine is not booked",
        "quarantine",
        "UPDATE quarantine SET booked = false WHERE {row}",
        names=_customer_of_item,
    ),
    _in_book(
        "something unknown is in quarantine",
        "quarantine",
        "INSERT INTO quarantine (partition, seq, reason, payload, booked) VALUES (0, 1, 'test', '\\x00', false)",
        names=lambda _row: ["item "],
    ),
)


def _in_till(name: str, inject: Callable[[Installation, random.Random], Awaitable[Sequence[str]]]) -> Corruption:
    async def spoil(made: Installation, dice: random.Random) -> Injected:
        names = await inject(made, dice)
        return Injected("the till", names)

    return Corruption(name, spoil)


@dataclass(frozen=True, slots=True)
class _Held:
    """A pool of the till, and the whole state of its customer."""

    partition: int
    customer_id: int
    pool: str
    state: State

    @property
    def names(self) -> Sequence[str]:
        """What a report calls it."""
        return [f"customer {self.customer_id} pool {self.pool}"]

    async def write(self, made: Installation, pools: Mapping[str, Pool | None], later: int = 0) -> None:
        """Spoil the state: pools as given, None takes one away; another version of terms."""
        changed = {name: pool for name, pool in {**self.state.pools, **pools}.items() if pool is not None}
        text = states.write(State(self.state.version + later, changed, self.state.frozen))
        await made.redis.execute_command("HSET", states.key(self.partition), states.customer_field(self.customer_id), text)


async def _a_pool(made: Installation, dice: random.Random) -> _Held:
    """One that terms have opened."""
    found: list[_Held] = []
    for partition in range(api.PARTITIONS):
        for name, text in redis.pairs(await made.redis.execute_command("HGETALL", states.key(partition))).items():
            if states.is_customer(name):
                state = states.read(text)
                found += [
                    _Held(partition, int(name), pool, state) for pool, one in state.pools.items() if one.opening is not None
                ]
    return dice.choice(sorted(found, key=lambda one: (one.partition, one.customer_id, one.pool)))


async def _pool_is_off(made: Installation, dice: random.Random) -> Sequence[str]:
    held = await _a_pool(made, dice)
    pool = held.state.pools[held.pool]
    await held.write(made, {held.pool: Pool(pool.opening, pool.left + dice.choice((1, -1)))})
    return held.names


async def _opening_is_off(made: Installation, dice: random.Random) -> Sequence[str]:
    held = await _a_pool(made, dice)
    pool = held.state.pools[held.pool]
    await held.write(made, {held.pool: Pool((pool.opening or 0) + dice.choice((1, -1)), pool.left)})
    return held.names


async def _opening_is_gone(made: Installation, dice: random.Random) -> Sequence[str]:
    while True:
        held = await _a_pool(made, dice)
        if held.pool != "credits":
            await held.write(made, {held.pool: Pool(None, held.state.pools[held.pool].left)})
            return held.names


async def _pool_is_gone(made: Installation, dice: random.Random) -> Sequence[str]:
    held = await _a_pool(made, dice)
    await held.write(made, {held.pool: None})
    return held.names


async def _customer_is_gone(made: Installation, dice: random.Random) -> Sequence[str]:
    held = await _a_pool(made, dice)
    await made.redis.execute_command("HDEL", states.key(held.partition), states.customer_field(held.customer_id))
    return held.names


async def _pool_nobody_knows(made: Installation, dice: random.Random) -> Sequence[str]:
    held = await _a_pool(made, dice)
    await held.write(made, {"99.b.1": Pool(0, 0)})
    return [f"customer {held.customer_id} pool 99.b.1"]


async def _terms_are_other(made: Installation, dice: random.Random) -> Sequence[str]:
    held = await _a_pool(made, dice)
    await held.write(made, {}, later=dice.choice((1, -1)))
    return [f"customer {held.customer_id} pool terms"]


async def _an_identity(made: Installation, dice: random.Random) -> tuple[bytes, bytes, str]:
    """Key and field of an event's identity in the till, and what a report calls the event."""
    rows = await made.database.fetch("SELECT * FROM usage_events WHERE kind = 0 ORDER BY partition, seq, position")
    row = dice.choice(rows)
    bucket, field = identities.place_of(row["digest"])
    prefix = partitions.prefix(row["partition"])
    generation = int(await made.redis.execute_command("HGET", f"{prefix}:m", "generation"))
    key = identities.key(row["partition"], generation, bucket)
    if not await made.redis.execute_command("HEXISTS", key, field):
        key = identities.key(row["partition"], generation - 1, bucket)
    return key, field, f"customer {row['customer_id']} event {row['event_id']} "


async def _identity_is_gone(made: Installation, dice: random.Random) -> Sequence[str]:
    key, field, name = await _an_identity(made, dice)
    await made.redis.execute_command("HDEL", key, field)
    return [name]


async def _identity_is_other(made: Installation, dice: random.Random) -> Sequence[str]:
    key, field, name = await _an_identity(made, dice)
    value: bytes = await made.redis.execute_command("HGET", key, field)
    await made.redis.execute_command("HSET", key, field, bytes((value[0] ^ 1,)) + value[1:])
    return [name]


async def _strange_identity(made: Installation, dice: random.Random) -> Sequence[str]:
    key, field, _name = await _an_identity(made, dice)
    await made.redis.execute_command("HSET", key, bytes((field[0], *dice.randbytes(12))), b"x" * 24)
    return [f"partition {int(key[2:4])} "]


async def _a_waiting_entry(made: Installation, dice: random.Random) -> tuple[int, int]:
    """Partition and sequence of a log entry that the book has not read and that charges somebody."""
    offsets = {
        row["partition"]: row["last_seq"] for row in await made.database.fetch("SELECT partition, last_seq FROM log_offsets")
    }
    found: list[tuple[int, int]] = []
    for partition, offset in sorted(offsets.items()):
        entries = await log_reader.read_between(made.redis, partition, offset, 10**9)
        found += [(partition, entry.seq) for entry in entries]
    return dice.choice(found)


async def _entry_is_gone(made: Installation, dice: random.Random) -> Sequence[str]:
    partition, sequence = await _a_waiting_entry(made, dice)
    await made.redis.execute_command("XDEL", log_reader.key(partition), f"{sequence}-0")
    return [f"partition {partition}"]


async def _entries_are_trimmed(made: Installation, dice: random.Random) -> Sequence[str]:
    partition, sequence = await _a_waiting_entry(made, dice)
    await made.redis.execute_command("XTRIM", log_reader.key(partition), "MINID", f"{sequence + 1}-0")
    return [f"partition {partition}"]


async def _last_entry_is_gone(made: Installation, dice: random.Random) -> Sequence[str]:
    partition, _sequence = await _a_waiting_entry(made, dice)
    [[last, _fields]] = await made.redis.execute_command("XREVRANGE", log_reader.key(partition), "+", "-", "COUNT", 1)
    await made.redis.execute_command("XDEL", log_reader.key(partition), last)
    return [f"partition {partition}"]


async def _entry_is_other(made: Installation, dice: random.Random) -> Sequence[str]:
    """One event of the entry takes one unit more; the entries are written anew, because a stream's can't be changed."""
    partition, sequence = await _a_waiting_entry(made, dice)
    key = log_reader.key(partition)
    entries = await made.redis.execute_command("XRANGE", key, "-", "+")
    await made.redis.execute_command("DEL", key)
    customer = ""
    for name, (field, data) in entries:
        if name == f"{sequence}-0".encode():
            entry = usage_log.decode_entry(data)
            one = entry.applied[0]
            customer = f"customer {one.record.customer_id} "
            altered = msgspec.structs.replace(one, record=msgspec.structs.replace(one.record, amount=one.record.amount + 1))
            entry = msgspec.structs.replace(entry, version=1, applied=[altered, *entry.applied[1:]])
            await made.redis.execute_command("XADD", key, name, field, msgspec.msgpack.encode(entry))
        else:
            await made.redis.execute_command("XADD", key, name, field, data)
    return [customer]


async def _sequence_is_off(made: Installation, dice: random.Random) -> Sequence[str]:
    partition, _sequence = await _a_waiting_entry(made, dice)
    await made.redis.execute_command("HINCRBY", f"{partitions.prefix(partition)}:m", "seq", 1)
    return [f"partition {partition}"]


async def _epoch_is_other(made: Installation, dice: random.Random) -> Sequence[str]:
    partition = dice.randrange(api.PARTITIONS)
    await made.redis.execute_command("HSET", f"{partitions.prefix(partition)}:m", "epoch", "of another installation")
    return [f"partition {partition}"]


TILL = (
    _in_till("a pool of the till is off by one", _pool_is_off),
    _in_till("an opening of the till is off by one", _opening_is_off),
    _in_till("an opening of the till is gone", _opening_is_gone),
    _in_till("a pool of the till is gone", _pool_is_gone),
    _in_till("a customer of the till is gone", _customer_is_gone),
    _in_till("the till has a pool that nobody knows", _pool_nobody_knows),
    _in_till("the till has another version of terms", _terms_are_other),
    _in_till("an identity is gone", _identity_is_gone),
    _in_till("an identity has another payload", _identity_is_other),
    _in_till("there is an identity that nobody knows", _strange_identity),
    _in_till("a log entry is gone", _entry_is_gone),
    _in_till("the log was trimmed too far", _entries_are_trimmed),
    _in_till("the last log entry is gone", _last_entry_is_gone),
    _in_till("a log entry takes one more", _entry_is_other),
    _in_till("a sequence is ahead of its log", _sequence_is_off),
    _in_till("a partition is of another epoch", _epoch_is_other),
)

KINDS = (*EVENTS, *HOURS, *POOLS, *OFFSETS, *INVOICES, *QUARANTINE, *TILL)

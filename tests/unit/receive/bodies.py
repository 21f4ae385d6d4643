"""Hypothesis strategies for bodies: valid ones in every spelling, nearly valid ones, and broken bytes."""

import json
from collections.abc import Sequence
from datetime import datetime

from hypothesis import strategies as st

Pair = tuple[str, str]
"""A key and the JSON text of its value."""
Texts = st.SearchStrategy[str]

CODES: Texts = st.text("abcz019_", min_size=1, max_size=12)
IDS: Texts = st.one_of(
    st.text('abcXYZ019_-:./ "\\', min_size=1, max_size=20),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20),
)
ODD_NUMBERS = (
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1e-9",
    "1E9",
    "1e-05",
    "0.5000000000000",
    "1000000000.000000000",
    "5e+0",
    "123456789.123456789",
)
NUMBERS: Texts = st.one_of(
    st.integers(0, 10**9).map(str),
    st.decimals(0, 10**9, places=9).map(str),
    st.floats(0, 1e9, allow_nan=False).map(json.dumps),
    st.sampled_from(ODD_NUMBERS),
)
BAD_NUMBERS: Texts = st.sampled_from(
    [
        *("-1", "1e10", "1e-10", "1e3000000", "1e-3000000", "0e99999", "NaN", "Infinity", "-Infinity"),
        *("1000000001", "1000000000.000000001", "0.1234567891", "0." + "0" * 31, "1." + "0" * 30 + "1"),
        *("18446744073709551616", "-9223372036854775809", "9" * 31, "9" * 400),
    ],
)
COUNTS: Texts = st.integers(0, 10**5).map(str)
BAD_COUNTS: Texts = st.sampled_from(["-1", "1.0", "1e3", "1000000001", "99999999999999999999999", "true", '"5"', "NaN"])
WRONG: Texts = st.sampled_from(
    [
        *("null", "true", "false", "0", "1.5", "[]", "{}", '["a"]', '{"a":1}', '{"a":"b","a":"b"}'),
        *('""', '"x"', '"\\u0000"', '"\\ud800"', '"\\n"'),
    ],
)
LENGTHS = ("é" * 64, "é" * 65, "x" * 128, "x" * 129, "x" * 256, "x" * 257, "é" * 128, "é" * 129)
TEXTS: Texts = st.one_of(st.text(max_size=12), st.sampled_from(["", "\0", "\ud800", "\x7f", "\x85", '"', "\\", *LENGTHS]))
BRACKETS: Texts = st.integers(1, 80).map(lambda depth: "[" * depth + "]" * depth)
ZONES = ("Z", "z", "+00:00", "-00:00", "+0530", "-23:59", "+23:59", "+24:00", "+05", "", "+05:60")
NO_MOMENTS = ("2026-01-15", "2026-02-30T00:00:00Z", "2026-01-15T10:00:60Z", "2026-01-15T24:00:00Z", "20260115T100000Z")
EDGE_MOMENTS = ("9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59.9995Z")


def spell(moment: datetime, separator: str, fraction: str, zone: str) -> str:
    """A moment as text."""
    return f"{moment.year:04}-{moment:%m-%d}{separator}{moment:%H:%M:%S}{fraction}{zone}"


FRACTIONS: Texts = st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=9).map(lambda digits: "." + digits))
MOMENTS: Texts = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.builds(spell, st.datetimes(), st.sampled_from("Tt "), FRACTIONS, st.sampled_from(ZONES)),
    st.sampled_from([*NO_MOMENTS, *EDGE_MOMENTS]),
)


@st.composite
def quoted(draw: st.DrawFn, texts: Texts) -> str:
    """A text as JSON, with some characters escaped that need not be."""
    text = draw(texts)
    if draw(st.integers(0, 3)):
        return json.dumps(text, ensure_ascii=draw(st.booleans()) or any(0xD800 <= ord(c) <= 0xDFFF for c in text))
    escaped = draw(st.sets(st.integers(0, max(len(text) - 1, 0)), max_size=3))
    return '"' + "".join(escape(c) if place in escaped else json.dumps(c)[1:-1] for place, c in enumerate(text)) + '"'


def escape(character: str) -> str:
    """A character as one or two escapes of UTF-16 units."""
    raw = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{int.from_bytes(raw[place : place + 2]):04x}" for place in range(0, len(raw), 2))


@st.composite
def properties(draw: st.DrawFn) -> str:
    """Properties as an object or a list, some of them broken."""
    values = st.one_of(quoted(TEXTS), quoted(TEXTS), WRONG)
    entries = draw(st.lists(st.tuples(quoted(TEXTS), values), max_size=draw(st.sampled_from([2, 3, 21]))))
    if draw(st.booleans()):
        return "{" + ",".join(f"{name}:{value}" for name, value in entries) + "}"
    return "[" + ",".join(f'{{"property":{name},"value":{value}}}' for name, value in entries) + "]"


@st.composite
def good_pairs(draw: st.DrawFn, quantity: str = "value") -> list[Pair]:
    """The fields of a mostly valid event (or check, with `quantity`)."""
    pairs = [(draw(st.sampled_from(["featureCode", "feature"])), draw(quoted(CODES))), ("customerId", draw(quoted(IDS)))]
    if draw(st.booleans()):
        pairs += draw(ai_pairs())
    elif draw(st.booleans()):
        pairs.append((quantity, draw(NUMBERS)))
    if quantity == "value":
        pairs += draw(st.lists(event_pairs(), max_size=3, unique_by=lambda pair: pair[0]))
    nulls = draw(st.sets(st.sampled_from(["model", quantity, "serviceTier"]), max_size=1))
    pairs += [(name, "null") for name in nulls if name not in dict(pairs)]
    return draw(st.permutations(pairs))


@st.composite
def ai_pairs(draw: st.DrawFn) -> list[Pair]:
    """The fields of an AI event, with counts that fit together more often than not."""
    total, read, write = sorted((draw(st.integers(0, 10**5)) for _ in range(3)), reverse=True)
    pairs = [("model", draw(quoted(IDS))), ("inputTokens", str(total)), ("outputTokens", draw(COUNTS))]
    pairs += [("cacheReadTokens", str(read))] * draw(st.integers(0, 1))
    if read + write <= total and draw(st.booleans()):
        pairs += [("cacheWriteTokens", str(write)), ("cacheWrite1hTokens", str(draw(st.integers(0, write))))]
    extras = (("serviceTier", '"batch"'), ("webSearchRequests", "3"), ("inputTokensIncludeCache", "false"))
    return pairs + draw(st.lists(st.sampled_from(extras), unique=True))


@st.composite
def event_pairs(draw: st.DrawFn) -> Pair:
    """A field that only events have."""
    name = draw(st.sampled_from(["eventId", "idempotencyKey", "timestamp", "properties"]))
    if name == "properties":
        return name, draw(properties())
    if name == "timestamp":
        return name, draw(st.one_of(MOMENTS.map(json.dumps), MOMENTS.map(json.dumps), quoted(TEXTS)))
    return name, draw(quoted(IDS))


FIELDS = (
    *(
        "featureCode",
        "feature",
        "customerId",
        "eventId",
        "idempotencyKey",
        "timestamp",
        "value",
        "quantity",
        "properties",
        "model",
    ),
    *(
        "inputTokens",
        "outputTokens",
        "cacheReadTokens",
        "cacheWriteTokens",
        "cacheWrite1hTokens",
        "serviceTier",
        "webSearchRequests",
    ),
    *("inputTokensIncludeCache", "reason", "price"),
)


@st.composite
def pairs(draw: st.DrawFn, quantity: str = "value") -> list[Pair]:
    """The fields of an event with up to two of them left out, replaced, added or repeated."""
    given = list(draw(good_pairs(quantity)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        place = draw(st.integers(0, len(given)))
        name = draw(st.sampled_from([*FIELDS, *(name for name, _ in given)]))
        value = draw(st.one_of(BAD_NUMBERS, BAD_COUNTS, COUNTS, NUMBERS, WRONG, quoted(TEXTS), properties(), BRACKETS))
        given[place : place + draw(st.integers(0, 1))] = [(name, value)] * draw(st.integers(0, 1))
    return given


@st.composite
def rendered(draw: st.DrawFn, given: Sequence[Pair]) -> str:
    """Fields as a JSON object, with white space, and sometimes an escaped key."""
    space = draw(st.sampled_from(["", "", " ", "\n\t", " \r\n"]))
    keys = [escape(name[0]) + name[1:] if draw(st.integers(0, 9)) == 0 else name for name, _ in given]
    inside = f",{space}".join(f'"{key}"{space}:{space}{value}' for key, (_, value) in zip(keys, given, strict=True))
    return "{" + space + inside + space + "}"


@st.composite
def bodies(draw: st.DrawFn, quantity: str = "value") -> bytes:
    """A single event or check."""
    return draw(broken(draw(rendered(draw(pairs(quantity))))))


BATCH = '{"events":[%s]}'
NO_BATCH = ('{"events":%s}', "[%s]", '{"events":[%s],"more":1}', '{"events":[1],"events":[%s]}', '{"event\\u0073":[%s]}')


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """A batch of up to four events, good and bad ones side by side."""
    event = pairs().flatmap(rendered)
    items = draw(st.lists(st.one_of(event, event, WRONG, BRACKETS), max_size=4))
    around = draw(st.sampled_from([BATCH] * 6 + list(NO_BATCH)))
    return draw(broken(around.replace("%s", ",".join(items))))


SPLINTERS = (
    *(b"", b'"', b"\\", b"\x00", b"\x7f", b"\xff", b"\xc2\x85", b"\xef\xbb\xbf"),
    *(b"[", b"}", b",", b"9", b"e", b"\\u0022", b'\\"'),
)


@st.composite
def broken(draw: st.DrawFn, text: str) -> bytes:
    """A body as bytes, now and then with a few of them changed."""
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, max(len(body) - 1, 0)))
        body[place : place + draw(st.integers(0, 2))] = draw(st.sampled_from(SPLINTERS))
    return bytes(body)

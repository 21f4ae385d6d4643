"""Whatever a list holds, it never crashes the reader and never publishes a negative, non-finite or absent price."""

import contextlib
import json
from collections.abc import Callable, Iterator

from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from tallybook.ai_models import decimals, gateway, price_codec, rules
from tallybook.ai_models.gateway import UnreadableListError
from tallybook.ai_models.model import ChangeKind, Known, Model, ModelList
from tallybook.pricing.rates import Band, Price, resolve

GOOD = st.sampled_from(["0", "0.000003", "4.2e-8", "0.0000009", "0.00000004166666666666667", "0.000015"])
JUNK: st.SearchStrategy[object] = st.one_of(
    st.sampled_from(["-1", "NaN", "Infinity", "1e999", "1e-40", "", "9"]),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(),
    st.booleans(),
    st.none(),
    st.text(max_size=12),
    st.just("[]").map(json.loads),
    st.just("{}").map(json.loads),
)


def mostly(good: st.SearchStrategy[object], junk_one_in: int = 12) -> st.SearchStrategy[object]:
    """What the format wants, and now and then anything at all. Without the weight nearly every row would be junk."""
    return st.integers(1, junk_one_in).flatmap(lambda number: JUNK if number == junk_one_in else good)


def some(*keys: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Objects with any of these keys."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, values))


def every(*keys: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Objects with all of these keys."""
    return st.fixed_dictionaries(dict.fromkeys(keys, values))


def merged(*parts: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    """Objects with the keys of all parts."""
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


PRICES = mostly(GOOD)
KINDS = ("input", "output", "input_cache_read", "input_cache_write")
JOINED = st.sampled_from([0, 1, 100]).map(
    lambda end: [{"cost": "0.000003", "min": 0, "max": 100 + end}, {"cost": "0.00001", "min": 100}]
)
BOUNDARIES = mostly(st.sampled_from([0, 100, 200, 201]))
TIERS = st.one_of(JOINED, st.lists(merged(every("cost", values=PRICES), some("min", "max", values=BOUNDARIES)), max_size=4))
LONG_CONTEXT = merged(every("input", "output", values=PRICES), every("threshold", values=BOUNDARIES))
TIER_PRICES = merged(
    every("input", "output", values=PRICES), some("input_cache_read", values=PRICES), some("long_context", values=LONG_CONTEXT)
)
SERVICE_TIERS = some("flex", "priority", "batch", "turbo", values=mostly(TIER_PRICES))
PRICING = merged(
    every("input", "output", values=PRICES),
    some("input_cache_read", "input_cache_write", "web_search", "image", values=PRICES),
    st.one_of(st.just(""), st.just("tiers")).flatmap(
        lambda word: some(*(f"{kind}_tiers" for kind in KINDS if word), values=mostly(TIERS))
    ),
    some("service_tiers", values=mostly(SERVICE_TIERS)),
)
ROWS = mostly(
    merged(
        every("id", values=mostly(st.sampled_from(["a/x", "a/y", "b/x", "b/z", "c/x"]))),
        every("type", values=mostly(st.sampled_from(["language", "embedding", "image"]))),
        some("name", "context_window", "deprecated_at", values=JUNK),
        every("pricing", values=mostly(PRICING)),
    )
)
LISTS = st.lists(ROWS, min_size=1, max_size=6)


def read(rows: list[object]) -> list[Model]:
    return list(gateway.parse(json.dumps({"data": rows}).encode()).models)


def amounts(price: Price) -> Iterator[int]:
    for bands in (price.standard, *price.service_tiers.values()):
        yield from _band_amounts(bands)


def _band_amounts(bands: tuple[Band, ...]) -> Iterator[int]:
    for band in bands:
        rates = resolve(band.listed)
        yield from (rates.input, rates.cache_read, rates.cache_write, rates.cache_write_1h)
        if rates.output is not None:
            yield rates.output


@settings(max_examples=400, deadline=None)
@given(LISTS)
def test_every_price_that_is_read_is_finite_in_band_and_reads_back_the_same(rows: list[object]) -> None:
    for model in read(rows):
        if model.price is not None:
            assert all(0 <= amount <= 2 * decimals.PRICE_MAX_PICO for amount in amounts(model.price))
            assert model.price.standard[0].from_tokens == 0
            assert model.type not in {"language", "realtime"} or model.price.standard[0].listed.output is not None
            assert price_codec.from_json(price_codec.to_json(model.price)) == model.price


@settings(max_examples=200, deadline=None)
@given(LISTS, LISTS)
def test_publishing_never_takes_a_price_away(before: list[object], after: list[object]) -> None:
    known = {model.id: Known(model) for model in read(before)}
    plan = rules.plan(known, gateway.parse(json.dumps({"data": after}).encode()))
    for change in plan.changes:
        if change.before is not None:
            assert change.model.price is not None
    assert plan.refused is None or plan.changes == ()
    removed = {change.model.id for change in plan.changes if change.kind is ChangeKind.REMOVED}
    assert removed <= set(known)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_list_or_an_unreadable_one(body: bytes) -> None:
    with contextlib.suppress(UnreadableListError):
        assert gateway.parse(body) is not None


def test_the_fuzzed_lists_do_hold_prices_tiers_and_bad_rows() -> None:
    unshrunk = settings(max_examples=2_000, phases=[Phase.generate], deadline=None, database=None)

    def has(wanted: Callable[[ModelList], bool]) -> bool:
        return bool(find(LISTS, lambda rows: wanted(gateway.parse(json.dumps({"data": rows}).encode())), settings=unshrunk))

    assert has(lambda found: any(model.price and len(model.price.standard) > 1 for model in found.models))
    assert has(lambda found: any(model.price and model.price.service_tiers for model in found.models))
    assert has(lambda found: bool(found.quarantined) and any(model.price for model in found.models))
    assert has(lambda found: bool(found.repaired))

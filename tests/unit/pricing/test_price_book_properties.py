"""The price book beside a slow reading of its rules: at each moment the strongest own price that holds, else the list's."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tallybook.core.errors import NotFound
from tallybook.pricing import overrides, price_book
from tallybook.pricing.overrides import Override
from tallybook.pricing.price_book import PriceBook, PriceRow, TenantModels
from tallybook.pricing.rates import Band, Listed, Price

PRICE = Price((Band(0, Listed(1, 1)),))
LISTED, UNPRICED, OWN = "lab/a", "lab/b", "lab/own"
PATTERNS = (LISTED, "a", "LAB/A", UNPRICED, OWN, "lab/*", "*", "*b")
CATALOG_STARTS = {1: 10, 2: 30}
TIMES = (-1, 0, 1, 9, 10, 11, 29, 30, 31, 60, 61)

MOMENTS = st.sampled_from([0, 1, 10, 11, 30, 60])

spans = st.tuples(st.sampled_from(PATTERNS), MOMENTS, st.none() | MOMENTS, st.booleans())


def own_prices(found: list[tuple[str, int, int | None, bool]]) -> list[Override]:
    return [
        Override(100 + number, pattern, start, None if end is None else max(start, end), PRICE, back)
        for number, (pattern, start, end, back) in enumerate(found)
    ]


def book(own: list[Override]) -> PriceBook:
    rows = [PriceRow(price_id, LISTED, start, PRICE) for price_id, start in CATALOG_STARTS.items()]
    return PriceBook(1, [price_book.entry(LISTED, rows), price_book.entry(UNPRICED, [])], {7: TenantModels({}, tuple(own))})


def expected(own: list[Override], model: str, at_ms: int) -> int | None:
    """The id of the price row that holds, by the rules read one after another."""
    if model == OWN and all(each.pattern != OWN for each in own):
        return None
    names = {LISTED: {LISTED, "a", "LAB/A"}}.get(model, {model})
    mine = [
        each
        for each in own
        if each.effective_from_ms != each.effective_to_ms and (each.pattern in names or is_covered(each.pattern, model))
    ]
    mine.sort(key=lambda each: ("*" not in each.pattern, "*" in each.pattern and len(each.pattern.replace("*", "")), each.id))
    holding = [each for each in mine if each.in_force_at(at_ms)]
    if holding:
        return holding[-1].id
    if model == LISTED:
        return 2 if at_ms >= CATALOG_STARTS[2] else 1
    first = min((each.effective_from_ms for each in mine), default=None)
    if first is None or at_ms >= first:
        return None
    strongest = [each for each in mine if each.effective_from_ms == first][-1]
    return strongest.id if strongest.reaches_back else None


def is_covered(pattern: str, model: str) -> bool:
    return overrides.is_glob(pattern) and overrides.matches(pattern, model)


@settings(max_examples=300, deadline=None)
@given(st.lists(spans, max_size=6))
def test_each_moment_has_the_price_that_the_rules_say(found: list[tuple[str, int, int | None, bool]]) -> None:
    own = own_prices(found)
    made = book(own)
    for model in (LISTED, UNPRICED, OWN):
        for at_ms in TIMES:
            assert _row_id(made, model, at_ms) == expected(own, model, at_ms), (model, at_ms)


def _row_id(made: PriceBook, model: str, at_ms: int) -> int | None:
    try:
        found = made.resolve(7, model, at_ms).entry.row_at(at_ms).id
    except NotFound:
        found = None
    entry = made.entry_of(7, model)
    if entry is not None:
        assert entry.is_priced_at(at_ms) is (found is not None)
        begun = [row.id for start, row in entry.rows_between(at_ms, at_ms + 1) if start <= at_ms]
        assert begun == ([] if found is None else [found])
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(spans, max_size=6))
def test_no_tenant_sees_what_another_one_set(found: list[tuple[str, int, int | None, bool]]) -> None:
    made = book(own_prices(found))
    for at_ms in TIMES:
        assert _row_of_another(made, at_ms) == (2 if at_ms >= CATALOG_STARTS[2] else 1)
    assert made.entry_of(8, OWN) is None


def _row_of_another(made: PriceBook, at_ms: int) -> int:
    return made.resolve(8, LISTED, at_ms).entry.row_at(at_ms).id

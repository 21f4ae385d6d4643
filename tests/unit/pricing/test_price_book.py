"""The price book: which row prices an event, for which tenant, at which time."""

import pytest

from tallybook.core.errors import Conflict, NotFound
from tallybook.pricing import overrides, price_book
from tallybook.pricing.model_ids import MatchedBy
from tallybook.pricing.overrides import Override
from tallybook.pricing.price_book import ModelEntry, PriceBook, PriceRow, TenantModels
from tallybook.pricing.rates import Band, Listed, Price

SONNET = "anthropic/claude-sonnet-4.6"
TENANT, OTHER = 7, 8


def price_of(pico: int) -> Price:
    return Price((Band(0, Listed(pico, pico)),))


def row(price_id: int, from_ms: int, pico: int, model_id: str = SONNET) -> PriceRow:
    return PriceRow(price_id, model_id, from_ms, price_of(pico))


def override(
    override_id: int, pattern: str, pico: int, *, from_ms: int = 0, to_ms: int | None = None, reaches_back: bool = False
) -> Override:
    return Override(override_id, pattern, from_ms, to_ms, price_of(pico), reaches_back)


def book(*own: Override, aliases: dict[str, str] | None = None) -> PriceBook:
    entries = (
        price_book.entry(SONNET, [row(2, 2_000, 20), row(1, 1_000, 10)]),
        price_book.entry("openai/gpt-4o", [row(3, 0, 30, "openai/gpt-4o")]),
        price_book.entry("perplexity/sonar", []),
        price_book.entry("xai/grok-3", [row(4, 0, 40, "xai/grok-3")], tombstoned=True),
        price_book.entry("lab-a/shared", [row(5, 0, 50, "lab-a/shared")]),
        price_book.entry("lab-b/shared", [row(6, 0, 60, "lab-b/shared")]),
    )
    return PriceBook(3, entries, {TENANT: TenantModels(aliases or {}, own)})


def price_id(found: PriceBook, tenant_id: int, model: str, at_ms: int) -> int:
    return found.resolve(tenant_id, model).entry.row_at(at_ms).id


@pytest.mark.parametrize(("at_ms", "price"), [(-(10**12), 1), (999, 1), (1_000, 1), (1_999, 1), (2_000, 2), (10**15, 2)])
def test_an_event_is_priced_by_the_row_in_force_when_it_happened(at_ms: int, price: int) -> None:
    assert price_id(book(), OTHER, SONNET, at_ms) == price


def test_a_tombstoned_model_still_prices() -> None:
    resolved = book().resolve(OTHER, "grok-3")
    assert (resolved.model_id, resolved.matched_by, resolved.entry.tombstoned) == ("xai/grok-3", MatchedBy.BARE, True)
    assert resolved.entry.row_at(5).id == 4


def test_an_unknown_model_names_the_nearest() -> None:
    for _ in range(2):
        with pytest.raises(NotFound) as raised:
            book().resolve(OTHER, "claude-sonet-4.6")
        assert raised.value.code == "model_not_found"
        assert raised.value.details == {"nearest": [SONNET]}


def test_an_ambiguous_model_names_the_candidates() -> None:
    with pytest.raises(Conflict) as raised:
        book().resolve(OTHER, "shared")
    assert raised.value.code == "ambiguous_model"
    assert raised.value.details == {"candidates": ["lab-a/shared", "lab-b/shared"]}


def test_a_known_model_without_a_price_is_an_error_and_not_free() -> None:
    with pytest.raises(NotFound) as raised:
        book().resolve(OTHER, "sonar").entry.row_at(5)
    assert raised.value.code == "model_unpriced"


def test_an_alias_wins_for_its_tenant_only() -> None:
    found = book(aliases={"gpt-4o": SONNET, "our-best": SONNET, "shared": "lab-b/shared"})
    resolved = found.resolve(TENANT, "gpt-4o")
    assert (resolved.model_id, resolved.matched_by) == (SONNET, MatchedBy.ALIAS)
    assert found.resolve(TENANT, "shared").model_id == "lab-b/shared"
    assert found.resolve(OTHER, "gpt-4o").model_id == "openai/gpt-4o"
    with pytest.raises(NotFound):
        found.resolve(OTHER, "our-best")


def test_an_override_holds_for_its_tenant_from_its_beginning_to_its_end() -> None:
    found = book(override(90, SONNET, 9, from_ms=1_500, to_ms=2_500))
    by_time = {
        at_ms: price_id(found, TENANT, "claude-sonnet-4-6", at_ms) for at_ms in (0, 1_499, 1_500, 2_000, 2_499, 2_500, 9_999)
    }
    assert by_time == {0: 1, 1_499: 1, 1_500: 90, 2_000: 90, 2_499: 90, 2_500: 2, 9_999: 2}
    assert price_id(found, OTHER, SONNET, 2_000) == 2


def test_the_exact_pattern_wins_over_the_longer_glob_over_the_shorter() -> None:
    found = book(
        override(90, "*", 1), override(91, "anthropic/*", 1), override(92, SONNET, 1), override(93, "anthropic/claude-*", 1)
    )
    assert price_id(found, TENANT, SONNET, 9_999) == 92
    assert price_id(found, TENANT, "gpt-4o", 9_999) == 90
    without_exact = book(override(90, "*", 1), override(91, "anthropic/*", 1), override(93, "anthropic/claude-*", 1))
    assert price_id(without_exact, TENANT, SONNET, 9_999) == 93


def test_the_newer_override_of_a_pattern_wins_while_both_hold() -> None:
    found = book(override(90, SONNET, 1, from_ms=0), override(91, SONNET, 1, from_ms=100))
    assert (price_id(found, TENANT, SONNET, 50), price_id(found, TENANT, SONNET, 100)) == (90, 91)


def test_an_override_prices_a_model_that_the_list_does_not() -> None:
    assert price_id(book(override(90, "perplexity/*", 9)), TENANT, "sonar", 5) == 90


def test_an_own_model_is_known_to_its_tenant_alone() -> None:
    found = book(override(90, "Acme/House-Model", 9, from_ms=1_000))
    resolved = found.resolve(TENANT, "acme/house-model")
    assert (resolved.model_id, resolved.matched_by) == ("Acme/House-Model", MatchedBy.CASE)
    assert found.resolve(TENANT, "Acme/House-Model").matched_by is MatchedBy.EXACT
    assert resolved.entry.row_at(1_000).id == 90
    with pytest.raises(NotFound) as raised:
        resolved.entry.row_at(999)
    assert raised.value.code == "model_unpriced"
    with pytest.raises(NotFound):
        found.resolve(OTHER, "Acme/House-Model")


def test_a_future_own_price_of_a_model_without_another_charges_nothing_before_it_begins() -> None:
    for pattern, model in (("acme/house", "acme/house"), ("perplexity/*", "sonar")):
        entry = book(override(90, pattern, 9, from_ms=1_000)).resolve(TENANT, model).entry
        assert entry.row_at(1_000).id == 90
        with pytest.raises(NotFound):
            entry.row_at(999)


def test_a_first_own_price_without_a_date_prices_late_events_and_a_dated_or_a_later_one_does_not() -> None:
    undated = override(90, "acme/house", 9, from_ms=1_000, to_ms=2_000, reaches_back=True)
    later = override(91, "acme/house", 9, from_ms=2_000, reaches_back=True)
    assert [price_id(book(undated, later), TENANT, "acme/house", at_ms) for at_ms in (0, 1_500, 2_000)] == [90, 90, 91]
    dated = override(89, "acme/house", 9, from_ms=500, to_ms=1_000)
    with pytest.raises(NotFound):
        price_id(book(dated, undated), TENANT, "acme/house", 499)
    never = override(88, "acme/house", 9, from_ms=100, to_ms=100, reaches_back=True)
    assert [price_id(book(never, undated), TENANT, "acme/house", at_ms) for at_ms in (0, 100, 500)] == [90] * 3
    with pytest.raises(NotFound):
        price_id(book(never, dated), TENANT, "acme/house", 0)


def test_a_first_own_price_without_a_date_leaves_late_events_of_a_listed_model_to_the_list() -> None:
    assert price_id(book(override(90, SONNET, 9, from_ms=5_000, reaches_back=True)), TENANT, SONNET, 1_000) == 1


@pytest.mark.parametrize("pattern", ["gpt-4o", "GPT-4o", "OpenAI/GPT-4o", "openai/gpt_4o"])
def test_an_own_price_under_another_way_of_writing_is_the_catalog_models(pattern: str) -> None:
    found = book(override(90, pattern, 9, from_ms=1_000, to_ms=2_000))
    for text in ("gpt-4o", "openai/gpt-4o", pattern):
        resolved = found.resolve(TENANT, text, 3_000)
        assert resolved.model_id == "openai/gpt-4o"
        assert [resolved.entry.row_at(at_ms).id for at_ms in (999, 1_000, 1_999, 2_000)] == [3, 90, 90, 3]


def test_an_own_price_under_a_native_id_holds_for_that_id_and_leaves_it_to_the_ladder_at_other_times() -> None:
    """A dated id may cost something else, so a price for it is not one for the model without the date."""
    found = book(override(90, "gpt-4o-2024-08-06", 9, from_ms=1_000, to_ms=2_000))
    during = found.resolve(TENANT, "gpt-4o-2024-08-06", 1_500)
    assert (during.model_id, during.matched_by, during.entry.row_at(1_500).id) == ("gpt-4o-2024-08-06", MatchedBy.EXACT, 90)
    for at_ms in (999, 2_000, None):
        resolved = found.resolve(TENANT, "gpt-4o-2024-08-06", at_ms)
        assert (resolved.model_id, resolved.matched_by) == ("openai/gpt-4o", MatchedBy.DATE)
        assert not during.is_settled
    assert price_id(found, TENANT, "gpt-4o", 1_500) == 3
    assert found.resolve(OTHER, "gpt-4o-2024-08-06").is_settled


def test_an_own_model_whose_name_means_several_others_is_ambiguous_once_it_ended() -> None:
    found = book(override(90, "shared", 9, from_ms=1_000, to_ms=2_000))
    assert found.resolve(TENANT, "shared", 1_000).model_id == "shared"
    with pytest.raises(Conflict):
        found.resolve(TENANT, "shared", 2_000)


def test_own_models_that_differ_in_case_alone_are_two() -> None:
    found = book(override(90, "acme/House", 9), override(91, "acme/house", 9))
    assert [price_id(found, TENANT, text, 5) for text in ("acme/House", "acme/house")] == [90, 91]


def test_an_entry_is_found_by_its_very_id_and_nothing_else() -> None:
    found = book(
        override(90, "acme/house", 9), override(91, "gpt-4o", 9), override(92, "lab-a/*", 9), aliases={"openai/gpt-4o": SONNET}
    )
    entries = [found.entry_of(TENANT, each) for each in ("openai/gpt-4o", "acme/house", "lab-a/shared", "gpt-4o")]
    assert [each and each.row_at(5).id for each in entries] == [91, 90, 92, 91]
    assert [found.entry_of(TENANT, each) for each in ("GPT-4o", "claude-sonnet-4-6", "Acme/House", "shared", "")] == [None] * 5
    assert found.entry_of(OTHER, "acme/house") is None
    other = found.entry_of(OTHER, "openai/gpt-4o")
    assert other is not None
    assert other.row_at(5).id == 3


def test_the_rows_of_a_span_are_those_in_force_in_it() -> None:
    entry = book(override(90, SONNET, 9, from_ms=1_500, to_ms=2_500)).resolve(TENANT, SONNET).entry
    assert [(start, found.id) for start, found in entry.rows_between(1_200, 2_600)] == [
        (1_200, 1),
        (1_500, 90),
        (2_000, 90),
        (2_500, 2),
    ]
    late = book().resolve(OTHER, SONNET).entry
    assert [(start, found.id) for start, found in late.rows_between(100, 200)] == [(100, 1)]
    assert ModelEntry("x/y").rows_between(0, 9) == []
    own = book(override(90, "acme/house", 9, from_ms=1_000, to_ms=2_000)).resolve(TENANT, "acme/house").entry
    assert [(start, found.id) for start, found in own.rows_between(0, 9_000)] == [(1_000, 90)]


@pytest.mark.parametrize(
    "text",
    ["gpt-4o-2024-05-13", "GPT-4o-2024-05-13", "azure/gpt-4o-2024-05-13", "openrouter/openai/gpt-4o-2024-05-13"],
)
def test_a_dated_id_that_kept_a_price_of_its_own_is_not_charged_by_the_undated_one(text: str) -> None:
    with pytest.raises(NotFound) as raised:
        book().resolve(TENANT, text)
    assert (raised.value.code, raised.value.details) == ("price_not_listed", {"model": "openai/gpt-4o"})
    own = book(override(90, text, 9), override(91, "gpt-4o", 9))
    assert price_id(own, TENANT, text, 5) == 90
    aliased = book(aliases={text: "openai/gpt-4o"})
    assert price_id(aliased, TENANT, text, 5) == 3


def test_a_catalog_that_lists_the_dated_id_prices_it() -> None:
    dated = "openai/gpt-4o-2024-05-13"
    found = PriceBook(1, [price_book.entry(dated, [row(7, 0, 70, dated)]), price_book.entry("openai/gpt-4o", [])])
    assert price_id(found, OTHER, "gpt-4o-2024-05-13", 5) == 7


def test_an_ended_own_model_prices_late_events_and_refuses_new_ones() -> None:
    entry = book(override(90, "acme/house", 9, from_ms=1_000, to_ms=2_000)).resolve(TENANT, "acme/house").entry
    assert entry.row_at(1_999).id == 90
    with pytest.raises(NotFound) as raised:
        entry.row_at(2_000)
    assert raised.value.code == "model_unpriced"


def test_a_glob_makes_no_models() -> None:
    with pytest.raises(NotFound):
        book(override(90, "acme/*", 9)).resolve(TENANT, "acme/house")


def test_other_wildcards_of_shells_mean_nothing() -> None:
    assert price_id(book(override(90, "openai/gpt-4?", 9), override(91, "openai/gpt-4[o]", 9)), TENANT, "gpt-4o", 5) == 3


def test_resolving_again_is_the_same_object() -> None:
    found = book()
    assert found.resolve(OTHER, "gpt-4o") is found.resolve(99, "gpt-4o")
    assert found.resolve(TENANT, "gpt-4o") is found.resolve(TENANT, "gpt-4o")


def test_the_memo_of_spellings_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_book, "_MEMO_MAX", 4)
    found = book()
    first = found.resolve(OTHER, "gpt-4o")
    for number in range(20):
        with pytest.raises(NotFound):
            found.resolve(OTHER, f"zzzz{number}")
    assert found.resolve(OTHER, "gpt-4o") == first
    assert found.resolve(OTHER, "gpt-4o") is not first


def test_a_book_lists_its_models_in_order() -> None:
    assert [each.model_id for each in book().entries()] == sorted(each.model_id for each in book().entries())
    assert len(book()) == 6
    assert ModelEntry("x/y").rows == ()


def test_bands_that_were_never_validated_are_refused() -> None:
    listed = Listed(1, 1)
    for starts in ((5,), (0, 10, 10), (0, 10, 5), ()):
        with pytest.raises(ValueError, match="ascend"):
            Price(tuple(Band(start, listed) for start in starts))


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*", True),
        ("openai/*", True),
        ("*/gpt-4o", True),
        ("openai/*4o", True),
        ("o*a*i*g*t*o", True),
        ("openai/gpt-4o", True),
        ("openai/gpt-4o*", True),
        ("openai/gpt-4o*o", False),
        ("openai/gpt-4", False),
        ("gpt-4o", False),
        ("*mini", False),
        ("openai/*-*-*", False),
    ],
)
def test_a_star_stands_for_any_text_and_nothing_else_does(pattern: str, *, matched: bool) -> None:
    assert overrides.matches(pattern, "openai/gpt-4o") is matched


def test_a_correction_that_reaches_back_overrules_what_it_corrects() -> None:
    wrong = override(1, "acme/a", 5, from_ms=100, to_ms=200)
    right = override(2, "acme/a", 7, from_ms=200)
    correction = override(3, "acme/a", 9, from_ms=50)
    assert [each.id for each in overrides.matching((wrong, right, correction), "acme/a")] == [3, 2, 1]

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


def override(override_id: int, pattern: str, pico: int, *, from_ms: int = 0, to_ms: int | None = None) -> Override:
    return Override(override_id, pattern, from_ms, to_ms, price_of(pico))


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
    assert resolved.entry.row_at(0).id == 90
    with pytest.raises(NotFound):
        found.resolve(OTHER, "Acme/House-Model")


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

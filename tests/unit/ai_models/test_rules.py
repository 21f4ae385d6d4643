"""What publishing a list would change, and when it is refused."""

from dataclasses import replace

import pytest

from tallybook.ai_models import rules
from tallybook.ai_models.model import ChangeKind, Known, Model, ModelList, Plan, Remark
from tallybook.pricing.rates import Band, Listed, Price


def price(pico: int, output: int | None = None) -> Price:
    return Price((Band(0, Listed(pico, pico if output is None else output)),))


def model(number: int, pico: int | None = 1_000) -> Model:
    return Model(f"lab/m{number}", "lab", f"M{number}", "language", price=None if pico is None else price(pico))


def known(*models: Model, removed: frozenset[str] = frozenset()) -> dict[str, Known]:
    return {each.id: Known(each, each.id in removed) for each in models}


def kinds(plan: Plan) -> dict[str, ChangeKind]:
    return {change.model.id: change.kind for change in plan.changes}


def plan(before: dict[str, Known], *listed: Model, accepted: frozenset[str] = frozenset()) -> Plan:
    return rules.plan(before, ModelList(listed), accepted)


def test_the_first_list_adds_everything() -> None:
    assert kinds(plan({}, model(1), model(2, None))) == {"lab/m1": ChangeKind.ADDED, "lab/m2": ChangeKind.ADDED}


def test_the_same_list_changes_nothing() -> None:
    assert plan(known(model(1), model(2)), model(2), model(1)).changes == ()


def test_each_kind_of_change_is_named() -> None:
    before = known(model(1), model(2, None), model(3), model(4), model(5), removed=frozenset({"lab/m5"}))
    found = plan(before, model(1, 2_000), model(2), replace(model(3), name="Other"), model(5), model(6))
    assert kinds(found) == {
        "lab/m1": ChangeKind.REPRICED,
        "lab/m2": ChangeKind.PRICED,
        "lab/m3": ChangeKind.DESCRIBED,
        "lab/m4": ChangeKind.REMOVED,
        "lab/m5": ChangeKind.RETURNED,
        "lab/m6": ChangeKind.ADDED,
    }
    assert {change.model.id: change.before for change in found.changes}["lab/m1"] == price(1_000)


def test_a_tombstone_that_stays_away_is_no_change() -> None:
    assert plan(known(model(1), model(2), removed=frozenset({"lab/m2"})), model(1)).changes == ()


@pytest.mark.parametrize(
    ("before", "now", "refused"), [(9, 6, False), (9, 5, True), (3, 2, False), (3, 1, True), (300, 200, False), (300, 199, True)]
)
def test_a_list_that_shrinks_by_more_than_a_third_is_refused_whole(before: int, now: int, *, refused: bool) -> None:
    found = plan(known(*map(model, range(before))), *map(model, range(now)))
    assert (found.refused is not None) is refused
    assert (found.changes == ()) is refused


def test_a_list_whose_priced_rows_shrink_by_more_than_a_third_is_refused_whole() -> None:
    before = known(*map(model, range(9)))
    found = plan(before, *map(model, range(5)), *(model(number, None) for number in range(5, 9)))
    assert found.refused is not None
    assert "priced" in found.refused


def test_rows_in_quarantine_count_as_present() -> None:
    before = known(*map(model, range(4)))
    listed = ModelList(tuple(map(model, range(3))), (Remark("lab/m3", "is odd"),))
    found = rules.plan(before, listed)
    assert (found.refused, found.changes) == (None, ())


def test_a_list_without_any_price_is_refused_even_as_the_first() -> None:
    assert plan({}, model(1, None)).refused is not None


def test_a_quarantined_model_is_neither_removed_nor_published() -> None:
    before = known(model(1), model(2))
    found = rules.plan(before, ModelList((model(1),), (Remark("lab/m2", "is odd"),)))
    assert found.changes == ()
    assert found.quarantined == (Remark("lab/m2", "is odd"),)


def test_a_model_that_lost_its_prices_keeps_them() -> None:
    before = known(model(1), model(2), model(3))
    for accepted in (frozenset[str](), frozenset({"lab/m2"})):
        found = plan(before, model(1), model(2, None), model(3), accepted=accepted)
        assert found.changes == ()
        assert [remark.model_id for remark in found.quarantined] == ["lab/m2"]


@pytest.mark.parametrize(("pico", "held"), [(10_000, False), (10_001, True), (100, False), (99, True), (0, True)])
def test_a_price_that_jumps_more_than_tenfold_waits_to_be_accepted(pico: int, *, held: bool) -> None:
    before = known(model(1), model(2))
    found = plan(before, model(1, pico), model(2))
    assert [remark.model_id for remark in found.quarantined] == (["lab/m1"] if held else [])
    assert kinds(found) == ({} if held else {"lab/m1": ChangeKind.REPRICED})
    assert kinds(plan(before, model(1, pico), model(2), accepted=frozenset({"lab/m1"}))) == {"lab/m1": ChangeKind.REPRICED}


def test_a_free_model_that_starts_to_cost_waits_to_be_accepted() -> None:
    assert plan(known(model(1, 0), model(2)), model(1, 5), model(2)).quarantined != ()


def test_one_kind_of_token_is_enough_for_a_jump() -> None:
    jumped = replace(model(1), price=price(1_000, 20_000))
    assert plan(known(model(1), model(2)), jumped, model(2)).quarantined != ()


def test_a_cache_price_that_appears_is_no_jump() -> None:
    cached = replace(model(1), price=Price((Band(0, Listed(1_000, 1_000, 0, 5)),)))
    assert kinds(plan(known(model(1), model(2)), cached, model(2))) == {"lab/m1": ChangeKind.REPRICED}


BANDS = (Band(0, Listed(1_000, 2_000, 500, 700, 900)), Band(200, Listed(2_000, 4_000, 1_000, 1_400, 1_800)))
FULL = Price(BANDS, {"flex": BANDS, "priority": BANDS[:1]}, 10**10)


def banded(changed: Listed, place: int) -> tuple[Band, ...]:
    return tuple(replace(band, listed=changed) if at == place else band for at, band in enumerate(BANDS))


@pytest.mark.parametrize("kind", ["input", "output", "cache_read", "cache_write", "cache_write_1h"])
@pytest.mark.parametrize("schedule", ["standard", "flex"])
@pytest.mark.parametrize("place", [0, 1])
def test_any_rate_of_any_band_and_tier_can_jump(kind: str, schedule: str, place: int) -> None:
    """Mutant: only the first standard band is compared."""
    for factor, held in ((10, False), (11, True)):
        listed = BANDS[place].listed
        bands = banded(replace(listed, **{kind: getattr(listed, kind) * factor}), place)
        jumped = (
            replace(FULL, standard=bands)
            if schedule == "standard"
            else replace(FULL, service_tiers={**FULL.service_tiers, "flex": bands})
        )
        before = known(replace(model(1), price=FULL), model(2))
        found = plan(before, replace(model(1), price=jumped), model(2))
        assert [remark.model_id for remark in found.quarantined] == (["lab/m1"] if held else [])
        if held:
            assert (
                f"{schedule} {kind.replace('_', ' ').replace('cache write 1h', '1-hour cache write')}"
                in found.quarantined[0].text
            )
            assert kinds(plan(before, replace(model(1), price=jumped), model(2), accepted=frozenset({"lab/m1"}))) != {}


@pytest.mark.parametrize(("fee", "held"), [(10**9, False), (10**9 - 1, True), (0, True), (10**11 + 1, True), (None, False)])
def test_a_web_search_fee_can_jump(fee: int | None, *, held: bool) -> None:
    found = plan(known(replace(model(1), price=FULL)), replace(model(1), price=replace(FULL, web_search=fee)))
    assert bool(found.quarantined) is held


def test_a_long_context_band_that_appears_is_compared_with_what_held_there() -> None:
    flat = Price(BANDS[:1])
    for factor, held in ((10, False), (11, True)):
        above = Band(200, Listed(1_000 * factor, 2_000, 500, 700, 900))
        found = plan(known(replace(model(1), price=flat)), replace(model(1), price=Price((BANDS[0], above))))
        assert bool(found.quarantined) is held


def test_a_cache_price_that_goes_is_compared_with_what_is_charged_in_its_place() -> None:
    for read, held in ((100, False), (99, True), (0, True)):
        cached = Price((Band(0, Listed(1_000, 1_000, read)),))
        found = plan(known(replace(model(1), price=cached)), model(1))
        assert bool(found.quarantined) is held


def test_a_service_tier_that_comes_or_goes_is_no_jump() -> None:
    plain = replace(FULL, service_tiers={})
    for before, now in ((FULL, plain), (plain, FULL)):
        found = plan(known(replace(model(1), price=before)), replace(model(1), price=now))
        assert kinds(found) == {"lab/m1": ChangeKind.REPRICED}

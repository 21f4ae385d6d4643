"""Rows in shapes that real lists have had, each with what comes of it. One bad row never costs the row beside it."""

import json
from datetime import UTC, datetime

import pytest

from tallybook.ai_models import gateway
from tallybook.ai_models.gateway import UnreadableListError
from tallybook.ai_models.model import Model
from tallybook.pricing.rates import Band, Listed, Price

GOOD = {"id": "good/neighbour", "type": "language", "pricing": {"input": "0.000001", "output": "0.000002"}}


def wire(*rows: object) -> bytes:
    return json.dumps({"object": "list", "data": rows}).encode()


def row(pricing: object, model_id: str = "lab/model", kind: str = "language", **more: object) -> dict[str, object]:
    return {"id": model_id, "type": kind, "owned_by": "lab", "name": "Model", "pricing": pricing, **more}


def read(found: object) -> Model:
    """The one model of a row that is fine."""
    listed = gateway.parse(wire(found, GOOD))
    assert not listed.quarantined
    [model] = [each for each in listed.models if each.id != GOOD["id"]]
    return model


def price(pricing: object, kind: str = "language") -> Price | None:
    return read(row(pricing, kind=kind)).price


def reason(found: object) -> str:
    """Why a row is in quarantine; its neighbour is published all the same."""
    listed = gateway.parse(wire(GOOD, found, {**GOOD, "id": "good/other"}))
    assert [model.id for model in listed.models] == ["good/neighbour", "good/other"]
    [remark] = listed.quarantined
    return remark.text


def flat(listed: Listed) -> Price:
    return Price((Band(0, listed),))


def tiers(*found: tuple[str, int | None, int | None]) -> list[dict[str, object]]:
    return [{key: value for key, value in zip(("cost", "min", "max"), each, strict=True) if value is not None} for each in found]


def test_flat_prices() -> None:
    pricing = {"input": "0.000003", "output": "0.000015", "input_cache_read": "0.0000003", "input_cache_write": "0.00000375"}
    assert price(pricing) == flat(Listed(3_000_000, 15_000_000, 300_000, 3_750_000))


def test_no_cache_prices_stay_unlisted() -> None:
    assert price({"input": "0.00000012", "output": "0.00000024"}) == flat(Listed(120_000, 240_000, None, None))


@pytest.mark.parametrize("pricing", [{}, None, {"input": None}])
def test_empty_pricing_is_known_and_unpriced(pricing: object) -> None:
    assert price(pricing) is None


def test_a_row_without_pricing_is_known_and_unpriced() -> None:
    assert read({"id": "lab/model", "type": "language"}).price is None


def test_an_explicit_zero_is_a_real_zero() -> None:
    assert price({"input": "0", "output": "0"}) == flat(Listed(0, 0))


def test_a_negative_price_is_quarantined() -> None:
    assert "negative" in reason(row({"input": "-1", "output": "-1"}))


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "1e999",
        "",
        " 1",
        "0x1",
        "1,5",
        "\u0661",
        "0.0000001 ",
        "1e-5000000",
        True,
        False,
        [],
        {},
        "1" * 60,
    ],
)
def test_a_price_that_is_no_decimal_is_quarantined(value: object) -> None:
    assert "input" in reason(row({"input": value, "output": "0.000001"}))


def test_garbage_in_any_price_quarantines_the_row() -> None:
    assert reason(row({"input": "NaN", "output": "1e999", "input_cache_read": True, "input_cache_write": None}))
    assert "input_cache_read" in reason(row({"input": "0.000001", "output": "0.000001", "input_cache_read": True}))


def test_bare_nan_and_infinity_in_the_json_cost_their_rows_only() -> None:
    for word in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5_000):
        body = wire(GOOD, row({"input": "PUT", "output": "0.000001"})).replace(b'"PUT"', word.encode())
        listed = gateway.parse(body)
        assert [model.id for model in listed.models] == ["good/neighbour"]
        assert len(listed.quarantined) == 1


def test_scientific_text_and_json_numbers_are_read_exactly() -> None:
    assert price({"input": "4.2e-8", "output": 2e-06}) == flat(Listed(42_000, 2_000_000))


def test_prices_above_the_band_are_quarantined() -> None:
    assert price({"input": "0.01", "output": "0.01"}) == flat(Listed(10**10, 10**10))
    assert "above" in reason(row({"input": "0.010000000001", "output": "0"}))
    assert "above" in reason(row({"input": 3, "output": 15}))


def test_a_boundary_at_200001_belongs_to_the_upper_tier() -> None:
    pricing = {
        "input": "0.00000125",
        "input_tiers": tiers(("0.00000125", 0, 200_001), ("0.0000025", 200_001, None)),
        "output": "0.00001",
        "output_tiers": tiers(("0.00001", 0, 200_001), ("0.000015", 200_001, None)),
        "input_cache_read": "0.000000125",
        "input_cache_read_tiers": tiers(("0.000000125", 0, 200_001), ("0.00000025", 200_001, None)),
        "web_search": "35",
        "maps_search": "25",
    }
    model = read(row(pricing))
    low, high = Listed(1_250_000, 10_000_000, 125_000), Listed(2_500_000, 15_000_000, 250_000)
    assert model.price == Price((Band(0, low), Band(200_001, high)), web_search=35 * 10**9)
    assert model.other_units == ("maps_search",)


def test_a_first_tier_without_min_starts_at_zero_and_flat_cache_prices_hold_in_every_tier() -> None:
    pricing = {
        "input": "0.000001",
        "input_tiers": tiers(("0.000001", None, 272_001), ("0.000002", 272_001, None)),
        "output": "0.000006",
        "output_tiers": tiers(("0.000006", 0, 272_001), ("0.000009", 272_001, None)),
        "input_cache_read": "0.0000001",
        "input_cache_write": "0.00000125",
    }
    low, high = Listed(1_000_000, 6_000_000, 100_000, 1_250_000), Listed(2_000_000, 9_000_000, 100_000, 1_250_000)
    assert price(pricing) == Price((Band(0, low), Band(272_001, high)))


def test_a_tier_list_that_starts_above_zero_takes_the_flat_price_below() -> None:
    pricing = {
        "input": "0.00000125",
        "output": "0.0000025",
        "input_cache_read": "0.0000002",
        "input_cache_read_tiers": tiers(("0.0000004", 200_001, None)),
    }
    low, high = Listed(1_250_000, 2_500_000, 200_000), Listed(1_250_000, 2_500_000, 400_000)
    assert price(pricing) == Price((Band(0, low), Band(200_001, high)))
    assert "no flat price" in reason(row({key: value for key, value in pricing.items() if key != "input_cache_read"}))


def test_four_tiers() -> None:
    pricing = {
        "input": "0.000001",
        "input_tiers": tiers(
            ("0.000001", 0, 32_001), ("0.0000018", 32_001, 128_001), ("0.000003", 128_001, 256_001), ("0.000006", 256_001, None)
        ),
        "output": "0.000005",
    }
    found = price(pricing)
    assert found is not None
    bands = [(band.from_tokens, band.listed.input) for band in found.standard]
    assert bands == [(0, 1_000_000), (32_001, 1_800_000), (128_001, 3_000_000), (256_001, 6_000_000)]


def test_kinds_with_other_boundaries_share_the_union_of_them() -> None:
    pricing = {
        "input": "0.000001",
        "input_tiers": tiers(("0.000001", 0, 100), ("0.000002", 100, None)),
        "output": "0.000005",
        "output_tiers": tiers(("0.000005", 0, 200), ("0.000006", 200, None)),
    }
    found = price(pricing)
    assert found is not None
    bands = [(band.from_tokens, band.listed.input, band.listed.output) for band in found.standard]
    assert bands == [(0, 1_000_000, 5_000_000), (100, 2_000_000, 5_000_000), (200, 2_000_000, 6_000_000)]


def test_tiers_at_one_price_are_one_band() -> None:
    pricing = {"input": "0.000001", "input_tiers": tiers(("0.000001", 0, 100), ("0.000001", 100, None)), "output": "0.000005"}
    assert price(pricing) == flat(Listed(1_000_000, 5_000_000))


@pytest.mark.parametrize("end", [99, 101])
def test_a_boundary_counted_the_other_way_is_joined_at_min_with_a_remark(end: int) -> None:
    found = row({"input_tiers": tiers(("0.000001", 0, end), ("0.000002", 100, None)), "output": "0.000005"})
    listed = gateway.parse(wire(found))
    [model] = listed.models
    assert model.price is not None
    assert [band.from_tokens for band in model.price.standard] == [0, 100]
    assert [remark.text for remark in listed.repaired] == ["input_tiers joined at each tier's min"]


@pytest.mark.parametrize(
    "found",
    [
        tiers(("0.000001", 0, 100), ("0.000002", 200, None)),
        tiers(("0.000001", 0, 300), ("0.000002", 200, None)),
        tiers(("0.000001", 0, 100), ("0.000002", 0, None)),
        tiers(("0.000001", 100, None), ("0.000002", 0, None)),
        tiers(("0.000003", 0, 100), ("0.000002", 100, None)),
        tiers(("0.000001", 0, None), ("0.000002", None, None)),
        tiers(("-1", 0, None)),
        [{"cost": "0.000001", "min": -5}],
        [{"cost": "0.000001", "min": 0.5}],
        [{"cost": "0.000001", "min": "0"}],
        [{"cost": "0.000001", "min": True}],
        [{"min": 0}],
        ["tier"],
        [],
        "tiers",
        tiers(*(("0.000001", start, None) for start in range(17))),
        [{"cost": "0.000001", "min": 0, "max": 10}, {"cost": "0.000002", "min": 10, "max": 5}],
    ],
)
def test_tiers_that_do_not_join_are_quarantined(found: object) -> None:
    assert "input_tiers" in reason(row({"input": "0.000001", "input_tiers": found, "output": "0.000005"}))


def test_service_tiers_with_long_context() -> None:
    pricing = {
        "input": "0.0000025",
        "output": "0.000015",
        "input_cache_read": "0.00000025",
        "web_search": "10",
        "service_tiers": {
            "priority": {"input": "0.000005", "output": "0.00003", "input_cache_read": "0.0000005"},
            "flex": {
                "input": "0.00000125",
                "output": "0.0000075",
                "input_cache_read": "0.00000013",
                "long_context": {
                    "threshold": 272_000,
                    "input": "0.0000025",
                    "output": "0.00001125",
                    "input_cache_read": "0.00000025",
                },
            },
        },
    }
    found = price(pricing)
    assert found is not None
    assert found.service_tiers == {
        "flex": (Band(0, Listed(1_250_000, 7_500_000, 130_000)), Band(272_001, Listed(2_500_000, 11_250_000, 250_000))),
        "priority": (Band(0, Listed(5_000_000, 30_000_000, 500_000)),),
    }
    assert found.web_search == 10**10


@pytest.mark.parametrize(
    ("threshold", "boundary", "start"), [(272_000, 272_000, 272_000), (200_000, 200_001, 200_001), (5, 9, 6)]
)
def test_a_long_context_threshold_begins_at_the_models_own_boundary_next_to_it(threshold: int, boundary: int, start: int) -> None:
    above = {"threshold": threshold, "input": "0.000002", "output": "0.000003"}
    pricing = {
        "input_tiers": tiers(("0.000001", 0, boundary), ("0.000002", boundary, None)),
        "output": "0.000005",
        "service_tiers": {"flex": {"input": "0.000001", "output": "0.000002", "long_context": above}},
    }
    found = price(pricing)
    assert found is not None
    assert [band.from_tokens for band in found.service_tiers["flex"]] == [0, start]


def test_an_incomplete_service_tier_is_left_out_with_a_remark_and_an_unreadable_one_quarantines() -> None:
    incomplete = {"input": "0.000001", "output": "0.000002", "service_tiers": {"flex": {"input": "0.0000005"}, "turbo": {}}}
    listed = gateway.parse(wire(row(incomplete)))
    [model] = listed.models
    assert model.price == flat(Listed(1_000_000, 2_000_000))
    assert model.other_units == ("service_tiers.turbo",)
    assert ["flex" in remark.text for remark in listed.repaired] == [True]
    unreadable = {**incomplete, "service_tiers": {"flex": {"input": "0.0000005", "output": "free"}}}
    assert "service_tiers.flex.output" in reason(row(unreadable))


def test_regional_and_fast_prices_are_named_and_left_out() -> None:
    fast = {"input": "0.000002", "output": "0.00001"}
    model = read(row({"input": "0.000001", "output": "0.000005", "fast": fast, "regional": {"us": fast}}, regions=["eu", "us"]))
    assert model.price == flat(Listed(1_000_000, 5_000_000))
    assert model.other_units == ("fast", "regional")


def test_ten_decimals_are_exact() -> None:
    found = price({"input": "0.0000015625", "output": "0.00000625", "input_cache_read": "0.0000000028"})
    assert found == flat(Listed(1_562_500, 6_250_000, 2_800))


def test_a_tenth_of_a_nano_is_exact() -> None:
    pricing = {"input": "0.0000000001", "transcription_duration_cost_per_second": "0.0001"}
    model = read(row(pricing, kind="transcription"))
    assert model.price == flat(Listed(100))
    assert model.other_units == ("transcription_duration_cost_per_second",)


def test_endless_digits_are_rounded_half_even_with_a_remark() -> None:
    pricing = {"input": "0.0000003", "output": "0.0000025", "input_cache_write": "0.00000004166666666666667"}
    listed = gateway.parse(wire(row(pricing)))
    [model] = listed.models
    assert model.price == flat(Listed(300_000, 2_500_000, None, 41_667))
    assert [remark.text for remark in listed.repaired] == ["input_cache_write rounded half-even to 1e-12 USD"]


@pytest.mark.parametrize("value", ["0.0000000000001", "0.0000000000015", "1e-40"])
def test_a_price_that_rounding_would_change_is_quarantined_and_never_zero(value: str) -> None:
    assert "finer" in reason(row({"input": value, "output": "0.000001"}))


def test_a_type_of_no_enum_is_taken_and_limits_of_zero_are_none() -> None:
    model = read(row({"input": "0.000000042", "output": "0"}, kind="evaluation", context_window=0, max_tokens=0, zdr="all"))
    assert (model.type, model.context_window, model.output_max) == ("evaluation", None, None)
    assert model.price == flat(Listed(42_000, 0))


def test_image_prices_are_no_token_prices() -> None:
    model = read(row({"image": "0.04", "image_dimension_quality_pricing": [{"size": "1K", "cost": "0.04"}]}, kind="image"))
    assert model.price is None
    assert model.other_units == ("image", "image_dimension_quality_pricing")


def test_video_prices_are_no_token_prices() -> None:
    by_token = {"no_video_input": {"cost_per_million_tokens": "7"}, "notes": "x"}
    model = read(row({"video_duration_pricing": [{"cost_per_second": "0.1"}], "video_token_pricing": by_token}, kind="video"))
    assert model.price is None


def test_zero_tokens_beside_a_price_per_second_is_unpriced_and_not_free() -> None:
    assert price({"input": "0", "transcription_duration_cost_per_second": "0.000028"}, "transcription") is None


def test_a_realtime_model_is_priced_by_its_text_tokens() -> None:
    pricing = {"input": "0.000004", "output": "0.000016", "audio_input_token_cost": "0.000032"}
    model = read(row(pricing, kind="realtime"))
    assert model.price == flat(Listed(4_000_000, 16_000_000))
    assert model.other_units == ("audio_input_token_cost",)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1_790_000_000_000, datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        (1_790_000_000, datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        (10**30, None),
        ("soon", None),
        (-5, None),
    ],
)
def test_a_deprecation_date_is_read_in_seconds_or_milliseconds(value: object, moment: datetime | None) -> None:
    assert read(row({"input": "0.000001", "output": "0.000002"}, deprecated_at=value)).deprecated_at == moment


def test_an_id_keeps_its_case() -> None:
    model = read(row({"input": "0.000001", "output": "0.000002"}, "OtherLab/Mixed.Case-Model"))
    assert (model.id, model.provider) == ("OtherLab/Mixed.Case-Model", "OtherLab")


def test_two_owners_of_one_name_are_two_models() -> None:
    pricing = {"input": "0.000001", "output": "0.000002"}
    listed = gateway.parse(wire(row(pricing, "lab-a/shared-name"), row(pricing, "lab-b/shared-name")))
    assert [model.id for model in listed.models] == ["lab-a/shared-name", "lab-b/shared-name"]


def test_a_language_model_without_an_output_price_is_quarantined_and_an_embedding_is_not() -> None:
    assert "no output price" in reason(row({"input": "0.000001"}))
    assert price({"input": "0.00000002"}, "embedding") == flat(Listed(20_000))


def test_token_prices_without_an_input_price_are_quarantined() -> None:
    assert "no input price" in reason(row({"output": "0.000001"}))


@pytest.mark.parametrize(
    "model_id", [None, 7, "", "no-owner", "/x", "x/", "a b/c", "lab/mo\ndel", "lab/\u0430", "l/" + "x" * 200, ["lab/model"]]
)
def test_a_row_without_a_usable_id_is_quarantined_by_number(model_id: object) -> None:
    listed = gateway.parse(wire(GOOD, {"id": model_id, "pricing": {"input": "0.000001", "output": "0.000001"}}))
    assert [model.id for model in listed.models] == ["good/neighbour"]
    assert [remark.model_id for remark in listed.quarantined] == ["row 1"]


@pytest.mark.parametrize("found", [None, 5, "text", [], True])
def test_a_row_that_is_no_object_is_quarantined(found: object) -> None:
    assert reason(found) == "the row is no object"


def test_the_same_row_twice_is_one_model_and_two_that_differ_are_none() -> None:
    same, other = row({"input": "0.000001", "output": "0.000002"}), row({"input": "0.000009", "output": "0.000002"})
    assert len(gateway.parse(wire(same, same)).models) == 1
    assert len(gateway.parse(wire(GOOD, same, other)).models) == 1
    assert [remark.text for remark in gateway.parse(wire(GOOD, same, other)).quarantined] == ["is listed twice, differently"]


def test_a_good_row_beside_a_bad_one_of_the_same_id_is_not_trusted() -> None:
    listed = gateway.parse(wire(GOOD, row({"input": "0.000001", "output": "0.000002"}), row({"input": "-1", "output": "0"})))
    assert [model.id for model in listed.models] == ["good/neighbour"]


def test_odd_names_fall_back_to_the_id() -> None:
    for name in (None, 5, "", "  ", "a\x00b", "\ud800"):
        assert read(row({"input": "0.000001", "output": "0.000002"}) | {"name": name}).name == "lab/model"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"null", b'{"data": []}', b'{"data": {}}', b'{"models": [1]}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_list_is_an_error_of_the_whole(body: bytes) -> None:
    with pytest.raises(UnreadableListError):
        gateway.parse(body)


def test_a_list_without_end_is_refused() -> None:
    body = b'{"data": [' + b",".join([b"1"] * (gateway.ROWS_MAX + 1)) + b"]}"
    with pytest.raises(UnreadableListError):
        gateway.parse(body)

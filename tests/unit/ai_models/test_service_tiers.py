"""Service tiers of a list: what is read of them, and that nothing in them is dropped without a word."""

import json

import pytest

from tallybook.ai_models import gateway
from tallybook.ai_models.model import Model, ModelList
from tallybook.pricing.rates import Band, Listed, Price

FLEX = {"input": "0.000001", "output": "0.000002"}


def parse(value: object) -> ModelList:
    """A list of one model with this flex tier."""
    pricing = {"input": "0.000002", "output": "0.000004", "service_tiers": {"flex": value}}
    return gateway.parse(json.dumps({"data": [{"id": "lab/model", "type": "language", "pricing": pricing}]}).encode())


def flex(value: object) -> tuple[tuple[Band, ...] | None, Model]:
    [model] = parse(value).models
    assert model.price is not None
    return model.price.service_tiers.get("flex"), model


def test_a_service_tier_may_have_tiers_of_its_own() -> None:
    """Mutant: `input_tiers` inside a service tier are dropped, and long requests pay the short rate."""
    bands, model = flex({**FLEX, "input_tiers": [{"cost": "0.000001", "max": 200_000}, {"cost": "0.000003", "min": 200_000}]})
    assert bands == (Band(0, Listed(1_000_000, 2_000_000)), Band(200_000, Listed(3_000_000, 2_000_000)))
    assert model.other_units == ()


def test_a_long_context_price_that_is_the_short_one_is_still_stated() -> None:
    bands, _ = flex({**FLEX, "long_context": {**FLEX, "threshold": 200_000}})
    assert bands == (Band(0, Listed(1_000_000, 2_000_000)), Band(200_001, Listed(1_000_000, 2_000_000)))


def test_a_service_tier_that_says_twice_what_long_context_costs_is_left_out() -> None:
    both = {
        **FLEX,
        "input_tiers": [{"cost": "0.000001", "max": 9}, {"cost": "0.000003", "min": 9}],
        "long_context": {**FLEX, "threshold": 9},
    }
    listed = parse(both)
    assert listed.models[0].price == Price((Band(0, Listed(2_000_000, 4_000_000)),))
    assert "service_tiers.flex left out" in listed.repaired[0].text


def test_what_a_service_tier_lists_beside_tokens_is_named() -> None:
    _, model = flex({**FLEX, "audio": "1", "web_search": "5", "long_context": {**FLEX, "threshold": 9, "image": "1"}})
    assert model.other_units == (
        "service_tiers.flex.audio",
        "service_tiers.flex.long_context.image",
        "service_tiers.flex.web_search",
    )


@pytest.mark.parametrize(
    "value", [{**FLEX, "input_tiers": "x"}, {**FLEX, "long_context": []}, {**FLEX, "output_tiers": [{"cost": "-1", "min": 0}]}]
)
def test_a_service_tier_that_cannot_be_read_quarantines_the_row(value: object) -> None:
    listed = parse(value)
    assert listed.models == ()
    assert "service_tiers.flex" in listed.quarantined[0].text

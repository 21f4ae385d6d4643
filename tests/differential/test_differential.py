"""Every catalog model that genai-prices or litellm also knows, priced by both; each disagreement is listed and explained."""

import collections

import pytest

from tests.differential import comparison, shapes
from tests.differential.comparison import Compared

CATEGORIES = {
    "taken for another model",
    "refused by the oracle",
    "other list price",
    "1-hour cache writes",
    "cache price",
    "boundary of a long-context tier",
    "long-context tier",
}


@pytest.fixture(scope="module")
def compared() -> list[Compared]:
    return comparison.compare()


def test_models_agree_to_the_nano_dollar_or_are_listed_with_the_reason(compared: list[Compared]) -> None:
    found, recorded = comparison.disagreements(compared), comparison.recorded()
    assert found.keys() == recorded.keys()
    for oracle, models in found.items():
        assert models.keys() == recorded[oracle].keys(), "run `python -m tests.differential` and look at the difference"
        for model, disagreement in models.items():
            assert disagreement == recorded[oracle][model], (oracle, model)


def test_most_of_the_catalog_is_known_to_an_oracle_and_most_of_that_agrees(compared: list[Compared]) -> None:
    known = {each.model for each in compared}
    agreeing = {each.model for each in compared if not each.differing}
    assert len(known) >= 175
    assert len(agreeing) >= 115


def test_every_model_is_priced_in_at_least_ten_shapes(compared: list[Compared]) -> None:
    assert min(each.shapes for each in compared) >= 20
    rows = shapes.priced_models()
    for model, row in rows.items():
        names = shapes.of_row(row)
        for start in row.standard.starts[1:]:
            assert {f"{start - 1} in", f"{start} in", f"{start + 1} in"} <= names.keys(), model
        assert {"nothing", "a billion", "1-hour write", "cache read"} <= names.keys()


def test_every_disagreement_has_a_category_and_a_sentence_with_both_figures() -> None:
    for oracle, models in comparison.recorded().items():
        for model, disagreement in models.items():
            assert disagreement["category"] in CATEGORIES, (oracle, model)
            sentence = str(disagreement["explanation"])
            assert "Tallybook says $" in sentence
            assert str(disagreement["reference"]) in sentence


def test_a_shape_that_differs_by_a_nano_dollar_is_noticed() -> None:
    answer = {"reference": "x", "usd": {"plain": "0.000000002"}}
    compare = comparison._compared  # pyright: ignore[reportPrivateUsage]
    assert compare("genai-prices", "lab/a", {"plain": 2}, answer).differing == {}
    for nano in (1, 3):
        assert compare("genai-prices", "lab/a", {"plain": nano}, answer).differing.keys() == {"plain"}
        assert compare("litellm", "lab/a", {"plain": nano}, answer).differing.keys() == {"plain"}


def test_both_oracles_agree_with_most_of_what_anthropic_openai_and_google_sell(compared: list[Compared]) -> None:
    agreeing = collections.Counter(each.model.partition("/")[0] for each in compared if not each.differing)
    assert {owner: agreeing[owner] >= least for owner, least in (("anthropic", 10), ("openai", 60), ("google", 15))} == {
        "anthropic": True,
        "openai": True,
        "google": True,
    }, agreeing

"""The ladder from a caller's text to a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.pricing.model_ids import Ambiguous, Match, MatchedBy, ModelIds

ACTIVE = (
    "anthropic/claude-sonnet-4.5",
    "anthropic/claude-sonnet-4.6",
    "anthropic/claude-opus-4",
    "anthropic/claude-opus-4.1",
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
    "openai/gpt-5",
    "openai/gpt-5-chat",
    "openai/gpt-oss-120b",
    "reseller/gpt-5",
    "google/gemini-2.5-pro",
    "lab-a/shared-name",
    "lab-b/shared-name",
    "lab-a/two.ways",
    "lab-a/two-ways",
    "OtherLab/Mixed.Case-Model",
    "nvidia/nemotron-nano-9b-v2",
    "cohere/embed-v4.0",
    "cohere/embed",
    "mistral/mistral-small",
)
TOMBSTONED = ("xai/grok-3", "openai/gpt-4o-old", "lab-c/gpt-4o")
IDS = ModelIds(ACTIVE, TOMBSTONED)


@pytest.mark.parametrize(
    ("text", "model_id", "matched_by"),
    [
        ("anthropic/claude-sonnet-4.6", "anthropic/claude-sonnet-4.6", MatchedBy.EXACT),
        ("xai/grok-3", "xai/grok-3", MatchedBy.EXACT),
        ("OtherLab/Mixed.Case-Model", "OtherLab/Mixed.Case-Model", MatchedBy.EXACT),
        ("Anthropic/Claude-Sonnet-4.6", "anthropic/claude-sonnet-4.6", MatchedBy.CASE),
        ("otherlab/mixed.case-model", "OtherLab/Mixed.Case-Model", MatchedBy.CASE),
        ("gpt-4o", "openai/gpt-4o", MatchedBy.BARE),
        ("GPT-4o-Mini", "openai/gpt-4o-mini", MatchedBy.BARE),
        ("gpt-5", "openai/gpt-5", MatchedBy.BARE),
        ("grok-3", "xai/grok-3", MatchedBy.BARE),
        ("claude-sonnet-4-6", "anthropic/claude-sonnet-4.6", MatchedBy.PUNCTUATION),
        ("anthropic/claude_sonnet_4_6", "anthropic/claude-sonnet-4.6", MatchedBy.PUNCTUATION),
        ("mixed-case_model", "OtherLab/Mixed.Case-Model", MatchedBy.PUNCTUATION),
        ("models/gemini-2.5-pro", "google/gemini-2.5-pro", MatchedBy.WRAPPER),
        ("openrouter/anthropic/claude-sonnet-4.6", "anthropic/claude-sonnet-4.6", MatchedBy.WRAPPER),
        ("vercel_ai_gateway/openai/gpt-4o", "openai/gpt-4o", MatchedBy.WRAPPER),
        ("litellm/azure/gpt-4o", "openai/gpt-4o", MatchedBy.WRAPPER),
        ("claude-opus-4-1@20250805", "anthropic/claude-opus-4.1", MatchedBy.WRAPPER),
        ("us.anthropic.claude-sonnet-4-6-v1:0", "anthropic/claude-sonnet-4.6", MatchedBy.WRAPPER),
        ("openai.gpt-oss-120b-1:0", "openai/gpt-oss-120b", MatchedBy.WRAPPER),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic/claude-sonnet-4.5", MatchedBy.DATE),
        ("claude-opus-4-20250514", "anthropic/claude-opus-4", MatchedBy.DATE),
        ("gpt-4o-2024-08-06", "openai/gpt-4o", MatchedBy.DATE),
        ("gpt-5-chat-latest", "openai/gpt-5-chat", MatchedBy.LATEST),
        ("openrouter/mistralai/mistral-small-latest", "mistral/mistral-small", MatchedBy.LATEST),
    ],
)
def test_each_rung_finds_the_model_and_says_so(text: str, model_id: str, matched_by: MatchedBy) -> None:
    assert IDS.find(text) == Match(model_id, matched_by)


@pytest.mark.parametrize(
    "text",
    [
        "gpt-4o-fast",
        "gpt-4o:free",
        "openai/gpt-4o-batch",
        "gpt-4",
        "gpt-4o-m",
        "pt-4o",
        "4o",
        "claude-sonnet",
        "claude-sonnet-4",
        "claude-sonnet-4.6-fast",
        "claude-opus-4-1-mini",
        "openrouter/openai/gpt-4o:free",
        "elsewhere/gpt-4o",
        "gpt-4o-1106",
        "gpt-4o-2024-13-40",
        "gpt-4o-20249999",
        "gpt-4o-2024-08-06-2024-08-07",
        "gpt-4o-latest-fast",
        "us.anthropic.claude-opus-4-9:0",
        "cohere.embed-v5:0",
        "nvidia.nemotron-nano-9b-v1",
        "models/",
        "openrouter/",
        "/",
        "",
        "\u0261pt-4o",
        "gpt\u20114o",
        "gpt-4o\u00a0",
        " gpt-4o",
        "gpt-4o\n",
        "g" * 300,
    ],
)
def test_what_is_not_a_whole_id_matches_nothing(text: str) -> None:
    assert IDS.find(text) is None


def test_a_bare_id_of_several_owners_without_a_maker_is_ambiguous() -> None:
    assert IDS.find("shared-name") == Ambiguous(("lab-a/shared-name", "lab-b/shared-name"))
    assert IDS.find("lab-a/shared-name") == Match("lab-a/shared-name", MatchedBy.EXACT)


def test_an_active_owner_wins_over_a_tombstoned_one() -> None:
    assert IDS.find("gpt-4o") == Match("openai/gpt-4o", MatchedBy.BARE)


def test_two_ids_that_fold_alike_are_ambiguous_only_for_other_spellings() -> None:
    assert IDS.find("lab-a/two.ways") == Match("lab-a/two.ways", MatchedBy.EXACT)
    assert IDS.find("lab-a/two_ways") == Ambiguous(("lab-a/two-ways", "lab-a/two.ways"))


def test_a_bedrock_version_that_belongs_to_the_model_stays() -> None:
    assert IDS.find("nvidia.nemotron-nano-9b-v2") == Match("nvidia/nemotron-nano-9b-v2", MatchedBy.WRAPPER)


def test_the_nearest_ids_come_first() -> None:
    assert IDS.nearest("claude-sonet-4.6")[0] == "anthropic/claude-sonnet-4.6"
    assert IDS.nearest("gpt4o")[0] in {"openai/gpt-4o", "openai/gpt-4o-mini", "openai/gpt-4o-old", "lab-c/gpt-4o"}
    assert IDS.nearest("zzzzzzzzzz") == ()


@given(st.text(max_size=400))
def test_any_text_gives_an_answer(text: str) -> None:
    found = IDS.find(text)
    assert found is None or isinstance(found, Match | Ambiguous)
    assert set(IDS.nearest(text)) <= {*ACTIVE, *TOMBSTONED}


@given(
    st.sampled_from(ACTIVE),
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8).filter(
        lambda word: word not in {"latest", "mini", "chat", "old", "pro"}
    ),
    st.sampled_from("-:."),
)
def test_a_word_behind_an_id_is_another_model(model_id: str, word: str, mark: str) -> None:
    assert IDS.find(f"{model_id}{mark}{word}") is None

"""The ids that providers' own APIs use find the right rows of the packaged catalog, and look-alikes find none."""

import pytest

from tallybook.ai_models import catalog_files
from tallybook.core.errors import NotFound
from tallybook.pricing.price_book import PriceBook

NATIVE = {
    # Anthropic
    "claude-fable-5": "anthropic/claude-fable-5",
    "claude-sonnet-5": "anthropic/claude-sonnet-5",
    "claude-opus-4-8": "anthropic/claude-opus-4.8",
    "claude-opus-4-7": "anthropic/claude-opus-4.7",
    "claude-opus-4-6": "anthropic/claude-opus-4.6",
    "claude-sonnet-4-6": "anthropic/claude-sonnet-4.6",
    "claude-opus-4-5-20251101": "anthropic/claude-opus-4.5",
    "claude-opus-4-5": "anthropic/claude-opus-4.5",
    "claude-sonnet-4-5-20250929": "anthropic/claude-sonnet-4.5",
    "claude-sonnet-4-5": "anthropic/claude-sonnet-4.5",
    "claude-haiku-4-5-20251001": "anthropic/claude-haiku-4.5",
    "claude-haiku-4-5": "anthropic/claude-haiku-4.5",
    "claude-opus-4-1-20250805": "anthropic/claude-opus-4.1",
    "claude-opus-4-1": "anthropic/claude-opus-4.1",
    "claude-opus-4-20250514": "anthropic/claude-opus-4",
    "claude-sonnet-4-20250514": "anthropic/claude-sonnet-4",
    "claude-3-haiku-20240307": "anthropic/claude-3-haiku",
    # OpenAI
    "gpt-5.5-2026-04-23": "openai/gpt-5.5",
    "gpt-5.4-2026-03-05": "openai/gpt-5.4",
    "gpt-5.4-mini": "openai/gpt-5.4-mini",
    "gpt-5.2-2025-12-11": "openai/gpt-5.2",
    "gpt-5.2-codex": "openai/gpt-5.2-codex",
    "gpt-5.1-codex-max": "openai/gpt-5.1-codex-max",
    "gpt-5-2025-08-07": "openai/gpt-5",
    "gpt-5-mini-2025-08-07": "openai/gpt-5-mini",
    "gpt-5-nano-2025-08-07": "openai/gpt-5-nano",
    "gpt-5-pro-2025-10-06": "openai/gpt-5-pro",
    "gpt-5-chat-latest": "openai/gpt-5-chat",
    "gpt-4.1-2025-04-14": "openai/gpt-4.1",
    "gpt-4.1-mini-2025-04-14": "openai/gpt-4.1-mini",
    "gpt-4.1-nano-2025-04-14": "openai/gpt-4.1-nano",
    "gpt-4o-2024-08-06": "openai/gpt-4o",
    "gpt-4o-2024-11-20": "openai/gpt-4o",
    "gpt-4o-mini-2024-07-18": "openai/gpt-4o-mini",
    "gpt-4-turbo-2024-04-09": "openai/gpt-4-turbo",
    "o1-2024-12-17": "openai/o1",
    "o3-2025-04-16": "openai/o3",
    "o3-mini-2025-01-31": "openai/o3-mini",
    "o3-pro-2025-06-10": "openai/o3-pro",
    "o4-mini-2025-04-16": "openai/o4-mini",
    "text-embedding-3-small": "openai/text-embedding-3-small",
    "text-embedding-3-large": "openai/text-embedding-3-large",
    # Google
    "gemini-2.5-pro": "google/gemini-2.5-pro",
    "models/gemini-2.5-pro": "google/gemini-2.5-pro",
    "models/gemini-2.5-flash": "google/gemini-2.5-flash",
    "models/gemini-2.5-flash-lite": "google/gemini-2.5-flash-lite",
    "models/gemini-2.5-flash-image": "google/gemini-2.5-flash-image",
    "gemini-3-pro-preview": "google/gemini-3-pro-preview",
    "models/gemini-3.1-pro-preview": "google/gemini-3.1-pro-preview",
    "models/gemini-3.5-flash": "google/gemini-3.5-flash",
    "models/gemini-embedding-001": "google/gemini-embedding-001",
    "models/gemma-4-31b-it": "google/gemma-4-31b-it",
    # Bedrock
    "anthropic.claude-sonnet-4-6": "anthropic/claude-sonnet-4.6",
    "us.anthropic.claude-sonnet-4-6": "anthropic/claude-sonnet-4.6",
    "global.anthropic.claude-opus-4-6-v1": "anthropic/claude-opus-4.6",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0": "anthropic/claude-sonnet-4.5",
    "eu.anthropic.claude-haiku-4-5-20251001-v1:0": "anthropic/claude-haiku-4.5",
    "us.anthropic.claude-opus-4-1-20250805-v1:0": "anthropic/claude-opus-4.1",
    "apac.anthropic.claude-sonnet-4-20250514-v1:0": "anthropic/claude-sonnet-4",
    "anthropic.claude-3-haiku-20240307-v1:0": "anthropic/claude-3-haiku",
    "anthropic.claude-3-haiku-20240307-v1:0:48k": "anthropic/claude-3-haiku",
    "amazon.nova-pro-v1:0": "amazon/nova-pro",
    "us.amazon.nova-lite-v1:0": "amazon/nova-lite",
    "us.amazon.nova-micro-v1:0": "amazon/nova-micro",
    "us.amazon.nova-2-lite-v1:0": "amazon/nova-2-lite",
    "amazon.titan-embed-text-v2:0": "amazon/titan-embed-text-v2",
    "cohere.rerank-v3-5:0": "cohere/rerank-v3.5",
    "minimax.minimax-m2": "minimax/minimax-m2",
    "moonshotai.kimi-k2.5": "moonshotai/kimi-k2.5",
    "nvidia.nemotron-nano-9b-v2": "nvidia/nemotron-nano-9b-v2",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-1-20250805-v1:0": (
        "anthropic/claude-opus-4.1"
    ),
    "arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-pro-v1:0": "amazon/nova-pro",
    # Vertex
    "claude-sonnet-4-5@20250929": "anthropic/claude-sonnet-4.5",
    "claude-opus-4-1@20250805": "anthropic/claude-opus-4.1",
    "claude-haiku-4-5@20251001": "anthropic/claude-haiku-4.5",
    "claude-opus-4-6@default": "anthropic/claude-opus-4.6",
    "claude-3-haiku@20240307": "anthropic/claude-3-haiku",
    "text-embedding-005": "google/text-embedding-005",
    "publishers/google/models/gemini-2.5-flash": "google/gemini-2.5-flash",
    "projects/p-1/locations/us-east5/publishers/anthropic/models/claude-sonnet-4@20250514": "anthropic/claude-sonnet-4",
}
LOOK_ALIKES = (
    "gpt-4o-fast",
    "gpt-4o:free",
    "gpt-4o-batch",
    "gpt-4o-nano",
    "gpt-4o-0513",
    "gpt-4",
    "gpt-4-1106-preview",
    "gpt-5.1",
    "gpt-5.3",
    "gpt-5-turbo",
    "claude-sonnet-4-6-fast",
    "claude-sonnet",
    "claude-opus-4-6-fast",
    "claude-sonnet-46",
    "claude-3-5-sonnet-20241022",
    "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "gemini-2.5",
    "gemini-2.5-pro-flash",
    "gemini-2.0-flash-001",
    "deepseek-r1:free",
    "openrouter/deepseek/deepseek-r1:free",
    "deepseek.r1-v1:0",
    "o1-mini",
    "o3-mini-high",
    "sonnet-4.6",
    "mistral-small-2402",
    "grok-4",
    "llama-3",
    "acme/gpt-4o",
    "ft:gpt-4o-2024-08-06:acme::abc123",
)


PRICED_OTHERWISE = (
    "gpt-4o-2024-05-13",
    "azure/gpt-4o-2024-05-13",
    "azure_ai/deepseek-v3.2",
    "azure_ai/gpt-oss-120b",
    "mistral/mistral-medium-latest",
    "openai.gpt-oss-120b-1:0",
    "us-gov.openai.gpt-oss-20b-1:0",
    "deepseek.v3.2",
    "us.moonshotai.kimi-k3",
    "zai.glm-5",
    "bedrock/zai.glm-5",
    "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "bedrock/us-gov-east-1/anthropic.claude-sonnet-5",
    "bedrock/eu-west-2/minimax.minimax-m2.5",
    "bedrock/ap-northeast-1/moonshotai.kimi-k2.5",
)
"""Known models, as somebody serves them at a price that the catalog does not list."""


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return catalog_files.book(catalog_files.read(catalog_files.packaged()))


def test_there_are_at_least_sixty_of_them() -> None:
    assert len(NATIVE) >= 60
    assert len(set(NATIVE.values())) >= 50


@pytest.mark.parametrize(("native", "model_id"), NATIVE.items())
def test_a_native_id_finds_its_row(book: PriceBook, native: str, model_id: str) -> None:
    assert book.resolve(1, native).model_id == model_id


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_a_look_alike_finds_no_row(book: PriceBook, text: str) -> None:
    with pytest.raises(NotFound) as raised:
        book.resolve(1, text)
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("text", PRICED_OTHERWISE)
def test_a_model_that_its_host_prices_otherwise_is_an_error_and_not_underpriced(book: PriceBook, text: str) -> None:
    with pytest.raises(NotFound) as raised:
        book.resolve(1, text)
    assert raised.value.code == "price_not_listed"


def test_every_id_of_the_catalog_finds_itself(book: PriceBook) -> None:
    for entry in book.entries():
        assert book.resolve(1, entry.model_id).model_id == entry.model_id
        assert book.resolve(1, entry.model_id.upper()).model_id == entry.model_id
        assert book.resolve(1, f"openrouter/{entry.model_id}").model_id == entry.model_id

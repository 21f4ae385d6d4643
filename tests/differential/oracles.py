"""Two independent calculators, asked in a process of their own: importing litellm takes seconds and changes what it finds.

    python -m tests.differential.oracles < {model: {shape: [input, output, read, write, write 1h]}}

answers `{oracle: {model: {"reference": …, "usd": {shape: decimal text, or null where it refuses}}}}` for the models that each of
them knows. Both read only the prices that they ship.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

AS_OF = datetime(2026, 8, 15, tzinfo=UTC)
"""genai-prices knows when prices held; the packaged catalog is of August 2026."""
_GENAI_PROVIDERS = {"xai": "x-ai", "voyage": "voyageai", "arcee-ai": "arcee"}
_LITELLM_PREFIXES = {
    "alibaba": ("dashscope/",),
    "amazon": ("", "amazon."),
    "anthropic": ("",),
    "cohere": ("",),
    "google": ("gemini/",),
    "moonshotai": ("moonshot/",),
    "openai": ("",),
}
_GATEWAY = "vercel_ai_gateway/"
Counts = Sequence[int]
Ask = Callable[[Counts], Decimal]


def main() -> int:
    """Read models from standard input, write answers to standard output."""
    wanted: Mapping[str, Mapping[str, Counts]] = json.load(sys.stdin)
    finders = {"genai-prices": _genai(), "litellm": _litellm()}
    answers: dict[str, dict[str, object]] = {name: {} for name in finders}
    for oracle, find in finders.items():
        for model, shapes in wanted.items():
            found = find(model)
            if found is not None:
                reference, ask = found
                answers[oracle][model] = {"reference": reference, "usd": {name: _usd(ask, shapes[name]) for name in shapes}}
    json.dump(answers, sys.stdout)
    return 0


def _usd(ask: Ask, counts: Counts) -> str | None:
    try:
        return str(ask(counts))
    except Exception:  # noqa: BLE001 - whatever it raises, it has no price for this
        return None


def _genai() -> Callable[[str], tuple[str, Ask] | None]:
    library: Any = importlib.import_module("genai_prices")

    def calculate(provider: str, model: str, counts: Counts) -> Any:  # noqa: ANN401 - the library's own result
        total, output, read, write, write_1h = counts
        usage = library.Usage(
            input_tokens=total,
            output_tokens=output,
            cache_read_tokens=read,
            cache_write_tokens=write,
            cache_write_1h_tokens=write_1h,
        )
        return library.calc_price(usage, model, provider_id=provider, genai_request_timestamp=AS_OF)

    def find(model_id: str) -> tuple[str, Ask] | None:
        owner, _, model = model_id.partition("/")
        provider = _GENAI_PROVIDERS.get(owner, owner)
        try:
            found = calculate(provider, model, (1, 0, 0, 0, 0))
        except (LookupError, ValueError):
            return None
        return f"{provider}:{found.model.id}", lambda counts: calculate(provider, model, counts).total_price

    return find


def _litellm() -> Callable[[str], tuple[str, Ask] | None]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    library: Any = importlib.import_module("litellm")
    types: Any = importlib.import_module("litellm.types.utils")

    def ask(reference: str, counts: Counts) -> Decimal:
        total, output, read, write, write_1h = counts
        lifetimes = types.CacheCreationTokenDetails(
            ephemeral_5m_input_tokens=write - write_1h, ephemeral_1h_input_tokens=write_1h
        )
        details = types.PromptTokensDetailsWrapper(
            cached_tokens=read, cache_creation_tokens=write, cache_creation_token_details=lifetimes
        )
        usage = types.Usage(
            prompt_tokens=total, completion_tokens=output, total_tokens=total + output, prompt_tokens_details=details
        )
        parts = library.cost_per_token(model=reference, usage_object=usage)
        return sum((Decimal(repr(float(part))) for part in parts), Decimal(0))

    def find(model_id: str) -> tuple[str, Ask] | None:
        known = library.model_cost
        reference = next((each for each in _litellm_references(model_id) if _prices_tokens(known.get(each))), None)
        return None if reference is None else (reference, lambda counts: ask(reference, counts))

    return find


def _litellm_references(model_id: str) -> Iterator[str]:
    """The maker's own entry first, then the gateway's."""
    owner, _, model = model_id.partition("/")
    for prefix in _LITELLM_PREFIXES.get(owner, (f"{owner}/",)):
        yield prefix + model
        yield prefix + model.replace(".", "-")
    yield _GATEWAY + model_id


def _prices_tokens(entry: Mapping[str, object] | None) -> bool:
    return entry is not None and any(name in entry for name in ("input_cost_per_token", "tiered_pricing"))


if __name__ == "__main__":
    sys.exit(main())

"""The other ways to write a model id: what gateways and clouds put around it, and the dates that providers put behind it.

Nothing here drops a word that makes another model (`-mini`, `-fast`, `-batch`, `:free`): only whole, known wrappers, one full
date, and `-latest` are taken off.
"""

import re
from collections.abc import Iterator

_GATEWAYS = frozenset(
    {
        "azure",
        "azure_ai",
        "bedrock",
        "bedrock_converse",
        "cloudflare",
        "gateway",
        "google-ai-studio",
        "google-vertex",
        "helicone",
        "litellm",
        "litellm_proxy",
        "openrouter",
        "portkey",
        "requesty",
        "vercel",
        "vercel_ai_gateway",
        "vertex",
        "vertex_ai",
        "vertexai",
    }
)
_BEDROCK_ROUTES = frozenset({"converse", "converse_like", "invoke"})
_OWNERS = {
    "gemini": "google",
    "meta-llama": "meta",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "qwen": "alibaba",
    "x-ai": "xai",
    "z-ai": "zai",
}
"""Owners under the name that another platform gives them."""

_BEDROCK_OWNERS = "amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|moonshotai|nvidia|openai|qwen|zai"
_BEDROCK = re.compile(rf"(?:(?:us|us-gov|eu|apac|ap|jp|au|ca|sa|global)\.)?({_BEDROCK_OWNERS})\.([a-z0-9][a-z0-9.:_-]*)")
_BEDROCK_CONTEXT = re.compile(r":\d{1,2}(?::\d{1,4}k)?$")
_BEDROCK_REVISIONS = {"anthropic": re.compile(r"-v\d{1,2}$")}
_BEDROCK_FIRST_REVISION = re.compile(r"-v1$")
"""Only Anthropic counts the revisions of one model past 1; elsewhere `-v4` is the model's own version (cohere.embed-v4:0)."""
_BEDROCK_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:\d*:(?:inference-profile|foundation-model)/")
_AWS_REGION = re.compile(r"[a-z]{2}(?:-gov)?-[a-z]+-\d")
_VERTEX_PATH = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?publishers/([a-z0-9-]+)/models/")
_VERTEX_VERSION = re.compile(r"@(?:\d{3}|20[2-9]\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|default|latest)$")
_DATE = re.compile(r"-20[2-9]\d(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])$")
_LATEST = "-latest"
_UNWRAP_MAX = 5

_SNAPSHOTS_APART = frozenset({"gpt-4o-2024-05-13"})
"""Dated ids whose price stayed when that of the undated id moved on."""
_LATEST_APART = frozenset({"mistral-small-latest", "mistral-medium-latest", "magistral-medium-latest"})
"""`-latest` ids that mean a newer model, at another price, than the undated id."""
_OWN_BEDROCK_PRICES = frozenset(
    {
        "deepseek/deepseek-v3.2",
        "moonshotai/kimi-k2-thinking",
        "moonshotai/kimi-k3",
        "openai/gpt-oss-120b",
        "openai/gpt-oss-20b",
        "zai/glm-5",
    }
)
"""Models of other makers that Amazon serves at prices above those of the catalog."""
_BEDROCK_IN_REGION = re.compile(r"(?:^|/)(?:us-gov\.|[a-z]{2}(?:-gov)?-[a-z]+-\d/)")
_AZURE_AI = re.compile(r"(?:^|/)azure_ai/")
_AZURE_APART = frozenset({"openai/gpt-4-turbo"})
_ALTERNATIVES_MAX = 16


def unwrapped(text: str) -> tuple[str, ...]:
    """Every spelling of `text` (lower case) without one or more wrappers, outermost first; empty when it wears none."""
    found: list[str] = []
    layer = [text]
    for _ in range(_UNWRAP_MAX):
        layer = [inner for outer in layer for inner in _without_one_wrapper(outer) if inner not in found and inner != text]
        found.extend(inner for inner in dict.fromkeys(layer) if inner not in found)
        if not layer or len(found) >= _ALTERNATIVES_MAX:
            break
    return tuple(found)


def _without_one_wrapper(text: str) -> Iterator[str]:
    yield from _without_prefix(text)
    yield from _without_bedrock(text)
    if version := _VERTEX_VERSION.search(text):
        yield text[: version.start()]


def _without_prefix(text: str) -> Iterator[str]:
    """Without `models/`, a gateway's name, a Vertex resource path, a Bedrock ARN; or with the owner as the catalog names it."""
    if path := _VERTEX_PATH.match(text):
        yield f"{path[1]}/{text[path.end() :]}"
    elif arn := _BEDROCK_ARN.match(text):
        yield text[arn.end() :]
    head, slash, rest = text.partition("/")
    if slash and rest:
        if head == "models" or head in _GATEWAYS:
            yield rest
        elif head in _BEDROCK_ROUTES or _AWS_REGION.fullmatch(head):
            if _BEDROCK.fullmatch(rest):
                yield rest
        elif head in _OWNERS:
            yield f"{_OWNERS[head]}/{rest}"


def _without_bedrock(text: str) -> Iterator[str]:
    """`us.anthropic.claude-x-v1:0` as `anthropic/claude-x-v1:0`, then without `:0`, then without `-v1`."""
    match = _BEDROCK.fullmatch(text)
    if match is None:
        return
    owner, model = _OWNERS.get(match[1], match[1]), match[2]
    yield f"{owner}/{model}"
    unnumbered = _BEDROCK_CONTEXT.sub("", model)
    if unnumbered != model:
        yield f"{owner}/{unnumbered}"
        # OpenAI's open models carry their revision as `-1:0`, without the `v`.
        if owner == "openai" and unnumbered.startswith("gpt-oss-") and unnumbered.endswith("-1"):
            yield f"{owner}/{unnumbered.removesuffix('-1')}"
    revision = _BEDROCK_REVISIONS.get(owner, _BEDROCK_FIRST_REVISION)
    yield f"{owner}/{revision.sub('', unnumbered)}"


def without_date(text: str) -> str | None:
    """Without one full date at the end (`-20250929`, `-2024-08-06`), or None. Four digits alone name a version."""
    match = _DATE.search(text)
    return text[: match.start()] if match else None


def without_latest(text: str) -> str | None:
    """Without `-latest`, or None."""
    return text.removesuffix(_LATEST) if text.endswith(_LATEST) else None


def is_priced_otherwise(text: str, model_id: str) -> bool:
    """Whether a spelling (lower case) names a model, or a way of serving it, known to cost something else than the catalog's model.

    Hosts set their own prices for other makers' open models, for government clouds and for single regions; a few dated ids kept a price
    that the undated id has left behind. Regional inference profiles (`us.anthropic…`) are not among them; see the README.
    """
    last = text.rpartition("/")[2]
    if last in _SNAPSHOTS_APART or last in _LATEST_APART or _BEDROCK_IN_REGION.search(text):
        return True
    if _AZURE_AI.search(text):
        return model_id.startswith("openai/gpt-oss-") or not model_id.startswith("openai/")
    if text.startswith("azure/"):
        return model_id in _AZURE_APART
    return model_id in _OWN_BEDROCK_PRICES and any(_BEDROCK.fullmatch(each) for each in (text, *unwrapped(text)))

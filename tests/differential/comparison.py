"""Tallybook's prices beside the oracles': where they agree to the nano-dollar, and what each disagreement consists of."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tallybook.ai_models import decimals
from tallybook.pricing import model_ids
from tallybook.pricing.price_book import PriceRow
from tests.differential import shapes
from tests.differential.shapes import Shape

RECORDED = Path(__file__).with_name("disagreements.json")
_ROOT = Path(__file__).parents[2]
_NANO = 10**9
_HALF = Decimal("0.5")
_FLOAT_PRECISION = Decimal("1e-14")
"""litellm computes in floats: some parts in 1e16 an operation, and it does a few dozen."""
_CACHE_SHAPES = ("cache read", "all cached", "cache write", "cache read and write", "1-hour write", "both writes")
_ONE_HOUR_SHAPES = frozenset({"1-hour write", "both writes"})


@dataclass(frozen=True, slots=True)
class Compared:
    """One model and one oracle: the oracle's name for it, and by shape what both say where they differ (nano-USD)."""

    oracle: str
    model: str
    reference: str
    shapes: int
    differing: Mapping[str, tuple[int, Decimal | None]]


def compare() -> list[Compared]:
    """Price every shape of every catalog model that an oracle knows, with both."""
    rows = shapes.priced_models()
    wanted = {model: shapes.of_row(row) for model, row in rows.items()}
    ours = {model: shapes.costs(row, wanted[model]) for model, row in rows.items()}
    answers = _ask(wanted)
    return [
        _compared(oracle, model, ours[model], answer) for oracle in sorted(answers) for model, answer in answers[oracle].items()
    ]


def _ask(wanted: Mapping[str, Mapping[str, Shape]]) -> dict[str, dict[str, Any]]:
    words = [sys.executable, "-m", "tests.differential.oracles"]
    done = subprocess.run(words, input=json.dumps(wanted), capture_output=True, text=True, check=False, cwd=_ROOT)  # noqa: S603 - this very interpreter
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)


def _compared(oracle: str, model: str, ours: Mapping[str, int], answer: Mapping[str, Any]) -> Compared:
    differing: dict[str, tuple[int, Decimal | None]] = {}
    for name, nano in ours.items():
        text = answer["usd"][name]
        theirs = None if text is None else Decimal(text) * _NANO
        if theirs is None or not _same(nano, theirs, exact=oracle == "genai-prices"):
            differing[name] = (nano, theirs)
    return Compared(oracle, model, answer["reference"], len(ours), differing)


def _same(nano: int, theirs: Decimal, *, exact: bool) -> bool:
    """Whether ours is theirs rounded to the nano-dollar; a float's own error may lie on top."""
    return abs(theirs - nano) <= _HALF + (0 if exact else abs(theirs) * _FLOAT_PRECISION)


def category(compared: Compared) -> str:
    """What kind of disagreement it is, from which shapes differ."""
    if _is_another_model(compared):
        return "taken for another model"
    if any(theirs is None for _, theirs in compared.differing.values()):
        return "refused by the oracle"
    return next(kind for kind, holds in _KINDS if holds(compared.differing.keys() - {"output only"}))


def _is_another_model(compared: Compared) -> bool:
    """Whether the oracle cut words off the id, as in `claude-opus-4.7-fast` for `claude-opus-4-7`."""
    asked = model_ids.folded(model_ids.bare(compared.model))
    meant = model_ids.folded(compared.reference.rpartition(":")[2])
    return compared.oracle == "genai-prices" and asked.startswith(f"{meant}-")


def explanation(compared: Compared, row: PriceRow) -> str:
    """The figures behind a disagreement, in a sentence."""
    listed = shapes.listed(row)
    kinds = {"input": listed.input, "output": listed.output, "cache read": listed.cache_read, "cache write": listed.cache_write}
    catalog = ", ".join(f"{kind} {decimals.usd_per_million(pico)}" for kind, pico in kinds.items() if pico is not None)
    missing = [kind for kind, pico in kinds.items() if pico is None]
    unlisted = f", no price for {' and '.join(missing)}" if missing else ""
    starts = [str(start) for start in row.standard.starts if start]
    tiers = f", other prices from {', '.join(starts)} tokens" if starts else ", no long-context tier"
    name = max(compared.differing, key=lambda each: (each == "plain", each == "cache read", each == "cache write", each))
    nano, theirs = compared.differing[name]
    says = "refuses it" if theirs is None else f"says {_usd(theirs)}"
    shape = shapes.of_row(row)[name]
    bare_output = compared.differing.get("output only", (0, None))[1]
    without_input = f" Without any input it says {_usd(bare_output)} for output." if bare_output == 0 else ""
    return (
        f"{_WHY[category(compared)]} The catalog lists (USD per million) {catalog}{unlisted}{tiers}. For {_shown(shape)} "
        f"Tallybook says {_usd(Decimal(nano))}, {compared.oracle} ({compared.reference}) {says}.{without_input}"
    )


_KINDS: tuple[tuple[str, Callable[[AbstractSet[str]], bool]], ...] = (
    ("other list price", lambda names: bool(names & {"plain", "odd", "input only"})),
    ("1-hour cache writes", lambda names: names <= _ONE_HOUR_SHAPES),
    ("cache price", lambda names: all(name in _CACHE_SHAPES or name.endswith("cached") for name in names)),
    ("boundary of a long-context tier", lambda names: all(name[0].isdigit() for name in names)),
    ("long-context tier", lambda _names: True),
)
"""The kinds by which shapes differ, first to hold."""

_WHY = {
    "taken for another model": "The oracle matches a part of the id, and prices the model without the rest.",
    "refused by the oracle": "The oracle raises an error for some shapes.",
    "other list price": "The two lists have other prices for the model: other days, or another way of serving it.",
    "1-hour cache writes": "Only writes that are kept for an hour differ: Tallybook takes twice the input for Anthropic, who documents "
    "it, and for nobody else.",
    "cache price": "Input and output agree; one list has a cache price where the other has none or another one.",
    "boundary of a long-context tier": "The tiers agree but for the token at which they begin.",
    "long-context tier": "One list has a long-context tier where the other has none or another one.",
}


def _shown(shape: Shape) -> str:
    named = zip(("input", "output", "cache read", "cache write", "of that for 1 hour"), shape, strict=True)
    return ", ".join(f"{count} {name}" for name, count in named if count) or "no tokens"


def _usd(nano: Decimal) -> str:
    text = f"{(nano / _NANO).quantize(Decimal('1e-12')):f}"
    return "$" + (text.rstrip("0").rstrip(".") or "0")


def disagreements(found: list[Compared]) -> dict[str, dict[str, dict[str, object]]]:
    """What `disagreements.json` must say: by oracle and model."""
    rows = shapes.priced_models()
    listed: dict[str, dict[str, dict[str, object]]] = {each.oracle: {} for each in found}
    for each in found:
        if each.differing:
            listed[each.oracle][each.model] = {
                "reference": each.reference,
                "category": category(each),
                "shapes": sorted(each.differing),
                "explanation": explanation(each, rows[each.model]),
            }
    return {oracle: dict(sorted(models.items())) for oracle, models in sorted(listed.items())}


def recorded() -> dict[str, dict[str, dict[str, object]]]:
    """What is checked in."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))

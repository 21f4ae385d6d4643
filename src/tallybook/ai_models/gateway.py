"""Reading the gateway's model list, row by row: one bad row costs that row, never the list.

Wire format: `{data: [{id, owned_by, name, type, context_window, max_tokens, pricing}]}`; prices are decimal strings in USD per
token (`input`, `output`, `input_cache_read`, `input_cache_write`, each with optional `*_tiers`), `web_search` in USD per 1,000
calls, `service_tiers` by name. Source: https://vercel.com/docs/ai-gateway, and what the list really sends.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from tallybook.ai_models import gateway_prices
from tallybook.ai_models.decimals import JsonNumber, UnreadablePriceError
from tallybook.ai_models.model import Model, ModelList, Remark
from tallybook.core import clock

ROWS_MAX = 20_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,95}", re.ASCII)
_TEXT_MAX = 200
_COUNT_MAX_DIGITS = 10
_MILLISECONDS_FROM = 10**11
"""Later than year 5138 in seconds, so a Unix time this large is in milliseconds."""
_MOMENT_MAX_MS = 4_102_444_800_000


class UnreadableListError(ValueError):
    """The answer is no model list at all. The message says why."""


def parse(body: bytes) -> ModelList:
    """Read a list. Raises UnreadableListError when there is no list to read; a bad row goes to quarantine with its reason."""
    models: dict[str, Model] = {}
    quarantined: dict[str, Remark] = {}
    repaired: list[Remark] = []
    for number, row in enumerate(_rows(body)):
        name = _row_name(number, row)
        try:
            model, remarks = _model(row)
        except UnreadablePriceError as error:
            quarantined[name] = Remark(name, str(error))
            continue
        if models.setdefault(model.id, model) != model:
            quarantined[model.id] = Remark(model.id, "is listed twice, differently")
        repaired.extend(Remark(model.id, remark) for remark in remarks)
    kept = tuple(model for model in models.values() if model.id not in quarantined)
    return ModelList(kept, tuple(quarantined.values()), tuple(repaired))


def _rows(body: bytes) -> list[object]:
    try:
        whole: object = json.loads(body.decode(), parse_float=JsonNumber, parse_int=JsonNumber, parse_constant=JsonNumber)
    except (ValueError, RecursionError) as error:
        raise UnreadableListError(f"the answer is not JSON: {type(error).__name__}") from error
    rows: object = cast("Mapping[str, object]", whole).get("data") if isinstance(whole, dict) else None
    if not isinstance(rows, list) or not rows:
        raise UnreadableListError("the answer has no list of models under 'data'")
    listed = cast("list[object]", rows)
    if len(listed) > ROWS_MAX:
        raise UnreadableListError(f"the list has {len(listed)} rows, more than {ROWS_MAX}")
    return listed


def _row_name(number: int, row: object) -> str:
    """The id where it is one, else `row 17`, for the quarantine."""
    listed = cast("Mapping[str, object]", row).get("id") if isinstance(row, dict) else None
    return listed if isinstance(listed, str) and _ID.fullmatch(listed) else f"row {number}"


def _model(row: object) -> tuple[Model, list[str]]:
    if not isinstance(row, dict):
        raise UnreadablePriceError("the row is no object")
    fields = cast("Mapping[str, object]", row)
    model_id = fields.get("id")
    if not isinstance(model_id, str) or isinstance(model_id, JsonNumber) or not _ID.fullmatch(model_id):
        raise UnreadablePriceError("the row has no id of the form owner/name")
    kind = _text(fields.get("type")) or "unknown"
    reading = gateway_prices.read(fields.get("pricing"), kind)
    model = Model(
        id=model_id,
        provider=model_id.partition("/")[0],
        name=_text(fields.get("name")) or model_id,
        type=kind,
        context_window=_limit(fields.get("context_window")),
        output_max=_limit(fields.get("max_tokens")),
        other_units=reading.other_units,
        deprecated_at=_moment(fields.get("deprecated_at")),
        price=reading.price,
    )
    return model, reading.remarks


def _text(value: object) -> str | None:
    """A short printable text, or None: it is shown to people and kept, never trusted."""
    usable = isinstance(value, str) and not isinstance(value, JsonNumber) and value.isprintable() and value.strip()
    return cast("str", value).strip()[:_TEXT_MAX] if usable else None


def _limit(value: object) -> int | None:
    """A token limit; 0 and anything odd mean that none is stated."""
    if not isinstance(value, JsonNumber) or not (value.isascii() and value.isdigit()) or len(value) > _COUNT_MAX_DIGITS - 1:
        return None
    return int(value) or None


def _moment(value: object) -> datetime | None:
    """A Unix time in seconds or milliseconds."""
    if not isinstance(value, JsonNumber) or not (value.isascii() and value.isdigit()) or len(value) > _COUNT_MAX_DIGITS + 4:
        return None
    number = int(value)
    milliseconds = number if number >= _MILLISECONDS_FROM else number * 1000
    return clock.from_ms(milliseconds) if milliseconds <= _MOMENT_MAX_MS else None

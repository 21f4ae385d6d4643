"""The typed decoder: bodies as they are meant to be, decoded and bounded in one pass in C.

It says yes or no, never why. A no, or a doubt, goes to `explain`, which reads the same bytes slowly and can name what is wrong.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tallybook.receive import bounds

Id = Annotated[str, Meta(min_length=1, max_length=bounds.ID_BYTES_MAX)]
ModelId = Annotated[str, Meta(min_length=1, max_length=bounds.MODEL_BYTES_MAX)]
Tokens = Annotated[int, Meta(ge=0, le=bounds.TOKENS_MAX)]
Searches = Annotated[int, Meta(ge=0, le=bounds.WEB_SEARCHES_MAX)]
Tier = Literal["batch", "flex", "priority"]
Moment = Annotated[datetime, Meta(tz=True)]
Name = Annotated[str, Meta(min_length=1, max_length=bounds.PROPERTY_BYTES_MAX)]
Text = Annotated[str, Meta(max_length=bounds.PROPERTY_BYTES_MAX)]


class Property(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One property in the list spelling."""

    property: Name
    value: Text


_Few = Meta(max_length=bounds.PROPERTIES_MAX)
Properties = Annotated[dict[Name, Text], _Few] | Annotated[list[Property], _Few]


class UsageBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """What events and checks have in common. UNSET is an absent field; null means the same, and is kept to be counted."""

    feature_code: Id | UnsetType | None = UNSET
    customer_id: Id | UnsetType | None = UNSET
    model: ModelId | UnsetType | None = UNSET
    input_tokens: Tokens | UnsetType | None = UNSET
    output_tokens: Tokens | UnsetType | None = UNSET
    cache_read_tokens: Tokens | UnsetType | None = UNSET
    cache_write_tokens: Tokens | UnsetType | None = UNSET
    cache_write_1h_tokens: Tokens | UnsetType | None = msgspec.field(default=UNSET, name="cacheWrite1hTokens")
    service_tier: Tier | UnsetType | None = UNSET
    web_search_requests: Searches | UnsetType | None = UNSET
    input_tokens_include_cache: bool | UnsetType | None = UNSET
    feature: Id | UnsetType | None = UNSET


class EventBody(UsageBody):
    """One event. A `value` with a point or an exponent stays text (`msgspec.Raw`); an integer is an int of any size."""

    event_id: Id | UnsetType | None = UNSET
    timestamp: Moment | UnsetType | None = UNSET
    value: Any = UNSET
    properties: Properties | UnsetType | None = UNSET
    idempotency_key: Id | UnsetType | None = UNSET


class CheckBody(UsageBody):
    """One check; `quantity` is read like `value`."""

    quantity: Any = UNSET


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """A batch of events."""

    events: Annotated[list[EventBody], Meta(min_length=1, max_length=bounds.EVENTS_MAX)]


class SplitBody(msgspec.Struct, forbid_unknown_fields=True):
    """A batch of events whose items are not read yet, so that one bad item does not take its neighbours along."""

    events: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=bounds.EVENTS_MAX)]


REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the decoders raise for bytes they do not take."""

decode_event = msgspec.json.Decoder(EventBody, float_hook=msgspec.Raw).decode
decode_check = msgspec.json.Decoder(CheckBody, float_hook=msgspec.Raw).decode
decode_batch = msgspec.json.Decoder(BatchBody, float_hook=msgspec.Raw).decode
split_batch = msgspec.json.Decoder(SplitBody).decode

_encode = msgspec.json.Encoder().encode


def kept_everything(decoded: msgspec.Struct, body: bytes) -> bool:
    r"""Whether decoding dropped nothing: False whenever a key stands twice in one object, at the cost of counting bytes.

    A decoder keeps the last of two equal keys, and then fewer strings are left than were written. Every string, key or value, has
    two quotes around it, and a quote within one is written `\"` by both sides: so equal counts mean that nothing is missing. The
    one other spelling of a quote, `\u0022`, is not counted but doubted, as is anything that cannot be encoded again.
    """
    if b"\\" in body and b"\\u0022" in body:
        return False
    return _encode(decoded).count(b'"') == body.count(b'"')


def is_plain(body: bytes) -> bool:
    """Whether all texts of a well-formed body are printable ASCII; unescaped control characters are not well-formed JSON."""
    return body.isascii() and b"\\" not in body and b"\x7f" not in body

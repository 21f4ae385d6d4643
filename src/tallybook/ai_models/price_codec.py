"""Prices as they are written down: in the catalog's files, in jsonb columns and on the wire, always exact decimal text.

Tokens are in USD per million, web searches in USD per 1,000 calls. Reading checks everything that writing promises.
"""

from typing import Annotated, Any

import msgspec

from tallybook.ai_models import decimals
from tallybook.ai_models.decimals import UnreadablePriceError
from tallybook.pricing.rates import SERVICE_TIERS, Band, Listed, Price

Usd = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", max_length=32, description="An exact decimal in USD.")]
TokenCount = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class BandUsd(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """USD per million tokens for requests of at least `fromTokens` input tokens, up to where the next band starts."""

    from_tokens: TokenCount = 0
    input: Usd
    output: Usd | None = None
    cache_read: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = msgspec.field(default=None, name="cacheWrite1h")


class PriceUsd(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A model's price. Bands ascend from 0; `webSearchPerThousand` is in USD per 1,000 calls."""

    standard: tuple[BandUsd, ...]
    service_tiers: dict[str, tuple[BandUsd, ...]] = {}
    web_search_per_thousand: Usd | None = None


def write(price: Price) -> PriceUsd:
    """A price as text."""
    return PriceUsd(
        standard=_write_bands(price.standard),
        service_tiers={name: _write_bands(price.service_tiers[name]) for name in sorted(price.service_tiers)},
        web_search_per_thousand=None if price.web_search is None else decimals.usd_per_thousand(price.web_search),
    )


def read(text: PriceUsd) -> Price:
    """A price from text. Raises UnreadablePriceError."""
    unknown = sorted(set(text.service_tiers) - set(SERVICE_TIERS))
    if unknown:
        raise UnreadablePriceError(f"serviceTiers {', '.join(unknown)}: only {', '.join(SERVICE_TIERS)} are known")
    tiers = {name: tuple(map(_read_band, bands)) for name, bands in text.service_tiers.items()}
    search = text.web_search_per_thousand
    pico = None if search is None else decimals.from_usd_per_thousand("webSearchPerThousand", search)
    try:
        return Price(tuple(map(_read_band, text.standard)), tiers, pico)
    except ValueError as error:
        raise UnreadablePriceError(str(error)) from error


def to_json(price: Price) -> Any:  # noqa: ANN401 - jsonb takes any JSON value
    """A price as a jsonb value."""
    return msgspec.to_builtins(write(price))


def from_json(value: object) -> Price:
    """A price from a jsonb value. Raises UnreadablePriceError."""
    try:
        return read(msgspec.convert(value, PriceUsd))
    except msgspec.ValidationError as error:
        raise UnreadablePriceError(str(error)) from error


def _write_bands(bands: tuple[Band, ...]) -> tuple[BandUsd, ...]:
    return tuple(_write_band(band) for band in bands)


def _write_band(band: Band) -> BandUsd:
    listed = band.listed
    return BandUsd(
        from_tokens=band.from_tokens,
        input=decimals.usd_per_million(listed.input),
        output=_write_amount(listed.output),
        cache_read=_write_amount(listed.cache_read),
        cache_write=_write_amount(listed.cache_write),
        cache_write_1h=_write_amount(listed.cache_write_1h),
    )


def _write_amount(pico: int | None) -> str | None:
    return None if pico is None else decimals.usd_per_million(pico)


def _read_band(text: BandUsd) -> Band:
    listed = Listed(
        input=decimals.from_usd_per_million("input", text.input),
        output=_read_amount("output", text.output),
        cache_read=_read_amount("cacheRead", text.cache_read),
        cache_write=_read_amount("cacheWrite", text.cache_write),
        cache_write_1h=_read_amount("cacheWrite1h", text.cache_write_1h),
    )
    return Band(text.from_tokens, listed)


def _read_amount(name: str, text: str | None) -> int | None:
    return None if text is None else decimals.from_usd_per_million(name, text)

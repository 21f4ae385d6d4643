"""Reads a request's body, never more of it than the operation takes and never longer than a slow client deserves."""

import asyncio

from aiohttp import web

from tallybook.core import errors

SLOWEST_S = 30.0
"""How long a body may take to arrive."""


async def read(request: web.Request, bytes_max: int) -> bytes:
    """The body as sent. Raises PayloadTooLarge, before reading where Content-Length tells; ValidationError for an encoded one."""
    check_head(request, bytes_max)
    content = request.content
    if content.is_eof():
        body = content.read_nowait()
        if len(body) > bytes_max:
            raise too_large(bytes_max)
        return body
    return await _read_arriving(request, bytes_max)


def check_head(request: web.Request, bytes_max: int) -> None:
    """Refuse by the headers alone what would be refused anyway."""
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.lower() != "identity":
        raise errors.invalid("Content-Encoding", "Compressed bodies are not taken; send plain JSON.")
    length = request.content_length
    if length is not None and length > bytes_max:
        raise too_large(bytes_max)


def too_large(bytes_max: int) -> errors.PayloadTooLarge:
    """The error for a body that is longer than the operation takes."""
    return errors.PayloadTooLarge("payload_too_large", f"The body is larger than the {bytes_max} bytes this operation takes.")


async def _read_arriving(request: web.Request, bytes_max: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > bytes_max:
                    raise too_large(bytes_max)
    except TimeoutError as error:
        raise errors.invalid("", f"The body did not arrive within {SLOWEST_S:.0f} seconds.", code="invalid_json") from error
    return bytes(body)

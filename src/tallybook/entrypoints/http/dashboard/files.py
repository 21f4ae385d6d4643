"""Scripts and styles of the pages, from the package itself. Their address holds a digest, so browsers may keep them for good."""

import hashlib
from dataclasses import dataclass
from importlib import resources

from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints.http.dashboard.security import PATH

_KEPT = "public, max-age=31536000, immutable"
_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
FOLDER = "tallybook.entrypoints.http.dashboard"
_NAMES = ("dashboard.css", "dashboard.js", "uPlot.iife.min.js", "uPlot.min.css", "tallybook.svg")
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    path: str
    etag: str
    content: bytes
    type: str


def _load(name: str) -> Asset:
    content = resources.files(FOLDER).joinpath("assets", name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST_CHARACTERS]
    return Asset(f"{PATH}/assets/{digest}/{name}", f'"{digest}"', content, _TYPES[name.rpartition(".")[2]])


_ASSETS = {name: _load(name) for name in _NAMES}
_BY_PATH = {asset.path: asset for asset in _ASSETS.values()}


def path(name: str) -> str:
    """Where a file is."""
    return _ASSETS[name].path


async def answer(request: web.Request) -> web.Response:
    """GET /dashboard/assets/{digest}/{name}."""
    asset = _BY_PATH.get(request.path)
    if asset is None:
        raise errors.NotFound("not_found", "There is no such file.")
    headers = {"Cache-Control": _KEPT, "ETag": asset.etag, "X-Content-Type-Options": "nosniff"}
    if request.headers.get("If-None-Match") == asset.etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=asset.content, headers={**headers, "Content-Type": asset.type})

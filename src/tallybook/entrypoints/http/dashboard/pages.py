"""`/dashboard`: which function answers which path. No JSON, no operation of the API: pages for people who signed in with a key."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints import logs, metrics
from tallybook.entrypoints.http import replies, writes
from tallybook.entrypoints.http.dashboard import figures, files, layout, security, view
from tallybook.entrypoints.http.dashboard.security import FORM_COOKIE, PATH, SESSION_COOKIE
from tallybook.entrypoints.http.frame import Frame
from tallybook.reports import statement, statement_html, statement_pdf
from tallybook.reports.statement import Statement
from tallybook.rollup import retention
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import web_sessions
from tallybook.tenancy.model import AuthenticatedKey

AT_ONCE_MAX = 2
"""Pages that one process asks the book for at once, so that connections are left for the API."""
_QUEUE_S_MAX = 10.0
_HTML = "text/html; charset=utf-8"
_STATEMENT_POLICY = "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PDF = ".pdf"

Page = Callable[[web.Request], Awaitable[web.Response]]


class Dashboard:
    """The pages of one process."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._tries = security.Tries()
        self._room = asyncio.Semaphore(AT_ONCE_MAX)

    def add_to(self, application: web.Application) -> None:
        """Add the routes."""
        router = application.router
        router.add_get(PATH, self._page(self.show))
        router.add_get(f"{PATH}/sign-in", self._page(self.ask_for_key))
        router.add_post(f"{PATH}/sign-in", self._page(self.sign_in))
        router.add_post(f"{PATH}/sign-out", self._page(self.sign_out))
        router.add_get(PATH + "/invoices/{id}", self._page(self.invoice))
        router.add_get(PATH + "/assets/{digest}/{name}", self._page(files.answer))

    async def show(self, request: web.Request) -> web.Response:
        """The figures, or the way to sign in."""
        token, key = await self._who(request)
        if key is None:
            return _go_to(f"{PATH}/sign-in")
        picked = figures.choice(dict(request.query))
        services = self._frame.services
        async with _Turn(self._room), retention.snapshot(services.database) as connection:
            shown = await figures.read(services, connection, key, picked)
        scheme = "https" if security.is_https(request) else "http"
        return _html(view.page(shown, web_sessions.form_token(token), f"{scheme}://{request.host}"))

    async def ask_for_key(self, request: web.Request) -> web.Response:
        """The form that takes a key."""
        return _sign_in_form(request, 200, None)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Take a key, and give a session for it."""
        fields = await security.form(request, request.cookies.get(FORM_COOKIE))
        address = request.remote or ""
        try:
            self._tries.check(address)
            token = await self._new_session(fields.get("key", "").strip(), address)
        except (errors.Unauthorized, errors.Forbidden, errors.RateLimited) as problem:
            reply = _sign_in_form(request, problem.status, problem.message)
            if isinstance(problem, errors.RateLimited):
                reply.headers["Retry-After"] = str(problem.retry_after_s)
            return reply
        zone = fields.get("zone", "")
        reply = _go_to(f"{PATH}?zone={zone}" if zone in view.zones() else PATH)
        security.keep(reply, request, SESSION_COOKIE, token, int(web_sessions.KEPT.total_seconds()))
        security.forget(reply, request, FORM_COOKIE)
        return reply

    async def _new_session(self, text: str, address: str) -> str:
        now = self._frame.services.clock()
        async with (
            self._frame.services.database.acquire(timeout=writes.ACQUIRE_TIMEOUT_S) as connection,
            connection.transaction(),
        ):
            key = await tenancy.authenticate(connection, text, now)
            if key is None:
                self._tries.count_wrong(address)
                raise errors.Unauthorized("unauthorized", "This key is unknown, expired or revoked.")
            if not figures.may(key, "report-usage"):
                raise errors.Forbidden("forbidden", "This key may not read usage. Sign in with one that may.")
            await tenancy.touch_api_keys(connection, {key.id: now})
            return await web_sessions.open_session(connection, key, now)

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session."""
        token = request.cookies.get(SESSION_COOKIE)
        await security.form(request, token)
        async with self._frame.services.database.acquire(timeout=writes.ACQUIRE_TIMEOUT_S) as connection:
            await web_sessions.end(connection, token or "")
        reply = _go_to(f"{PATH}/sign-in")
        security.forget(reply, request, SESSION_COOKIE)
        return reply

    async def invoice(self, request: web.Request) -> web.Response:
        """An invoice as its customer gets it: `inv_…` as a page, `inv_….pdf` as a document."""
        _token, key = await self._who(request)
        if key is None:
            return _go_to(f"{PATH}/sign-in")
        if not figures.may(key, "get-invoice"):
            raise errors.Forbidden("forbidden", "The key you signed in with may not read invoices.")
        name = request.match_info["id"]
        reference = name.removesuffix(_PDF)
        found = await self._statement(key, reference)
        if found is None:
            raise errors.NotFound("invoice_not_found", "There is no such invoice.")
        if not name.endswith(_PDF):
            return _statement_page(found)
        async with _Turn(self._room):
            return await _document(found)

    async def _statement(self, key: AuthenticatedKey, reference: str) -> Statement | None:
        if not (reference.isascii() and reference.isprintable()):
            return None
        async with self._frame.services.database.acquire(timeout=writes.ACQUIRE_TIMEOUT_S) as connection:
            return await statement.find(connection, key.tenant, reference)

    async def _who(self, request: web.Request) -> tuple[str, AuthenticatedKey | None]:
        """The session's token and its key, asked of the book each time: a revoked key is out at once."""
        token = request.cookies.get(SESSION_COOKIE, "")
        services = self._frame.services
        if not token:
            return token, None
        async with services.database.acquire(timeout=writes.ACQUIRE_TIMEOUT_S) as connection:
            key = await web_sessions.find(connection, token, services.clock())
        return token, key if key is not None and figures.may(key, "report-usage") else None

    def _page(self, page: Page) -> Page:
        """What all pages go through: a deadline, headers, and errors as pages."""

        async def answer(request: web.Request) -> web.Response:
            request_id = self._frame.new_request_id()
            logs.request_id.set(request_id)
            try:
                async with asyncio.timeout(self._frame.services.settings.request_s_max):
                    reply = await page(request)
            except Exception as error:  # noqa: BLE001 - the one place that turns whatever happens into a page
                problem = replies.explain(error)
                metrics.count_error("dashboard", problem.code)
                reply = _failure(problem, request_id)
            for name, value in security.HEADERS.items():
                reply.headers.setdefault(name, value)
            reply.headers[replies.REQUEST_ID_HEADER] = request_id
            reply.headers["Server"] = "tallybook"
            metrics.count_request("dashboard", reply.status)
            return reply

        return answer


class _Turn:
    """A place among the pages that are made at once. Raises RateLimited when none gets free in time."""

    def __init__(self, room: asyncio.Semaphore) -> None:
        self._room = room

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout(_QUEUE_S_MAX):
                await self._room.acquire()
        except TimeoutError as error:
            raise errors.RateLimited("Too many people look at the dashboard at once; come back shortly.") from error

    async def __aexit__(self, *_: object) -> None:
        self._room.release()


def _sign_in_form(request: web.Request, status: int, problem: str | None) -> web.Response:
    token = request.cookies.get(FORM_COOKIE) or web_sessions.new_token()
    reply = _html(layout.sign_in(web_sessions.form_token(token), problem), status)
    security.keep(reply, request, FORM_COOKIE, token)
    return reply


def _html(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": _HTML})


def _go_to(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


def _failure(problem: errors.TallybookError, request_id: str) -> web.Response:
    reply = _html(layout.failure(problem, request_id), problem.status)
    if isinstance(problem, errors.RateLimited | errors.Unavailable):
        reply.headers["Retry-After"] = str(problem.retry_after_s)
    if isinstance(problem, errors.PayloadTooLarge):
        reply.force_close()
    return reply


def _statement_page(found: Statement) -> web.Response:
    """The page has its style inside, as it is mailed and kept; the policy names it by its digest."""
    digest = base64.b64encode(hashlib.sha256(statement_html.STYLE.encode()).digest()).decode()
    reply = _html(statement_html.html(found).encode())
    reply.headers["Content-Security-Policy"] = _STATEMENT_POLICY.format(digest)
    return reply


async def _document(found: Statement) -> web.Response:
    body = await asyncio.to_thread(statement_pdf.pdf, found)
    headers = {"Content-Type": "application/pdf", "Content-Disposition": f'inline; filename="{found.number}.pdf"'}
    return web.Response(body=body, headers=headers)

"""Access control: every route declares who may call it, and a route without a declaration lets nobody in.

Checked before a route reads anything of the request: the session, the role, and for every change that the request comes
from our own page (a token that only it knows, and the browser's Origin header).
"""

import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triphase.labeling.web import sessions
from triphase.labeling.web.context import Context, ServerSettings
from triphase.labeling.web.sessions import Session
from triphase.labeling.web.templating import page

COOKIE = "triphase_session"
PUBLIC, LABELER, LEAD, ANYONE_SIGNED_IN = "public", "labeler", "lead", "signed in"
"""Access levels. Leads may do everything that labelers may: someone who works alone is both."""
_SAFE = ("GET", "HEAD")
_GUIDELINES = "/lead/guidelines"
CAMPAIGNS, CAMPAIGN = "/lead/campaigns", "/lead/campaign"
MOST_GUIDELINES = 60_000
"""Maximum characters of the guidelines."""
_LONGEST_GUIDELINES = 12 * MOST_GUIDELINES + 4096
"""Bytes of the form with the guidelines: a character outside the BMP takes twelve, %F0%9F%98%80."""
_ANSWERS = ("/api/answers", "/api/drafts")
MOST_REWRITTEN = 180_000
"""Maximum characters of an item's rewritten responses, all together."""
_LONGEST_ANSWER = 6 * MOST_REWRITTEN + 65_536
"""Bytes of an answer with this much rewritten: JSON writes a character in six at most."""
_log = logging.getLogger("triphase.labeling")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer a browser sends "Origin: null" with its forms, which we refuse
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def access(level: str) -> Callable[[Endpoint], Endpoint]:
    """Declare who may call a route."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.access = level  # type: ignore[attr-defined]
        return endpoint

    return mark


class GuardedRoute(APIRoute):
    """A route that calls ``refusal`` before anything else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The guarded handler."""
        inner = super().get_route_handler()
        level = getattr(self.endpoint, "access", None)

        async def handler(request: Request) -> Response:
            refused = await refusal(request, level)
            return refused if refused is not None else await inner(request)

        return handler


async def refusal(request: Request, level: str | None) -> Response | None:
    """The response to someone without access; None if they have it. Leaves the session in ``request.state``."""
    context: Context = request.app.state.context
    if request.method not in _SAFE and not _from_here(request):
        return _say(request, 403, "This request came from another site and was refused.")
    session = await session_of(request, context)
    request.state.session = session
    if level == PUBLIC:
        return None
    if session is None:
        if request.url.path.startswith("/api/"):
            return _say(request, 401, "You are signed out. Sign in again in another tab; your draft is kept here.")
        return RedirectResponse("/sign-in", status_code=303)
    if level not in (ANYONE_SIGNED_IN, session.role) and (level, session.role) != (LABELER, LEAD):
        return _say(request, 403, f"This needs the role {level or 'nobody'}; you are signed in as {session.role}.")
    if level == LEAD and session.status != "active":
        return _say(request, 403, "Your account is paused: ask another lead.")
    if request.method not in _SAFE and not await _has_token(request, session):
        return _say(request, 403, "The page has expired. Reload it and try again.")
    return None


async def session_of(request: Request, context: Context) -> Session | None:
    """Who sent the request; None if nobody is signed in."""
    token = sessions.unsealed(request.cookies.get(COOKIE, ""), context.key)
    if token is None:
        return None
    return await context.glance(lambda connection: sessions.find(connection, token, context.now()))


def _from_here(request: Request) -> bool:
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:  # not an address, such as http://[
        return False


async def _has_token(request: Request, session: Session) -> bool:
    given: object = request.headers.get("x-csrf-token")
    kind = request.headers.get("content-type", "")
    if given is None and kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        given = (await request.form(max_files=0, max_fields=60)).get("csrf")
    return isinstance(given, str) and secrets.compare_digest(given.encode(), session.csrf.encode())


def _say(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"message": message}, status)
    return page(request, "message.html", {"title": "Not here", "message": message}, status)


class Hardened:
    """The outermost layer: hosts, body sizes, security headers on every response, and handling of every failure."""

    def __init__(self, app: ASGIApp, server: ServerSettings, *, rewrites: bool = False) -> None:
        """``rewrites``: answers contain rewritten responses."""
        self.app = app
        self.longer = dict.fromkeys((_GUIDELINES, CAMPAIGNS, CAMPAIGN), _LONGEST_GUIDELINES)
        self.longer |= dict.fromkeys(_ANSWERS if rewrites else (), _LONGEST_ANSWER)
        self.hosts = server.allowed_hosts
        self.most_body_bytes = server.most_body_bytes
        self.headers = {**_HEADERS, **({"strict-transport-security": "max-age=31536000"} if server.secure else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        hardened = self._with_headers(scope, noting)
        request = Request(scope)
        most = max(self.most_body_bytes, self.longer.get(scope["path"], 0))
        too_long = f"The request is longer than {most} bytes; shorten the text."
        length = request.headers.get("content-length", "0")
        if not self._is_ours(request.headers.get("host", "")):
            await _say(request, 400, "This server does not serve that host.")(scope, receive, hardened)
        elif not (length.isascii() and length.isdigit() and len(length) < 16 and int(length) <= most):
            await _say(request, 413, too_long)(scope, receive, hardened)
        else:
            try:
                await self.app(scope, _limited(receive, most, too_long), hardened)
            except Exception:
                _log.exception("a request failed: %s %s", scope["method"], scope["path"][:200].encode("unicode_escape"))
                if not started:
                    message = (
                        "Something went wrong on the server. Check whether your change was saved "
                        "before you send it again."
                    )
                    await _say(request, 500, message)(scope, receive, hardened)

    def _is_ours(self, host: str) -> bool:
        if "*" in self.hosts:
            return True
        try:
            return urlsplit(f"//{host}").hostname in self.hosts
        except ValueError:
            return False

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers["cache-control"] = "no-store"
            await send(message)

        return hardened


def _limited(receive: Receive, most: int, too_long: str) -> Receive:
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, too_long)
        return message

    return limited

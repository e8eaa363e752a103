"""What stands before the page: names, token, origin and the headers that bind the browser."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventkit.ui.doors import Doors, same_origin

CSRF = "x-eventkit-csrf"
OPEN = ("/sign-in", "/sign-in.js", "/theme.js", "/look.css", "/ui.css")
"""Paths that need no token: they show nothing of the broker."""
_STRICT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_SAFE = ("GET", "HEAD")


class Guard:
    """Answers itself whatever may not come in. Nothing may be changed but from a page of ours."""

    def __init__(self, app: ASGIApp, doors: Doors, csrf: str, policy: str) -> None:
        self._app = app
        self._doors = doors
        self._csrf = csrf
        self._headers: Mapping[str, str] = {**_STRICT, "content-security-policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        app = self._refusal(Request(scope)) or self._app
        await app(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._doors.knows(host):
            return refuse(403, f"this page is not asked for as {host!r}: --allow-host lets that name in")
        path = request.url.path
        if path not in OPEN and not self._doors.lets_in(request.cookies.get(cookie(request))):
            if path == "/":
                return RedirectResponse("sign-in", 303)
            return refuse(401, "sign in first, with the token that `eventkit ui` said when it started")
        if request.method in _SAFE:
            return None
        if not same_origin(request.headers.get("origin"), host):
            return refuse(403, "only a page of this very origin may do that")
        if path == "/sign-in":
            return None
        if self._doors.read_only:
            return refuse(403, "this page was started with --read-only")
        if not secrets.compare_digest(request.headers.get(CSRF, "").encode(), self._csrf.encode()):
            return refuse(403, "the page is older than its server: load it again")
        return None


def cookie(request: Request) -> str:
    """The name of the pass: a cookie is sent to all ports of a host, where others may listen."""
    return f"eventkit-ui-{request.url.port or 'default'}"


def refuse(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)

"""The page's server: what a browser may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from eventkit.errors import EventkitError, NoDeadLetter, NotProvisioned
from eventkit.ui.doors import Doors
from eventkit.ui.guard import Guard, cookie, refuse
from eventkit.ui.letters import Chosen, Letters
from eventkit.ui.live import Live
from eventkit.ui.pages import Page, static

_LARGEST = 256 * 1024
"""Bytes of a request."""
_GUESS = 0.5
"""Seconds that a wrong token costs."""


class _Deed(BaseModel):
    """What is to be done with which dead letters."""

    model_config = ConfigDict(extra="forbid")

    group: str
    ids: list[str] = Field(default_factory=list, max_length=1_000)
    type: str | None = None
    reason: str | None = None
    all: bool = False
    force: bool = False

    def chosen(self) -> Chosen:
        return Chosen(group=self.group, ids=tuple(self.ids), type=self.type, reason=self.reason, all=self.all)


class _SignIn(BaseModel):
    token: str


def application(page: Page, live: Live, letters: Letters, doors: Doors) -> Starlette:
    """The whole of it, guarded. It watches while its lifespan lasts."""
    views = _Views(page, live, letters, doors)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with live.open():
            yield

    return Starlette(
        routes=[
            Route("/", views.page),
            Route("/events", views.events),
            Route("/letters", views.letters),
            Route("/letter", views.letter),
            Route("/letters/{verb:str}", views.deed, methods=["POST"]),
            Route("/sign-in", views.sign_in, methods=["GET", "POST"]),
            *(Route(f"/{name}", _asset(media, text)) for name, (media, text) in page.assets.items()),
        ],
        middleware=[Middleware(Guard, doors=doors, csrf=live.csrf, policy=page.policy)],
        lifespan=lifespan,
    )


class _Views:
    def __init__(self, page: Page, live: Live, letters: Letters, doors: Doors) -> None:
        self._page = page
        self._live = live
        self._letters = letters
        self._doors = doors

    async def page(self, _: Request) -> Response:
        return HTMLResponse(self._page.html)

    async def events(self, _: Request) -> Response:
        async def frames() -> AsyncIterator[bytes]:
            async with self._live.viewer() as viewer:
                async for frame in self._live.frames(viewer):
                    yield frame

        return StreamingResponse(frames(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def letters(self, request: Request) -> Response:
        """The oldest of a group: `?group=`, `&type=`, `&reason=`."""
        said = request.query_params
        chosen = Chosen(group=said.get("group", ""), type=said.get("type") or None, reason=said.get("reason") or None)
        return await self._answer(chosen.group, lambda: self._letters.list(chosen))

    async def letter(self, request: Request) -> Response:
        """One of them: `?group=`, `&id=`."""
        group, id_ = request.query_params.get("group", ""), request.query_params.get("id", "")
        return await self._answer(group, lambda: self._letters.show(group, id_))

    async def deed(self, request: Request) -> Response:
        """Retry or discard."""
        verb = request.path_params["verb"]
        if verb not in ("retry", "discard"):
            return refuse(404, "there are retry and discard")
        try:
            deed = _Deed.model_validate_json(await _body(request))
        except (ValidationError, ValueError) as error:
            return refuse(400, f"that cannot be read: {error}")
        chosen, who = deed.chosen(), request.client.host if request.client else "somebody"
        if chosen.narrowed == chosen.all:
            return refuse(400, "say which: ids, a type, a reason; or all, and none of these")
        if verb == "retry":
            return await self._answer(chosen.group, lambda: self._letters.retry(chosen, force=deed.force, who=who))
        return await self._answer(chosen.group, lambda: self._letters.discard(chosen, who=who))

    async def sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(static("sign-in.html"))
        try:
            said = _SignIn.model_validate_json(await _body(request))
        except (ValidationError, ValueError):
            return refuse(400, "say the token")
        admitted = self._doors.admit(said.token)
        if admitted is None:
            await asyncio.sleep(_GUESS)
            return refuse(403, "that is not the token that `eventkit ui` said when it started")
        response = JSONResponse({})
        secure = request.headers.get("origin", "").startswith("https:")
        response.set_cookie(cookie(request), admitted, httponly=True, samesite="strict", secure=secure)
        return response

    async def _answer(self, group: str, do: Callable[[], Awaitable[Mapping[str, Any]]]) -> Response:
        if group not in self._letters:
            return refuse(404, f"there is no group {group!r} on this page")
        try:
            return JSONResponse(await do())
        except (NoDeadLetter, NotProvisioned) as error:
            return refuse(404, str(error))
        except EventkitError as error:
            return refuse(502, str(error))
        except Exception as error:  # noqa: BLE001 a client's own error: who asked is told
            return refuse(502, f"the broker refused it: {type(error).__name__}: {error}")


async def _body(request: Request) -> bytes:
    """ValueError where it is too large, or no JSON by its own word: a form of elsewhere can send no JSON unasked."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ValueError("it is application/json")
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > _LARGEST:
            raise ValueError(f"at most {_LARGEST:,} bytes")
    return bytes(found)


def _asset(media: str, text: str) -> Callable[[Request], Awaitable[Response]]:
    async def view(_: Request) -> Response:
        return Response(text, media_type=media)

    return view

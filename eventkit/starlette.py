"""eventkit in a Starlette app: a bus for its endpoints, services beside them, health, metrics and AsyncAPI.

```python
app = Starlette(
    routes=[Route("/orders", place, methods=["POST"]), *eventkit.starlette.routes()],
    lifespan=eventkit.starlette.lifespan(shipping),
)

async def place(request: Request) -> Response:
    await eventkit.starlette.bus(request).publish(OrderPlaced(...))
```

Needs the extra `starlette`. FastAPI apps use `eventkit.fastapi`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from eventkit import bus as buses
from eventkit import connecting
from eventkit import headers as h
from eventkit.errors import DeclarationError
from eventkit.health import Health
from eventkit.running import Running
from eventkit.service import Service
from eventkit.wire import new_id

try:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import BaseRoute, Route
except ImportError as error:
    raise ImportError(
        f"eventkit.starlette needs Starlette ({error}): pip install 'faststream-eventkit[starlette]'"
    ) from error

__all__ = ["bus", "correlation_id", "health", "lifespan", "routes"]

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]

_KEY = "eventkit"
_CORRELATION = "eventkit.correlation"
_FOUND_IN = ("x-correlation-id", "x-request-id")
_USABLE = re.compile(r"[!-~]{1,128}").fullmatch
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?").fullmatch


@dataclass(frozen=True, slots=True)
class _Attached:
    """What the lifespan puts into the app's state."""

    bus: buses.Bus
    services: Sequence[Service]
    running: Running | None
    texts: dict[str, str] = field(default_factory=dict)
    """Of the AsyncAPI document, made when first asked for."""


def lifespan(
    *services: Service, connect: Callable[[], buses.Bus] | None = None, around: Lifespan | None = None
) -> Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """A lifespan for the app: opens a bus, runs these services beside it, and drains them at the end.

    Without services the app only publishes. `connect` makes the bus (None: `eventkit.connect()`, so the environment
    says where). `around` is the app's own lifespan: entered before the bus and left after it, so that handlers may use
    what it opens; the state that it yields is kept.
    """

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            state: Mapping[str, Any] | None = None
            if around is not None:
                state = await stack.enter_async_context(around(app))
            name = services[0].name if len(services) == 1 else None
            made = connect() if connect is not None else connecting.connect(service=name)
            opened = await stack.enter_async_context(made)
            running = await stack.enter_async_context(opened.run(*services)) if services else None
            yield {**(state or {}), _KEY: _Attached(opened, services, running)}

    return run


def bus(connection: HTTPConnection) -> buses.Bus:
    """The app's bus, for one request: what is published through it carries the request's correlation id and trace."""
    given = connection.headers
    trace = {name: given[name] for name in (h.TRACEPARENT, h.TRACESTATE) if name in given}
    if not _TRACEPARENT(trace.get(h.TRACEPARENT, "")) or len(trace.get(h.TRACESTATE, "")) > 512:
        trace = {}
    return _attached(connection).bus.carrying(correlation_id=correlation_id(connection), headers=trace)


def correlation_id(connection: HTTPConnection) -> str:
    """X-Correlation-ID of the request, else X-Request-ID, else the trace id of its `traceparent`, else a new one.

    The same for the whole request. Headers come from anyone: one that is longer than 128 characters, or not printable
    ASCII without spaces, is passed over.
    """
    found = connection.scope.get(_CORRELATION)
    if not isinstance(found, str):
        found = connection.scope[_CORRELATION] = _correlation(connection.headers)
    return found


def health(connection: HTTPConnection) -> Health:
    """Whether the broker is there, and all groups of the app's services consume."""
    attached = _attached(connection)
    return attached.bus.health() if attached.running is None else attached.running.health()


def routes(
    *,
    health: str | None = "/health",
    asyncapi: str | None = "/asyncapi",
    metrics: str | None = "/metrics",
    **document: Any,
) -> list[BaseRoute]:
    """Routes to put into the app.

    `<health>/live` answers 200 as long as the process serves. `<health>/ready` answers 503 with the reasons while a
    group does not consume, for an adapter heals by itself: restarting the process would not bring a broker back.
    `<asyncapi>.json` and `<asyncapi>.yaml` give the document of the app's services, and `<asyncapi>` the page, which
    needs the extra `docs` and answers 501 without it. `<metrics>` gives what an instrument tells, such as
    EVENTKIT_METRICS=prometheus, and 404 where there is none. None leaves any of them out. Further arguments are those
    of `eventkit.asyncapi.document`, such as `title`.
    """
    found: list[BaseRoute] = []
    if health is not None:
        found += [Route(f"{health}/live", _live), Route(f"{health}/ready", _ready)]
    if metrics is not None:
        found.append(Route(metrics, _metrics))
    if asyncapi is not None:

        async def as_json(request: Request) -> Response:
            return Response(_text(request, "json", document), media_type="application/json")

        async def as_yaml(request: Request) -> Response:
            return PlainTextResponse(_text(request, "yaml", document), media_type="application/yaml")

        async def as_page(request: Request) -> Response:
            from eventkit.asyncapi import DocumentError

            try:
                return HTMLResponse(_text(request, "page", document))
            except DocumentError as error:  # such as: the extra `docs` is not installed
                return PlainTextResponse(f"{error}\n", status_code=501)

        found += [Route(f"{asyncapi}.json", as_json), Route(f"{asyncapi}.yaml", as_yaml), Route(asyncapi, as_page)]
    return found


def _attached(connection: HTTPConnection) -> _Attached:
    found = connection.scope.get("state", {}).get(_KEY)
    if not isinstance(found, _Attached):
        raise DeclarationError(
            "this app has no bus: give it lifespan=eventkit.starlette.lifespan(...) (or eventkit.fastapi's), "
            "and in a test let a client run its lifespan, such as `with TestClient(app)`"
        )
    return found


def _correlation(given: Mapping[str, str]) -> str:
    for name in _FOUND_IN:
        if _USABLE(given.get(name, "")):
            return given[name]
    trace = _TRACEPARENT(given.get(h.TRACEPARENT, ""))
    return trace[1] if trace else new_id()


async def _live(_: Request) -> Response:
    return JSONResponse({"status": "alive"})


async def _ready(request: Request) -> Response:
    found = health(request)
    return JSONResponse(found.as_json(), status_code=200 if found.ok else 503)


async def _metrics(request: Request) -> Response:
    page = await _attached(request).bus.metrics()
    if page is None:
        return PlainTextResponse("nothing tells metrics: EVENTKIT_METRICS=prometheus does\n", status_code=404)
    return Response(page.body, headers={"content-type": page.content_type})


def _text(request: Request, form: str, options: Mapping[str, Any]) -> str:
    from eventkit import asyncapi

    attached = _attached(request)
    known = attached.texts.get(form)
    if known is None:
        of_bus = {"broker": attached.bus.broker, "content_type": attached.bus.serializer.content_type}
        document = asyncapi.document(*attached.services, **{**of_bus, **options})
        write = {"json": asyncapi.to_json, "yaml": asyncapi.to_yaml, "page": asyncapi.page}[form]
        known = attached.texts[form] = write(document)
    return known

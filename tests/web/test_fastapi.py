"""FastAPI and Starlette apps with eventkit in them: a real uvicorn, a real client, memory and a real broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

import eventkit
import eventkit.fastapi
import eventkit.starlette
from eventkit import Bus, Command, Context, DeclarationError, Event, Service
from eventkit.contract.checks import eventually
from eventkit.testing.brokers import Broker
from tests.wanted import wanted
from tests.web.served import served

_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_TRACEPARENT = f"00-{_TRACE}-00f067aa0ba902b7-01"

_opened: list[str] = []


def get_database() -> str:
    _opened.append("opened")
    return "database"


Database = Annotated[str, Depends(get_database), eventkit.Depends(get_database)]
AppBus = Annotated[Bus, Depends(eventkit.fastapi.bus)]


class Order(BaseModel):
    order_id: str


class OrderPlaced(Event, topic="web.orders", key="order_id"):
    order_id: str


class ParcelBooked(Event, topic="parcels", key="order_id"):
    order_id: str


class Quote(BaseModel):
    price: int


class QuoteShipping(Command[Quote], service="shipping"):
    order_id: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", [name for name in wanted(metafunc.config) if name in ("memory", "redis", "nats")])


@pytest.fixture
def connect(name: str, broker: Callable[[str], Broker]) -> Callable[[], Bus]:
    """Makes a bus in a namespace of this test's own."""
    url = None if name == "memory" else broker(name).url
    namespace = f"web{uuid.uuid4().hex[:8]}"
    return lambda: eventkit.connect(name, url, namespace=namespace, service="web")


class Shop:
    """A service, and what it has seen."""

    def __init__(self) -> None:
        self.booked: list[tuple[str, str, str]] = []
        self.told: list[tuple[str, Mapping[str, str]]] = []
        self.service = Service("shipping")

        @self.service.handler
        async def book(event: OrderPlaced, context: Context) -> ParcelBooked:
            self.booked.append((event.order_id, context.correlation_id, context.source))
            return ParcelBooked(order_id=event.order_id)

        @self.service.handler
        async def tell(event: ParcelBooked, context: Context) -> None:
            self.told.append((context.correlation_id, context.headers))

        @self.service.handler
        async def quote(command: QuoteShipping) -> Quote:
            return Quote(price=len(command.order_id))


def fastapi_app(shop: Shop, connect: Callable[[], Bus]) -> FastAPI:
    app = FastAPI(title="Shop", lifespan=eventkit.fastapi.lifespan(shop.service, connect=connect))
    app.include_router(eventkit.fastapi.router(title="The shop"))

    @app.post("/orders")
    async def place(order: Order, bus: AppBus) -> dict[str, str]:
        await bus.publish(OrderPlaced(order_id=order.order_id))
        return {"placed": order.order_id}

    @app.get("/quotes/{order_id}")
    async def quote(order_id: str, bus: AppBus) -> Quote:
        return await bus.request(QuoteShipping(order_id=order_id))

    @app.get("/correlation")
    async def correlation(said: Annotated[str, Depends(eventkit.fastapi.correlation_id)]) -> str:
        return said

    return app


def test_fastapi(name: str, connect: Callable[[], Bus]) -> None:
    shop = Shop()

    async def main() -> None:
        async with served(fastapi_app(shop, connect)) as client:
            answer = await client.post("/orders", json={"order_id": "1"}, headers={"X-Correlation-ID": "chain-1"})
            assert answer.json() == {"placed": "1"}
            await client.post("/orders", json={"order_id": "2"}, headers={"traceparent": _TRACEPARENT})
            await client.post("/orders", json={"order_id": "3"}, headers={"X-Correlation-ID": "no good\tone"})
            await eventually(lambda: len(shop.told) == 3, "what the handler published is handled too")
            assert (await client.get("/quotes/four")).json() == {"price": 4}
            assert (await client.get("/health/live")).json() == {"status": "alive"}
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
            document = (await client.get("/asyncapi.json")).json()
            assert document["asyncapi"] == "3.0.0"
            assert document["info"]["title"] == "The shop"
            assert "web.orders" in json.dumps(document["channels"])
            openapi = (await client.get("/openapi.json")).json()
            assert set(openapi["paths"]) == {"/orders", "/quotes/{order_id}", "/correlation"}

    asyncio.run(main())
    found = {order: (correlation, source) for order, correlation, source in shop.booked}
    assert found["1"] == ("chain-1", "web")
    assert found["2"] == (_TRACE, "web")
    assert found["3"][0] not in ("", "no good\tone")
    carried = dict(shop.told)
    assert carried.keys() == {correlation for correlation, _ in found.values()}
    assert carried[_TRACE]["traceparent"] == _TRACEPARENT


def test_starlette(name: str, connect: Callable[[], Bus]) -> None:
    shop = Shop()
    order: list[str] = []

    @asynccontextmanager
    async def own(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        order.append("own begins")
        yield {"pool": "a pool"}
        order.append("own ends")

    async def place(request: StarletteRequest) -> JSONResponse:
        bus = eventkit.starlette.bus(request)
        await bus.publish(OrderPlaced(order_id="1"))
        return JSONResponse({"pool": request.state.pool, "chain": eventkit.starlette.correlation_id(request)})

    app = Starlette(
        routes=[Route("/orders", place, methods=["POST"]), *eventkit.starlette.routes(asyncapi=None)],
        lifespan=eventkit.starlette.lifespan(shop.service, connect=connect, around=own),
    )

    async def main() -> dict[str, str]:
        async with served(app) as client:
            said: dict[str, str] = (await client.post("/orders")).json()
            await eventually(lambda: shop.told, "it is handled")
            assert (await client.get("/health/ready")).status_code == 200
            assert (await client.get("/asyncapi.json")).status_code == 404
            return said

    said = asyncio.run(main())
    assert said["pool"] == "a pool"
    assert shop.told[0][0] == said["chain"], "a request without a header begins a chain, one for all it publishes"
    assert order == ["own begins", "own ends"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"X-Correlation-ID": "a", "X-Request-ID": "b", "traceparent": _TRACEPARENT}, "a"),
        ({"X-Request-ID": "b", "traceparent": _TRACEPARENT}, "b"),
        ({"traceparent": _TRACEPARENT}, _TRACE),
        ({"X-Correlation-ID": "x" * 129, "X-Request-ID": "b"}, "b"),
        ({"X-Correlation-ID": "two words", "traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}, None),
        ({}, None),
    ],
)
def test_correlation(given: dict[str, str], said: str | None) -> None:
    scope = {"type": "http", "headers": [(key.lower().encode(), value.encode()) for key, value in given.items()]}
    request = StarletteRequest(scope)
    found = eventkit.starlette.correlation_id(request)
    assert found == said if said is not None else len(found) == 36
    assert eventkit.starlette.correlation_id(StarletteRequest(scope)) == found, "the same for the whole request"


def test_not_ready_while_a_consumer_is_dead() -> None:
    """And alive all the same."""
    shop = Shop()
    made: list[Bus] = []

    def connect() -> Bus:
        made.append(eventkit.connect("memory", namespace=uuid.uuid4().hex))
        return made[0]

    app = fastapi_app(shop, connect)
    attached: list[Any] = []

    @app.get("/look")
    async def look(request: Request) -> None:
        attached.append(request.scope["state"]["eventkit"])

    async def main() -> None:
        async with served(app) as client:
            await client.get("/look")
            (consuming,) = attached[0].running._consuming.values()
            consuming._consumer.error = ConnectionError("gone")
            ready = await client.get("/health/ready")
            assert ready.status_code == 503
            assert ready.json() == {"status": "not ready", "errors": {"shipping": "ConnectionError: gone"}}
            assert (await client.get("/health/live")).status_code == 200

    asyncio.run(main())


def test_an_endpoint_that_is_no_coroutine_and_dependencies_that_handlers_share() -> None:
    """One alias serves both: FastAPI reads its own mark, eventkit its own."""
    _opened.clear()
    service = Service("shipping")
    got: list[str] = []

    @service.handler
    async def book(event: OrderPlaced, db: Database) -> None:
        got.append(db)

    app = FastAPI(lifespan=eventkit.fastapi.lifespan(service, connect=lambda: eventkit.connect("memory")))

    @app.get("/plain")
    def plain(db: Database, bus: AppBus) -> str:
        assert bus.broker == "memory"
        return db

    @app.post("/orders")
    async def place(bus: AppBus) -> None:
        await bus.publish(OrderPlaced(order_id="1"))

    async def main() -> None:
        async with served(app) as client:
            assert (await client.get("/plain")).json() == "database"
            await client.post("/orders")
            await eventually(lambda: got == ["database"], "the handler has it too")

    asyncio.run(main())
    assert len(_opened) == 2


def test_an_app_without_the_lifespan_is_told_so() -> None:
    with pytest.raises(DeclarationError, match=r"give it lifespan=eventkit\.starlette\.lifespan"):
        eventkit.starlette.bus(StarletteRequest({"type": "http", "headers": []}))


def test_neither_is_imported_with_eventkit() -> None:
    code = "import sys, eventkit; assert not {'starlette', 'fastapi'} & set(sys.modules), 'imported'"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

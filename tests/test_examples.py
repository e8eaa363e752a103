"""The examples on every backend, as their users run them: programs of their own, told to stop by SIGTERM."""

from __future__ import annotations

import re
import signal
import sys
import uuid
from collections.abc import Callable

import pytest

from eventkit.testing.brokers import Broker
from tests.programs import EVENTKIT, Program
from tests.wanted import wanted

_REGISTRATION = "examples.registration.service:service"
_WELCOMES = [
    "to ada@example.com: Welcome, Ada!",
    "to grace@example.com: Welcome, Grace!",
    "to alan@example.com: Welcome, Alan!",
]
_TOGETHER = """
import asyncio
import eventkit
from eventkit.log import to_console
from examples.registration.producer import register
from examples.registration.service import service

async def main():
    async with eventkit.connect() as bus, bus.run(service):
        await register(bus, 3, 0.01)
        await asyncio.sleep(0.2)

to_console()
asyncio.run(main())
"""

_ORDER = """
import asyncio
import eventkit
from examples.shop.messages import PlaceOrder

async def main():
    async with eventkit.connect() as bus:
        await bus.send(PlaceOrder(order_id="7", item="lamp", address="12 Mill Lane"))

asyncio.run(main())
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = wanted(metafunc.config)
    if metafunc.function is test_each_service_of_the_shop_in_a_process_of_its_own:
        names = [name for name in names if name != "memory"]
    metafunc.parametrize("name", names)


@pytest.fixture
def settings(name: str, broker: Callable[[str], Broker]) -> dict[str, str]:
    """Of a broker that is wanted, under a namespace of this test's own."""
    if name == "memory":
        return {"EVENTKIT_BROKER": "memory"}
    namespace = f"examples-{uuid.uuid4().hex[:8]}"
    return {"EVENTKIT_BROKER": name, "EVENTKIT_URL": broker(name).url, "EVENTKIT_NAMESPACE": namespace}


def test_registration(name: str, settings: dict[str, str]) -> None:
    if name == "memory":  # nothing leaves a process: both parts in one
        with Program(sys.executable, "-c", _TOGETHER, env=settings) as both:
            assert both.wait() == 0
            assert [both.output.count(line) for line in _WELCOMES] == [1, 1, 1]
        return
    with Program(*EVENTKIT, "run", _REGISTRATION, env=settings) as service:
        service.wait_for("WelcomeEmailRequested")  # the table: it is live
        producer = [sys.executable, "-m", "examples.registration.producer", "--count", "3", "--every", "0.05"]
        with Program(*producer, env=settings) as website:
            assert website.wait() == 0, website.output
            assert website.output.count("registered ") == 3
        for line in _WELCOMES:
            service.wait_for(re.escape(line))
        service.tell(signal.SIGTERM)
        assert service.wait(30) == 0, service.output
        assert "stopped welcome in" in service.output
        assert [service.output.count(line) for line in _WELCOMES] == [1, 1, 1]


def test_shop(name: str, settings: dict[str, str]) -> None:
    with Program(sys.executable, "-m", "examples.shop", env=settings) as shop:
        assert shop.wait(90) == 0, shop.output
        told = shop.output
    for order in (
        r"-1  lamp ordered, paid, sent as TR-\w+-1, closed",
        r"-2  chair ordered, paid at attempt 3, sent as TR-\w+-2, closed",
        r"-3  piano refused: sold out",
        r"-4  vase ordered, paid, not sent: see below",
        r"PaymentTaken key=\w+-4  gave-up at attempt 1: no house number",
    ):
        assert re.search(order, told), told
    counts = dict(re.findall(r"^  (orders|payments|shipping|audit) +(\d+ +\d+ +\d+ +\d+)$", told, re.MULTILINE))
    assert {service: tuple(map(int, line.split())) for service, line in counts.items()} == {
        "orders": (5, 1, 0, 0),
        "payments": (3, 0, 2, 0),
        "shipping": (3, 1, 0, 1),
        "audit": (11, 0, 0, 0),
    }, told
    assert "Traceback" not in told


def test_each_service_of_the_shop_in_a_process_of_its_own(name: str, settings: dict[str, str]) -> None:
    with (
        Program(*EVENTKIT, "run", "examples.shop:payments", env=settings) as payments,
        Program(*EVENTKIT, "run", "examples.shop:shipping", env=settings) as shipping,
        Program(*EVENTKIT, "run", "examples.shop:orders", "examples.shop:audit", env=settings) as orders,
    ):
        for program in (payments, shipping, orders):
            program.wait_for("listens to")
        with Program(sys.executable, "-c", _ORDER, env=settings) as customer:
            assert customer.wait() == 0, customer.output
        payments.wait_for("charged 39.90 for order 7")
        shipping.wait_for("parcel for order 7 goes to 12 Mill Lane")
        orders.wait_for("order 7 is closed, its parcel is TR-7")
        orders.wait_for("handled OrderClosed key=7")
        for program in (payments, shipping, orders):
            program.tell(signal.SIGTERM)
        assert [program.wait(30) for program in (payments, shipping, orders)] == [0, 0, 0]

"""The bus for code without an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Self

import pytest

import eventkit
from eventkit import Closed, Command, CommandRejected, DeclarationError, Event, NoOwner, Reject, RequestTimeout, Service
from eventkit.adapter import Address, Connection, Delivery, Message
from eventkit.blocking import Bus, connect
from eventkit.memory import MemoryAdapter, Store


class Placed(Event, topic="orders", key="order"):
    order: str


class Charge(Command[int], service="payments"):
    order: str


class Serving:
    """A service in an event loop of its own thread, as another process would run it."""

    def __init__(self, store: Store) -> None:
        self.seen: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self._bus = eventkit.blocking.connect(adapter=memory(store))
        service = Service("payments")

        @service.handler
        async def placed(event: Placed, context: eventkit.Context) -> None:
            self.seen[event.order] += 1
            self.headers.append(context.headers)

        @service.handler
        async def charge(command: Charge) -> int:
            self.seen[command.order] += 1
            if command.order == "rejected":
                raise Reject("no money")
            return len(command.order)

        self._service = service

    def __enter__(self) -> Self:
        self._bus.__enter__()
        self._running = self._bus._bus.run(self._service)
        self._bus._wait(self._running.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._bus._wait(self._running.stop())
        self._bus.__exit__(None, None, None)

    def wait(self, count: int) -> None:
        deadline = threading.Event()
        for _ in range(1_000):
            if self.seen.total() >= count:
                return
            deadline.wait(0.005)
        raise AssertionError(f"{self.seen.total()} of {count} arrived")


def memory(store: Store) -> MemoryAdapter:
    return MemoryAdapter(Connection(url=None, namespace="", client="test"), store=store)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def serving(store: Store) -> Iterator[Serving]:
    with Serving(store) as given:
        yield given


def test_publish_send_and_request(store: Store, serving: Serving) -> None:
    with connect(adapter=memory(store), service="shop") as bus:
        bus.publish(Placed(order="one"), id="1", correlation_id="c", headers={"x": "y"})
        bus.publish_many(Placed(order="many") for _ in range(3))
        bus.publish(Placed(order="later"), delay=timedelta(milliseconds=20))
        bus.send(Charge(order="sent"))
        assert bus.request(Charge(order="12345"), timeout=timedelta(seconds=5)) == 5
        with pytest.raises(CommandRejected, match="no money"):
            bus.request(Charge(order="rejected"))
        serving.wait(8)
    assert serving.seen == {"one": 1, "many": 3, "later": 1, "sent": 1, "12345": 1, "rejected": 1}
    assert serving.headers[0] == {"x": "y"}


def test_many_threads_share_it(store: Store, serving: Serving) -> None:
    with connect(adapter=memory(store)) as bus, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: bus.publish(Placed(order=f"{n}")), range(100)))
        assert list(pool.map(lambda n: bus.request(Charge(order="x" * n)), range(1, 30))) == list(range(1, 30))
        serving.wait(129)
    assert set(serving.seen.values()) == {1}


def test_errors_come_out_as_they_are(store: Store) -> None:
    with connect(adapter=memory(store)) as bus:
        with pytest.raises(NoOwner, match="the service 'payments' has no inbox"):
            bus.send(Charge(order="7"))
        with pytest.raises(DeclarationError, match=r"Charge is a command: publish\(\) takes events"):
            bus.publish(Charge(order="7"))  # type: ignore[arg-type]
        bus.publish(Placed(order="still usable"))


def test_a_request_that_nobody_answers(store: Store) -> None:
    with Serving(store):
        pass  # its inbox stays
    with (
        connect(adapter=memory(store)) as bus,
        pytest.raises(RequestTimeout, match=r"no reply to Charge within 0.05 s"),
    ):
        bus.request(Charge(order="7"), timeout=timedelta(seconds=0.05))


def test_use_outside_of_with_says_so(store: Store) -> None:
    bus = connect(adapter=memory(store))
    with pytest.raises(Closed, match=r"use it inside `with eventkit\.blocking\.connect\(\) as bus`"):
        bus.publish(Placed(order="7"))
    with bus:
        bus.publish(Placed(order="7"))
        with pytest.raises(Closed, match="open already"):
            bus.__enter__()
    with pytest.raises(Closed):
        bus.publish(Placed(order="7"))
    with bus:  # and again
        bus.publish(Placed(order="7"))


def test_no_thread_is_left(store: Store) -> None:
    def loops() -> int:
        return sum(thread.name == "eventkit blocking bus" for thread in threading.enumerate())

    before = loops()
    with connect(adapter=memory(store)) as bus:
        assert loops() == before + 1
        loop = bus._loop
    assert loops() == before
    assert loop is not None
    assert loop.is_closed()


def test_a_start_that_fails_leaves_nothing_open(store: Store) -> None:
    class Away(MemoryAdapter):
        async def start(self, timeout: float, /) -> eventkit.adapter.Limits:
            raise ConnectionRefusedError("nobody listens")

    bus = Bus(eventkit.Bus(Away(Connection(url=None, namespace="", client="t")), source="t"))
    with pytest.raises(eventkit.BrokerUnavailable, match=r"cannot connect to memory .*nobody listens"), bus:
        pass
    with pytest.raises(Closed):
        bus.publish(Placed(order="7"))


def test_it_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_BROKER", "memory")
    with eventkit.blocking.connect() as bus:
        bus.publish(Placed(order="7"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_bus_of_before_a_fork_says_so(store: Store) -> None:
    """Its thread is not there: what it is given would be waited for without an end."""
    with connect(adapter=memory(store)) as bus:
        child = os.fork()
        if not child:
            code = 1
            try:
                bus.publish(Placed(order="a"))
            except Closed as error:
                code = 0 if "forked" in str(error) else 2
            finally:
                os._exit(code)
        ends = time.monotonic() + 10
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < ends:
            time.sleep(0.01)
        if not ended[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert ended == (child, 0)


def test_whoever_waits_in_another_thread_when_it_closes_is_told(store: Store) -> None:
    class Deaf(MemoryAdapter):
        async def remove(self, deliveries: object, /) -> list[Exception | None]:
            waiting.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
            yield Delivery(Message(address, "Placed", None, {}, b"{}"), "1", None, None)

        async def provision(self, wanted: object, how: object, /) -> None: ...

    waiting = threading.Event()
    with ThreadPoolExecutor() as threads:
        with connect(adapter=Deaf(Connection(url=None, namespace="", client="test"), store=store)) as bus:
            discarding = threads.submit(bus.dead_letters("payments").discard, all=True)
            assert waiting.wait(5)
        with pytest.raises(Closed, match="closed before it had an answer"):
            discarding.result(5)

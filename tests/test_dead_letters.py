"""Dead letters by the API: what is refused, what a letter shows, the blocking bus, and kill -9 at the worst moment."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

import eventkit.blocking
from eventkit import DeadLetterError, DeclarationError, NoDeadLetter, Reason, Retry, Service
from eventkit import headers as h
from eventkit.adapter import Address, Connection, Message
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.contract.letters import listed
from eventkit.memory import MemoryAdapter, Store
from eventkit.testing.brokers import Broker
from tests.programs import Program
from tests.wanted import wanted


class Parcel(eventkit.Event, topic="parcels", key="name"):
    name: str
    pin: str = "0815"


class Worker:
    """A service that fails until it is told not to."""

    def __init__(self) -> None:
        self.works = False
        self.handled: Counter[str] = Counter()
        self.service = Service("worker", retry=Retry(attempts=1))

        @self.service.handler
        async def parcel(event: Parcel) -> None:
            if not self.works:
                raise ValueError(f"no {event.name}")
            self.handled[event.name] += 1


def memory(store: Store) -> MemoryAdapter:
    return MemoryAdapter(Connection(url=None, namespace="", client="test"), store=store)


def with_letters(names: list[str], story: Callable[[eventkit.Bus, Worker], Awaitable[None]]) -> None:
    """Run this with so many dead letters of a running service."""

    async def run() -> None:
        worker = Worker()
        async with eventkit.Bus(memory(Store()), source="shop") as bus, bus.run(worker.service):
            for name in names:
                await bus.publish(Parcel(name=name), id=name, headers={"x-secret": "geheim"})
            await listed(bus, "worker", len(names))
            await story(bus, worker)

    asyncio.run(run())


# what is asked for


def test_nothing_is_changed_unless_it_is_said_what() -> None:
    async def story(bus: eventkit.Bus, worker: Worker) -> None:
        letters = bus.dead_letters("worker")
        for call in (letters.retry, letters.discard):
            with pytest.raises(DeclarationError, match="dead letters of worker: give ids, a filter, or all=True"):
                await call()
            with pytest.raises(DeclarationError, match="all=True goes with no id and no filter"):
                await call("a", all=True)
        with pytest.raises(DeclarationError, match="reason='tired': a dead letter's reason is one of exhausted"):
            await letters.discard(reason="tired")
        with pytest.raises(DeclarationError, match="time zone"):
            await letters.discard(since=datetime(2026, 1, 1))
        await listed(bus, "worker", 2)

    with_letters(["a", "b"], story)


def test_filters_hold_together() -> None:
    async def story(bus: eventkit.Bus, worker: Worker) -> None:
        letters = bus.dead_letters("worker")
        assert [one.id async for one in letters.list("a", "c", type=Parcel, reason=Reason.EXHAUSTED)] == ["a", "c"]
        assert [one.id async for one in letters.list("a", type="Other")] == []
        assert [one.id async for one in letters.list(since=timedelta(hours=1))] == ["a", "b", "c"]
        assert [one.id async for one in letters.list(since=datetime.now(UTC))] == []
        assert await letters.discard("a", "b", reason="exhausted") == 2
        assert [one.id async for one in letters.list()] == ["c"]

    with_letters(["a", "b", "c"], story)


# what a letter shows


def test_its_repr_and_its_errors_hold_nothing_of_its_content() -> None:
    async def story(bus: eventkit.Bus, worker: Worker) -> None:
        letter = await bus.dead_letters("worker").show("a")
        assert letter.read(Parcel) == Parcel(name="a")
        assert letter.headers == {"x-secret": "geheim"}
        assert "0815" not in repr(letter)
        assert "geheim" not in repr(letter)
        assert "id='a'" in repr(letter)
        with pytest.raises(NoDeadLetter, match="worker has no dead letter 'z'"):
            await bus.dead_letters("worker").show("z")
        with pytest.raises(DeadLetterError) as caught:
            await bus.dead_letters("worker").retry("a", "z")
        assert (caught.value.done, [one.id for one in caught.value.failures]) == (1, ["z"])

    with_letters(["a"], story)


def test_one_that_another_program_put_there_is_shown_and_not_retried() -> None:
    async def story(bus: eventkit.Bus, worker: Worker) -> None:
        foreign = Message(Address("dead", "worker"), "", None, {h.LAST_FAILURE: "yesterday", h.ATTEMPT: "x"}, b"?")
        assert list(await bus.adapter.publish([foreign])) == [None]
        (letter,) = [one async for one in bus.dead_letters("worker").list()]
        assert (letter.reason, letter.attempts, letter.last_failure, letter.group) == ("", 1, None, "worker")
        assert letter.id.startswith("dead:worker@")
        with pytest.raises(DeadLetterError, match="does not say where it was first published"):
            await bus.dead_letters("worker").retry(all=True)
        assert await bus.dead_letters("worker").discard(letter.id) == 1

    with_letters([], story)


def test_a_retried_request_waits_for_nobody_and_does_not_expire() -> None:
    async def story(bus: eventkit.Bus, worker: Worker) -> None:
        message = bus.encode(Parcel(name="late"), id="late")
        past = datetime.now(UTC) - timedelta(hours=1)
        own = {h.EXPIRY: past.isoformat(), h.REPLY_TO: "nobody", h.ORIGIN: "topic:parcels", h.REASON: "undecodable"}
        letter = message._replace(address=Address("dead", "worker"), headers={**message.headers, **own})
        assert list(await bus.adapter.publish([letter])) == [None]
        worker.works = True
        assert await bus.dead_letters("worker").retry("late") == 1
        await eventually(lambda: worker.handled["late"] == 1, "it is handled")

    with_letters([], story)


# the blocking bus


@contextmanager
def running(store: Store) -> Iterator[Worker]:
    """A service in a loop of its own thread."""
    worker, ready = Worker(), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with eventkit.Bus(memory(store), source="worker") as bus, bus.run(worker.service):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield worker
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_the_blocking_bus() -> None:
    store = Store()
    with running(store) as worker, eventkit.blocking.connect(adapter=memory(store)) as bus:
        for name in ("a", "b", "c"):
            bus.publish(Parcel(name=name), id=name)
        letters = bus.dead_letters("worker")
        ends = datetime.now(UTC) + timedelta(seconds=10)
        while len(list(letters.list())) < 3:
            assert datetime.now(UTC) < ends
        for letter in letters.list():
            assert letter.id == "a"
            break
        assert letters.group == "worker"
        assert letters.show("b").read(Parcel) == Parcel(name="b")
        assert letters.discard("c") == 1
        worker.works = True
        assert letters.retry(all=True) == 2
        while worker.handled.total() < 2:
            assert datetime.now(UTC) < ends
        assert list(letters.list()) == []
        with pytest.raises(NoDeadLetter):
            letters.show("a")


# kill -9


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", [name for name in wanted(metafunc.config) if name != "memory"])


_RETRIES_AND_HANGS = """
import asyncio
import eventkit

async def hang(deliveries):
    print("copied", len(deliveries))
    await asyncio.sleep(600)

async def main():
    async with eventkit.connect() as bus:
        bus.adapter.remove = hang
        await bus.dead_letters("worker").retry(all=True)

asyncio.run(main())
"""


def test_killed_between_copy_and_removal_nothing_is_lost(real: str, broker: Callable[[str], Broker]) -> None:
    url, namespace = broker(real).url, fresh_namespace()
    names = [f"parcel {n}" for n in range(5)]

    async def story() -> None:
        worker = Worker()
        async with eventkit.connect(real, url, namespace=namespace) as bus, bus.run(worker.service):
            await bus.publish_many([Parcel(name=name) for name in names])
            before = await listed(bus, "worker", 5)
            worker.works = True
            environment = {"EVENTKIT_BROKER": real, "EVENTKIT_URL": url, "EVENTKIT_NAMESPACE": namespace}
            with Program(sys.executable, "-c", _RETRIES_AND_HANGS, env=environment) as program:
                await asyncio.to_thread(program.wait_for, "copied 5")
                program.tell(signal.SIGKILL)
                await asyncio.to_thread(program.wait, 10)
            await eventually(lambda: worker.handled.keys() == set(names), "the copies are handled")
            after = await listed(bus, "worker", 5)
            assert {letter.id for letter in after} == {letter.id for letter in before}
            assert await bus.dead_letters("worker").retry(all=True) == 5
            await listed(bus, "worker", 0)
            await asyncio.sleep(0.3)
            assert worker.handled.keys() == set(names)
            assert max(worker.handled.values()) <= 2, worker.handled

    asyncio.run(story())

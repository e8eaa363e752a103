"""S: scale."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from datetime import timedelta
from types import new_class
from typing import Any

from eventkit.adapter import Limits
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.samples import raises
from eventkit.errors import InvalidMessage, MessageTooLarge, PublishError
from eventkit.messages import Command, Event
from eventkit.service import Service


class Piece(Event, topic="scale.pieces", key="name"):
    number: int
    name: str | None = None
    padding: str = ""


class Plain(Event, topic="scale.pieces"):
    """Handled by a plain function, in a thread."""

    number: int


class Turn(Command, service="worker"):
    number: int


def _with_number(namespace: dict[str, Any]) -> None:
    namespace["__annotations__"] = {"number": int}
    namespace["__module__"] = __name__


class _Gauge:
    """How many run at once, counted from any thread."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


@check("S2", "no more handlers run at once than the service's concurrency says, and no fewer where there is work")
async def concurrency_is_kept(backend: Backend) -> None:
    service, narrow = Service("worker", concurrency=5), Service("narrow", concurrency=1)
    gauge, alone = _Gauge(), _Gauge()
    done: Counter[str] = Counter()

    @service.handler
    async def piece(event: Piece) -> None:
        with gauge:
            await asyncio.sleep(0.002)
        done[f"piece {event.number}"] += 1

    @service.handler
    def plain(event: Plain) -> None:
        with gauge:
            time.sleep(0.002)
        done[f"plain {event.number}"] += 1

    @service.handler
    async def turn(command: Turn) -> None:
        with gauge:
            await asyncio.sleep(0.002)
        done[f"turn {command.number}"] += 1

    @narrow.handler
    async def one_by_one(event: Piece) -> None:
        with alone:
            await asyncio.sleep(0)
        done[f"narrow {event.number}"] += 1

    async with bus(backend, fresh_namespace()) as b, b.run(service, narrow):
        keyed = [Piece(number=n, name=f"key {n % 40}") for n in range(200)]
        keyless = [Piece(number=n) for n in range(200, 300)]
        await asyncio.gather(
            b.publish_many([*keyed, *keyless, *(Plain(number=n) for n in range(100))]),
            *(b.send(Turn(number=n)) for n in range(50)),
        )
        await eventually(lambda: done.total() >= 750, "all are handled")
        await stays(lambda: done.total() == 750, "one was handled twice", 0.1)
    assert set(done.values()) == {1}
    assert gauge.most == 5, f"{gauge.most} ran at once, concurrency is 5"
    assert alone.most == 1, f"{alone.most} ran at once, concurrency is 1"


@check("S3", "thousands waiting behind slow handlers stay on the broker, bounded in flight, and none comes twice")
async def backpressure(backend: Backend) -> None:
    count, concurrency = 5_000, 20
    service = Service("worker", concurrency=concurrency, stop_timeout=timedelta(seconds=2))
    seen: Counter[int] = Counter()
    arrivals: Counter[tuple[int, int | None]] = Counter()
    slow = asyncio.Event()

    @service.handler
    async def piece(event: Piece, context: Context) -> None:
        seen[event.number] += 1
        arrivals[context.attempt, context.delivery.deliveries] += 1
        if len(seen) <= concurrency:
            await slow.wait()
        elif event.number % 50 == 0:
            await asyncio.sleep(0.01)

    async with bus(backend, fresh_namespace()) as b, b.run(service) as running:
        await b.publish_many([Piece(number=n) for n in range(count)])
        await eventually(lambda: len(seen) >= concurrency, "all workers are busy")
        most = running.at_work

        def stuck() -> bool:
            nonlocal most
            most = max(most, running.at_work)
            return len(seen) == concurrency

        await stays(stuck, "more run than the concurrency says", 0.7)
        assert concurrency <= most <= 1_000, f"{most} were in flight"
        ((group, _),) = service.groups().values()
        left = await b.adapter.measure(group)
        assert left.in_flight is None or left.in_flight <= 1_000, f"they do not stay on the broker: {left}"
        assert left.ready is None or left.ready >= count - 1_000, f"they do not stay on the broker: {left}"
        assert running.health().ok
        slow.set()
        while len(seen) < count:
            most = max(most, running.at_work)
            done = len(seen)
            await eventually(lambda done=done: len(seen) > done, f"it goes on after {done}")  # type: ignore[misc]
        assert most <= 1_000, f"{most} were in flight"
        await stays(lambda: seen.total() == count, "a message came twice", 0.2)
    assert set(seen.values()) == {1}
    assert set(arrivals) <= {(1, 1), (1, None)}, f"redelivered: {arrivals}"


async def _limits(backend: Backend, namespace: str) -> Limits:
    adapter = backend.adapter(namespace)
    try:
        return await adapter.start(15.0)
    finally:
        await adapter.stop(5.0)


@check("S4", "too large a message raises a typed error that says by how much, and harms no other")
async def too_large(backend: Backend) -> None:
    namespace = fresh_namespace()
    limit = (await _limits(backend, namespace)).message_bytes
    service = Service("worker")
    seen: Counter[int] = Counter()

    @service.handler
    async def piece(event: Piece) -> None:
        seen[event.number] += 1

    async with bus(backend, namespace) as b, b.run(service) as running:
        large = Piece(number=-1, padding="x" * limit)
        few = [b.publish(Piece(number=n)) for n in range(100)]
        answers = await asyncio.gather(*few[:50], b.publish(large, id="large-1"), *few[50:], return_exceptions=True)
        error = answers.pop(50)
        assert isinstance(error, MessageTooLarge), repr(error)
        assert isinstance(error, PublishError)
        assert isinstance(error, InvalidMessage)
        assert error.size > error.limit > 0, f"size {error.size}, limit {error.limit}"
        assert "Piece" in str(error), f"it does not name the message: {error}"
        (failure,) = error.failures
        assert failure.message is large
        assert not failure.unknown
        assert answers == [None] * 100
        await b.publish(Piece(number=100, padding="x" * (min(limit, 1_000_000) // 2)))
        await eventually(lambda: seen.total() >= 101, "all others arrive, large ones too")
        await stays(lambda: seen == Counter(range(101)), f"others than were sent: {seen}", 0.2)
        assert running.health().ok


@check("S5", "publish_many names exactly those that were not confirmed; all others arrive")
async def partial_failure(backend: Backend) -> None:
    namespace = fresh_namespace()
    limit = (await _limits(backend, namespace)).message_bytes
    service = Service("worker")
    seen: Counter[int] = Counter()

    @service.handler
    async def piece(event: Piece) -> None:
        seen[event.number] += 1

    async with bus(backend, namespace) as b, b.run(service):
        events = [Piece(number=n, name=f"key {n % 10}") for n in range(1_200)]
        events[777] = Piece(number=777, name="key 7", padding="x" * limit)
        error = await raises(PublishError, b.publish_many(events))
        failures = error.failures
        assert [failure.index for failure in failures] == [777]
        assert failures[0].message is events[777]
        assert isinstance(failures[0].error, MessageTooLarge)
        assert not failures[0].unknown
        assert "777" in str(error), f"it does not say which: {error}"
        await eventually(lambda: seen.total() >= 1_199, "all others arrive")
        await stays(lambda: seen.total() == 1_199, "more than was sent", 0.2)
    assert seen == Counter(n for n in range(1_200) if n != 777)


@check("S1", "50 subscribers get 5,000 messages of 20 topics: each all of its topic, once")
async def many_subscribers(backend: Backend) -> None:
    kinds = [new_class(f"Piece{n}", (Event,), {"topic": f"scale.many.{n}"}, _with_number) for n in range(20)]
    services = [Service(f"subscriber-{n}", concurrency=4) for n in range(50)]
    seen: dict[str, Counter[str]] = {service.name: Counter() for service in services}
    expected: dict[str, Counter[str]] = {service.name: Counter() for service in services}

    def listen(service: Service, kind: type[Any]) -> None:
        async def piece(event: Any) -> None:
            seen[service.name][f"{kind.__name__} {event.number}"] += 1

        piece.__annotations__["event"] = kind
        service.handler(piece)

    for place, service in enumerate(services):
        kind = kinds[place % len(kinds)]
        listen(service, kind)
        expected[service.name].update(f"{kind.__name__} {n}" for n in range(250))
    total = sum(counter.total() for counter in expected.values())
    async with bus(backend, fresh_namespace()) as b, b.run(*services) as running:
        await b.publish_many([kind(number=n) for n in range(250) for kind in kinds])
        await eventually(lambda: sum(c.total() for c in seen.values()) >= total, f"all {total} arrive", 30.0)
        await stays(lambda: sum(c.total() for c in seen.values()) == total, "and no more", 0.3)
        assert running.health().ok
    assert seen == expected

"""L: lifecycle."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta

from eventkit.bus import Bus
from eventkit.context import Context
from eventkit.contract.checks import Backend, Vacuous, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.receiving import started
from eventkit.contract.samples import raises
from eventkit.errors import BrokerUnavailable, Closed
from eventkit.messages import Command, Event
from eventkit.service import Service


class Tick(Event, topic="lifecycle.ticks"):
    number: int


class Tock(Command[int], service="clock"):
    number: int


@check("L1", "a broker that cannot be reached is a typed error in time, and nothing is left open")
async def unreachable(backend: Backend) -> None:
    port, whole = (backend.unreachable(fresh_namespace()) for _ in range(2))
    if port is None or whole is None:
        raise Vacuous("there is no broker that could be away: it lies in this process")
    before = asyncio.all_tasks()
    began = time.monotonic()

    async def start_port() -> float:
        try:
            await port.start(1.0)
        except Exception:  # noqa: BLE001 the client's own error, whatever it is
            return time.monotonic() - began
        raise AssertionError("start() says that it is connected, to nothing")

    async def open_bus() -> BrokerUnavailable:
        try:
            async with Bus(whole, source="contract"):
                raise AssertionError("the bus says that it is open, to nothing")
        except BrokerUnavailable as error:
            return error

    async with asyncio.timeout(15.0):
        took, error = await asyncio.gather(start_port(), open_bus())
    assert took < 3.0, f"start(1.0) took {took:.1f} s"
    assert backend.name in str(error), f"it does not name the broker: {error}"
    assert error.__cause__ is not None, "the client's own error is not its cause"
    await eventually(lambda: asyncio.all_tasks() <= before, "no task is left", 2.0)
    async with asyncio.timeout(5.0):
        await port.stop(1.0)
    await _given_up(backend)
    await eventually(lambda: asyncio.all_tasks() <= before, "no task is left of a start that was given up", 5.0)


async def _given_up(backend: Backend) -> None:
    """Starts that run out of time half way, after one that does not."""
    began = time.monotonic()
    async with started(backend, fresh_namespace()):
        took = time.monotonic() - began
    for part in range(1, 8):
        adapter = backend.adapter(fresh_namespace())
        try:
            await adapter.start(took * part / 8)
        except Exception:  # noqa: BLE001 S112 the client's own error, whatever it is
            continue
        await adapter.stop(5.0)


@check("L2", "ready means ready: what is published right after a new group has started is received")
async def ready_means_ready(backend: Backend) -> None:
    namespace = fresh_namespace()
    ends = time.monotonic() + 6.0

    def make(name: str) -> tuple[Service, list[int]]:
        service = Service(name)
        seen: list[int] = []

        @service.handler
        async def tick(event: Tick) -> None:
            seen.append(event.number)

        return service, seen

    async with bus(backend, namespace, "publisher") as publisher, bus(backend, namespace) as b:
        await publisher.publish(Tick(number=-1))
        for number in range(10):
            service, seen = make(f"fresh-{number}")
            async with b.run(service):
                await publisher.publish(Tick(number=number))
                await eventually(seen.copy, f"group {number} gets the first message after its start")
            assert seen == [number], f"group {number} got {seen}"
            if time.monotonic() > ends and number > 1:
                break


@check("L5", "stop finishes what runs and settles it, starts nothing more, and gives back the rest")
async def stop_drains(backend: Backend) -> None:
    service = Service("worker", concurrency=8)
    started: Counter[int] = Counter()
    finished: Counter[int] = Counter()
    attempts: set[int] = set()
    gate = asyncio.Event()

    @service.handler
    async def tick(event: Tick, context: Context) -> None:
        started[event.number] += 1
        attempts.add(context.attempt)
        await gate.wait()
        finished[event.number] += 1

    async with bus(backend, fresh_namespace()) as b:
        async with b.run(service) as running:
            await b.publish_many([Tick(number=n) for n in range(60)])
            await eventually(lambda: started.total() == 8, "eight run")
            stopping = asyncio.ensure_future(running.stop())
            await stays(lambda: not stopping.done(), "stop returned while handlers ran", 0.2)
            assert started.total() == 8
            gate.set()
            async with asyncio.timeout(10.0):
                await stopping
            assert finished == started, "a handler was not finished"
        await stays(lambda: started.total() == 8, "a handler started after stop", 0.1)
        async with b.run(service):
            await eventually(lambda: finished.total() >= 60, f"all are handled in the end, not {finished.total()}")
            await stays(lambda: finished.total() == 60, "a finished message came again", 0.3)
    assert finished == started == Counter(range(60))
    assert attempts == {1}


@check("L6", "past the stop's deadline a message is given back untried: another replica gets it as attempt 1")
async def past_the_deadline(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker", stop_timeout=timedelta(milliseconds=300))
    hangs = True
    cancelled: Counter[int] = Counter()
    attempts: dict[str, list[tuple[int, int]]] = {"first": [], "second": []}

    @service.handler
    async def tick(event: Tick, context: Context) -> None:
        attempts["first" if hangs else "second"].append((event.number, context.attempt))
        if hangs:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled[event.number] += 1

    async with bus(backend, namespace) as first, bus(backend, namespace) as second:
        async with first.run(service) as running:
            await first.publish_many([Tick(number=n) for n in range(5)])
            await eventually(lambda: len(attempts["first"]) == 5, "all five run")
            counts = running.counts["worker"]
            began = time.monotonic()
            await running.stop()
            took = time.monotonic() - began
        hangs = False
        assert 0.25 < took < 5.0, f"a stop of 0.3 s took {took:.2f} s"
        assert cancelled == Counter(range(5))
        assert (counts.handled, counts.retried, counts.dead) == (0, 0, 0)
        async with second.run(service):
            await eventually(lambda: len(attempts["second"]) >= 5, "another replica gets all five")
            await stays(lambda: len(attempts["second"]) == 5, "one came twice", 0.2)
    assert sorted(attempts["second"]) == [(n, 1) for n in range(5)]
    assert await dead_letters(backend, namespace, "worker", 0) == []


@check("L8", "a cancelled publish leaves the bus usable; a bus that is closed says so")
async def cancelled_and_closed(backend: Backend) -> None:
    service = Service("clock")
    seen: Counter[int] = Counter()

    @service.handler
    async def tick(event: Tick) -> None:
        seen[event.number] += 1

    @service.handler
    async def tock(command: Tock) -> int:
        return command.number

    b = bus(backend, fresh_namespace())
    async with b, b.run(service):
        for turns in range(12):
            first, publish, last = (asyncio.ensure_future(b.publish(Tick(number=n + turns))) for n in (200, 0, 300))
            many = asyncio.ensure_future(b.publish_many([Tick(number=100 + turns)] * 3))
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in (publish, many):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            async with asyncio.timeout(10.0):
                await asyncio.gather(first, last)  # published at the same time, not cancelled
        request = asyncio.ensure_future(b.request(Tock(number=1)))
        await asyncio.sleep(0)
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        async with asyncio.timeout(10.0):
            await b.publish(Tick(number=1_000))
            assert await b.request(Tock(number=2)) == 2
        await eventually(lambda: seen[1_000], "what is published afterwards arrives")
        others = [*range(200, 212), *range(300, 312)]
        await eventually(lambda: all(seen[n] for n in others), "so does what was published beside the cancelled ones")
        await stays(lambda: seen[1_000] == 1, "once", 0.1)
        wrong = {n: count for n, count in seen.items() if count > (3 if 100 <= n < 200 else 1)}
        assert not wrong, f"a cancelled publish went out more than once: {wrong}"
    for use in (
        b.publish(Tick(number=0)),
        b.publish_many([Tick(number=0)]),
        b.send(Tock(number=0)),
        b.request(Tock(number=0)),
    ):
        async with asyncio.timeout(5.0):
            error = await raises(Closed, use)
        assert "open" in str(error), f"it does not say what is wrong: {error}"
    try:
        b.run(service)
    except Closed:
        pass
    else:
        raise AssertionError("a service was run on a closed bus")


@check("L9", "stopping one service leaves the others of the same bus running; it goes on later where it was")
async def stopping_one(backend: Backend) -> None:
    one, other = Service("one"), Service("other")
    seen: dict[str, Counter[int]] = {"one": Counter(), "other": Counter(), "audit": Counter()}

    @one.handler
    async def of_one(event: Tick) -> None:
        seen["one"][event.number] += 1

    @other.handler
    async def of_other(event: Tick) -> None:
        seen["other"][event.number] += 1

    @other.handler(group="audit")
    async def of_audit(event: Tick) -> None:
        seen["audit"][event.number] += 1

    def all_have(count: int, *names: str) -> bool:
        return all(seen[name].total() >= count for name in names)

    async with bus(backend, fresh_namespace()) as b, b.run(other) as running:
        async with b.run(one):
            await b.publish_many([Tick(number=n) for n in range(20)])
            await eventually(lambda: all_have(20, "one", "other", "audit"), "all three groups get all")
        await b.publish_many([Tick(number=n) for n in range(20, 40)])
        await eventually(lambda: all_have(40, "other", "audit"), "the groups that were not stopped go on")
        assert running.health().ok
        assert seen["one"].total() == 20, "the stopped service goes on"
        async with b.run(one):
            await b.publish_many([Tick(number=n) for n in range(40, 60)])
            await eventually(lambda: all_have(60, "one", "other", "audit"), "the stopped one goes on where it was")
            await stays(lambda: all(counter.total() == 60 for counter in seen.values()), "something came twice", 0.2)
    assert all(counter == Counter(range(60)) for counter in seen.values())

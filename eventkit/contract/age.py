"""V: age. The next release, and what a broker changes under services that run."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, runtime_checkable

from eventkit.adapter import Adapter, Provision
from eventkit.bus import Bus
from eventkit.context import Context
from eventkit.contract.checks import Backend, Vacuous, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.receiving import started
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service


@runtime_checkable
class Ageing(Protocol):
    """A backend on which time passes. What it cannot do it refuses with Vacuous and the reason."""

    def next_release(self, namespace: str, /) -> Adapter:
        """As `adapter` makes them, but set otherwise in all that an operator may change from one release to the next:
        leases, limits, ages, time limits."""
        ...

    def grow(self, namespace: str, topic: str, /) -> None:
        """Give a topic more partitions. It blocks; checks call it in a thread."""
        ...

    def forget(self, namespace: str, topic: str, /) -> None:
        """Have the broker drop what a topic holds now, as it does with what is too old or too much. It blocks."""
        ...


class Aged(Event, topic="age.things", key="key"):
    number: int
    key: str
    fails: bool = False
    """Its first attempt does."""


class Fresh(Event, topic="age.things", key="key"):
    """Of a type that comes with the next release, on the same topic."""

    number: int
    key: str


class Tend(Command[int], service="ageing"):
    number: int


def _ageing(backend: Backend) -> Ageing:
    if not isinstance(backend, Ageing):
        raise Vacuous("this backend cannot be aged: see eventkit.contract.age.Ageing")
    return backend


@check(
    "V1", "the next release changes settings and delays; both run side by side, then it is taken back: nothing is lost"
)
async def next_release(backend: Backend) -> None:
    ageing = _ageing(backend)
    namespace = fresh_namespace()
    done: Counter[int] = Counter()
    tried: Counter[int] = Counter()
    count = 0

    def release(delay: float, **settings: timedelta) -> Service:
        retry = Retry(attempts=3, first_delay=timedelta(seconds=delay), factor=1 + delay, jitter=0)
        service = Service("ageing", retry=retry, concurrency=8, **settings)  # type: ignore[arg-type]

        @service.handler
        async def aged(event: Aged, context: Context) -> None:
            tried[event.number] += 1
            if event.fails and context.attempt == 1:
                raise RuntimeError("in a while")
            done[event.number] += 1

        @service.handler
        async def tend(command: Tend) -> int:
            return command.number

        return service

    async def publish(on: Bus) -> None:
        """Forty, of which ten fail, and ten that come later; and a request."""
        nonlocal count
        events = [Aged(number=count + n, key=f"k{n % 7}", fails=n % 4 == 0) for n in range(40)]
        await on.publish_many(events)
        for n in range(40, 50):
            await on.publish(Aged(number=count + n, key="late"), delay=timedelta(milliseconds=700))
        count += 50
        assert await on.request(Tend(number=count)) == count

    async def failed(since: int) -> None:
        """Those that fail are on the broker now, waiting for the delay of the release that tried them."""
        await eventually(lambda: sum(tried[n] for n in range(since, count)) >= 40, "all have been tried once")

    old, new = release(0.3), release(0.9, timeout=timedelta(seconds=5), stop_timeout=timedelta(seconds=3))
    newer = Bus(ageing.next_release(namespace), source="next")
    async with bus(backend, namespace) as sender, bus(backend, namespace, "old") as older, newer:
        async with older.run(old):
            await publish(sender)
            async with newer.run(new) as running:  # both
                await publish(sender)
                await publish(newer)
                await failed(100)
                assert running.health().ok, running.health()
            # it is taken back, while what it had put off waits
            await publish(newer)
            await failed(150)
        async with newer.run(new):  # and made after all, while what the old one had put off waits
            await publish(sender)
            await failed(200)
        async with older.run(old) as running:  # and taken back again
            await eventually(lambda: len(done) >= count, f"all is handled: {count - len(done)} are missing")
            await stays(lambda: done.total() == count, "something came twice", 0.3)
            assert running.health().ok, running.health()
    wrong = {n: tried[n] for n in range(count) if tried[n] != (2 if n % 50 < 40 and n % 50 % 4 == 0 else 1)}
    assert not wrong, f"tried otherwise, by number: {dict(list(wrong.items())[:9])}"
    await dead_letters(backend, namespace, "ageing", 0)


@check(
    "V2", "what a topic is divided into grows under load, by types, subjects or partitions: nothing is lost or twice"
)
async def grows(backend: Backend) -> None:
    ageing = _ageing(backend)
    namespace = fresh_namespace()
    got: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    service = Service("ageing", concurrency=8)
    other = Service("reporting")

    @service.handler
    async def anything(event: Aged | Fresh) -> None:
        got[f"{type(event).__name__} {event.number}"] += 1

    @other.handler
    async def reports(event: Aged) -> None:
        got[f"reported {event.number}"] += 1

    async def publish(on: Bus, rounds: int, kind: type[Aged | Fresh]) -> None:
        for _ in range(rounds):
            start = len(expected)
            numbers = range(start, start + 20)
            await on.publish_many([kind(number=n, key=f"k{n % 31}") for n in numbers])
            expected.update(f"{kind.__name__} {n}" for n in numbers)
            if kind is Aged:
                expected.update(f"reported {n}" for n in numbers)
            await asyncio.sleep(0.02)

    async with bus(backend, namespace) as sender, bus(backend, namespace) as one, bus(backend, namespace) as two:
        async with one.run(service, other), two.run(service):
            await publish(sender, 5, Aged)
            loading = asyncio.ensure_future(publish(sender, 100, Aged))
            try:
                await asyncio.to_thread(ageing.grow, namespace, "age.things")
                how = "partitions"
            except Vacuous:
                how = "types"
            await loading
            await publish(sender, 20, Fresh)
            await eventually(lambda: expected <= got, f"all arrives while {how} grow")
        await publish(sender, 5, Fresh)  # nobody runs: what is new then has a beginning of its own
        async with bus(backend, namespace) as fresh:
            await publish(fresh, 5, Aged)
        async with two.run(service, other):
            await eventually(lambda: expected <= got, "what came while nobody ran")
            await stays(lambda: expected == got, "something came twice", 0.3)


@check(
    "V3",
    "what the broker dropped before a group had read it is said, loudly: by which group, of what, from where to where",
)
async def gaps(backend: Backend) -> None:
    ageing = _ageing(backend)
    namespace = fresh_namespace()
    got: list[int] = []
    service = Service("sleeper")

    @service.handler
    async def aged(event: Aged) -> None:
        got.append(event.number)

    wanted = [group for group, _ in service.groups().values()]
    async with bus(backend, namespace) as b:
        async with started(backend, namespace) as adapter:
            await adapter.provision(wanted, Provision.CREATE)
        await b.publish_many([Aged(number=n, key="k") for n in range(50)])
        with _loud() as said:
            async with b.run(service):
                await eventually(lambda: len(got) >= 50, "what was there")
                await stays(lambda: not said, f"a gap is said where there is none: {said}", 0.2)
            await b.publish_many([Aged(number=n, key="k") for n in range(50, 100)])
            await asyncio.to_thread(ageing.forget, namespace, "age.things")
            await b.publish_many([Aged(number=n, key="k") for n in range(100, 110)])
            async with b.run(service) as running:
                await eventually(lambda: 109 in got, f"what comes after the gap: {got[-5:]}")
                await eventually(lambda: any(map(_of_a_gap, said)), f"the gap is said: {said}")
                assert running.health().ok, "it goes on: a gap is news, not a state"
    missing = sorted(set(range(110)) - set(got))
    assert missing, "the broker dropped nothing: this backend's forget() does not"
    assert not set(missing) & {*range(50), *range(100, 110)}, f"more than what it dropped: {missing}"
    assert sorted(got) == sorted(set(got)), "something came twice"


def _of_a_gap(line: str) -> bool:
    return "sleeper" in line and "things" in line


@contextmanager
def _loud() -> Iterator[list[str]]:
    """What is logged as an error meanwhile, by anyone."""
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listening = Listening(logging.ERROR)
    logging.getLogger().addHandler(listening)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(listening)

"""Processes that are killed at random, and messages that kill theirs: who is given up on, and what that costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventkit import Event, Service, suspects
from eventkit import headers as h
from eventkit.adapter import Connection, Delivery, Group, Message, Move, Settlement
from eventkit.bus import Bus
from eventkit.contract.checks import eventually
from eventkit.copies import suspicion
from eventkit.memory import MemoryAdapter, MemoryConsumer, Store
from eventkit.running import Running
from eventkit.suspects import FIRST, LEAST_ALONE


class Task(Event, topic="tasks", key="key"):
    number: int
    key: str


class Plan(NamedTuple):
    """What happens in a run."""

    replicas: int
    innocents: int
    killers: frozenset[int]
    """Which of the messages kill their process."""
    kills: list[int]
    """After how many more handled messages one process is killed from outside."""
    quarantine_after: int


@st.composite
def plans(draw: st.DrawFn, killers: int) -> Plan:
    innocents = draw(st.sampled_from([3, 20, 90]))
    return Plan(
        draw(st.integers(1, 3)),
        innocents,
        draw(st.frozensets(st.integers(0, innocents), min_size=killers, max_size=killers)),
        draw(st.lists(st.integers(0, 8), max_size=12)),
        draw(st.integers(2, 7)),
    )


class Mortal(MemoryAdapter):
    """The broker, as one process sees it: dead, that settles and publishes nothing more."""

    def __init__(self, store: Store, world: World) -> None:
        super().__init__(Connection(url=None, namespace="", client="test"), store=store)
        self._world = world
        self._reading: list[MemoryConsumer] = []
        self.dead = False

    async def consume(self, group: Group, receive: object, /, *, in_flight: int) -> MemoryConsumer:
        consumer = await super().consume(group, receive, in_flight=in_flight)  # type: ignore[arg-type]
        settle = consumer.settle

        def settle_alive(delivery: Delivery, how: Settlement, /) -> None:
            if not self.dead:
                if isinstance(how, Move):
                    self._world.copied(how.copy)
                settle(delivery, how)

        consumer.settle = settle_alive  # type: ignore[method-assign]
        self._reading.append(consumer)
        return consumer

    async def die(self) -> None:
        for consumer in self._reading:
            await consumer.stop(1.0)


class Process:
    """One replica, from its start to its death."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.adapter = Mortal(world.store, world)
        self.bus = Bus(self.adapter, source="test")
        self.at_work: set[int] = set()
        self._started = asyncio.Event()
        self._running: Running

    async def start(self) -> None:
        await self.bus.__aenter__()
        self._running = self.bus.run(self.world.service(self))
        await self._running.__aenter__()
        self._started.set()

    async def end(self) -> None:
        await self._started.wait()
        if self.adapter.dead:
            await self.adapter.die()
        await self._running.stop()
        await self.bus.__aexit__(None, None, None)


class World:
    """All processes, what they did, and what they died of."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.store = Store()
        self.processes: list[Process] = []
        self.handled: Counter[int] = Counter()
        self.died_of: Counter[int] = Counter()
        self.died_alone: Counter[int] = Counter()
        """Deaths of a process in which it alone was at work, by message."""
        self.copies: Counter[str] = Counter()
        """Of suspects, since the last death, by message."""
        self._births: set[asyncio.Task[None]] = set()
        self.kills = list(plan.kills)
        self._until = self.kills.pop(0) if self.kills else None

    def copied(self, message: Message) -> None:
        if suspicion(message) is not None:
            self.copies[message.headers[h.ID]] += 1

    def service(self, process: Process) -> Service:
        service = Service(
            "worker", concurrency=16, quarantine_after=self.plan.quarantine_after, stop_timeout=timedelta(0)
        )

        @service.handler
        async def task(event: Task) -> None:
            process.at_work.add(event.number)
            if event.number in self.plan.killers:
                self.died_of[event.number] += 1
                self.kill(process)
            await asyncio.sleep(0.001)
            if process.adapter.dead:
                await asyncio.Event().wait()
            self.handled[event.number] += 1
            if self._until is not None:
                self._until -= 1
                if self._until < 0:
                    self._until = self.kills.pop(0) if self.kills else None
                    self.kill(self.processes[self.handled.total() % len(self.processes)])
            process.at_work.discard(event.number)  # only now: it is not settled yet, and dies with its process

        return service

    def kill(self, process: Process) -> None:
        """With -9; another takes its place."""
        if process.adapter.dead:
            return
        process.adapter.dead = True
        self.copies.clear()
        if len(process.at_work) == 1:
            self.died_alone.update(process.at_work)
        birth = asyncio.get_running_loop().create_task(self._replace(process))
        self._births.add(birth)
        birth.add_done_callback(self._births.discard)

    async def _replace(self, process: Process) -> None:
        await process.end()
        fresh = Process(self)
        self.processes[self.processes.index(process)] = fresh
        await fresh.start()

    async def play(self) -> set[int]:
        """The messages that were given up on."""
        for _ in range(self.plan.replicas):
            self.processes.append(Process(self))
            await self.processes[-1].start()
        adapter = MemoryAdapter(Connection(url=None, namespace="", client="test"), store=self.store)
        async with Bus(adapter, source="test") as sender:
            await sender.publish_many([Task(number=n, key=f"k{n % 40}") for n in range(self.plan.innocents + 1)])
            await eventually(lambda: self.store.idle() and not self._births, "all are decided on", 60.0)
            letters = [letter async for letter in sender.dead_letters("worker").list()]
        for process in self.processes:
            await process.end()
        return {letter.read(Task).number for letter in letters}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_ELSEWHERE", 0.02), ("_LOOK", 0.002), ("_COMES", 0.05), ("_REST", (0.001, 0.02))):
        monkeypatch.setattr(suspects, name, value)
    monkeypatch.setattr(suspects, "_LATER", timedelta(milliseconds=10))
    monkeypatch.setattr(suspects, "_LATEST", timedelta(milliseconds=50))


QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@QUICK
@given(plans(killers=0))
def test_what_is_killed_from_outside_is_handled(plan: Plan) -> None:
    async def main() -> None:
        world = World(plan)
        given_up = await world.play()
        assert given_up <= {n for n, times in world.died_alone.items() if times >= LEAST_ALONE}
        assert set(world.handled) | given_up == set(range(plan.innocents + 1))

    asyncio.run(main())


@QUICK
@given(plans(killers=1))
def test_what_kills_is_given_up_on_in_time(plan: Plan) -> None:
    async def main() -> None:
        world = World(plan)
        given_up = await world.play()
        (killer,) = plan.killers
        assert killer in given_up
        assert world.died_of[killer] <= FIRST + plan.quarantine_after
        assert world.died_alone[killer] >= LEAST_ALONE
        others = given_up - plan.killers
        assert others <= {n for n, times in world.died_alone.items() if times >= LEAST_ALONE}

    asyncio.run(main())

"""The outbox and its relay."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import eventkit
import eventkit.sql.asynchronous
from eventkit import Command, Context, Depends, Event, Service
from eventkit import headers as h
from eventkit.adapter import Message
from eventkit.contract.checks import eventually, fresh_namespace, stays
from eventkit.errors import InvalidMessage
from eventkit.memory import Store as Kept
from eventkit.once import Busy, Handled, Mark
from eventkit.prometheus import Metrics
from eventkit.sql import BlockingSqlStore, statements
from tests.once.databases import Database
from tests.once.loops import in_loop
from tests.once.test_sql_once import memory_bus, store_on

QUICK = {"poll": timedelta(milliseconds=50), "lease": timedelta(seconds=1)}


class Moved(Event, topic="moves", key="robot"):
    robot: str
    step: int


class Halted(Event, topic="halts", key="robot"):
    robot: str
    step: int


class Stop(Command, service="robots"):
    robot: str


def reader() -> tuple[Service, list[Moved]]:
    service = Service("reader")
    got: list[Moved] = []

    @service.handler
    async def note(event: Moved) -> None:
        got.append(event)

    return service, got


@in_loop
async def test_what_is_rolled_back_never_goes_out(database: Database) -> None:
    service, got = reader()
    async with store_on(database, **QUICK) as store, memory_bus() as bus, bus.run(service), store.relay(bus):
        async with AsyncSession(store._engine) as session:
            await store.put(session, bus.encode(Moved(robot="a", step=0)))
            await session.rollback()
        async with AsyncSession(store._engine) as session:
            await store.put(session, bus.encode(Moved(robot="a", step=1)), bus.encode(Moved(robot="a", step=2)))
            await session.commit()
        await eventually(lambda: len(got) == 2, "what was committed")
        await eventually(lambda: database.waiting() == 0, "and is removed")
    assert [event.step for event in got] == [1, 2]


@in_loop
async def test_it_is_woken_by_a_commit_of_its_own_process(database: Database) -> None:
    service, got = reader()
    slow = {"poll": timedelta(seconds=60)}
    blocking = BlockingSqlStore(create_engine(database.plain_url), **slow)
    async with store_on(database, **slow) as store, memory_bus() as bus, bus.run(service):
        async with store.relay(bus) as relay:
            await eventually(lambda: relay.leading, "it leads")
            async with AsyncSession(store._engine) as session, session.begin():
                await store.put(session, bus.encode(Moved(robot="a", step=1)))
            await eventually(lambda: len(got) == 1, "at once", 5)
        async with blocking.relay(bus) as relay:
            await eventually(lambda: relay.leading, "after the first has resigned, it leads", 5)
            with Session(blocking._engine) as plain, plain.begin():
                blocking.put(plain, bus.encode(Moved(robot="a", step=2)))
            await eventually(lambda: len(got) == 2, "at once", 5)
    blocking._engine.dispose()


@in_loop
async def test_of_several_relays_one_publishes_in_order(database: Database) -> None:
    kept, (service, got) = Kept(), reader()
    async with (
        store_on(database, **QUICK) as store,
        store_on(database, **QUICK) as other,
        memory_bus(kept) as bus,
        memory_bus(kept) as second,
        bus.run(service),
        store.relay(bus) as first,
        other.relay(second) as another,
        other.relay(second) as third,
    ):
        for part in range(10):
            async with AsyncSession(store._engine) as session, session.begin():
                steps = range(part * 30, part * 30 + 30)
                await store.put(session, *(bus.encode(Moved(robot=f"r{n % 3}", step=n)) for n in steps))
        await eventually(lambda: len(got) == 300, "all")
        assert [first.leading, another.leading, third.leading].count(True) == 1
        await stays(lambda: len(got) == 300, "each once", 0.3)
    for robot in ("r0", "r1", "r2"):
        mine = [event.step for event in got if event.robot == robot]
        assert mine == sorted(mine)


class Unreliable:
    """A broker that confirms what it likes, and cannot take some at all."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.has: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> Sequence[Exception | None]:
        return [self._answer(message) for message in messages]

    def _answer(self, message: Message) -> Exception | None:
        if message.headers[h.ID].startswith("never"):
            return InvalidMessage("not this one")
        if self._dice.random() < 0.3:
            return ConnectionError("away")
        self.has.append(message)
        return None


@in_loop
async def test_a_key_keeps_its_order_while_the_broker_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventkit.sql.aside._FIRST_WAIT", 0.001)
    monkeypatch.setattr("eventkit.sql.aside._LONGEST_WAIT", 0.001)
    broker = Unreliable(seed=7)
    async with store_on(database, **QUICK) as store, memory_bus() as bus:
        messages = [bus.encode(Moved(robot=f"r{n % 5}", step=n), id=f"{n:03}") for n in range(100)]
        never = bus.encode(Moved(robot="r1", step=0), id="never")
        async with AsyncSession(store._engine) as session, session.begin():
            await store.put(session, never, *messages)
        async with store._relay(broker.publish) as relay:
            await eventually(lambda: database.waiting() == 1, "all but the one that it never takes", 30)
            await eventually(lambda: relay.error is None, "nothing is wrong with what is left")
        found = await store.outbox()
        assert (found.waiting, found.refused, found.oldest) == (0, 1, None)
        (refused,) = await store.refused()
        assert (refused.id, refused.type, refused.destination) == ("never", "Moved", "topic:moves")
        assert "not this one" in refused.why
        await store.discard_refused([refused.position])
        assert database.waiting() == 0
    first = list(dict.fromkeys(message.headers[h.ID] for message in broker.has))
    assert sorted(first) == [f"{n:03}" for n in range(100)]
    for robot in range(5):
        mine = [id_ for id_ in first if int(id_) % 5 == robot]
        assert mine == sorted(mine)


class PartlyAway:
    """A broker that does not take everything now, and says so only after a while."""

    def __init__(self, takes: Callable[[Message], bool]) -> None:
        self.takes = takes
        self.has: list[Message] = []

    @property
    def steps(self) -> list[int]:
        return [json.loads(message.body or b"")["step"] for message in self.has]

    async def publish(self, messages: Sequence[Message]) -> Sequence[Exception | None]:
        answers = [None if self.takes(message) else ConnectionError("not this one now") for message in messages]
        self.has += [message for message, answer in zip(messages, answers, strict=True) if answer is None]
        if any(answers):
            await asyncio.sleep(0.5)
        return answers


@in_loop
async def test_one_that_is_not_taken_now_keeps_no_other_key_waiting(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    broker = PartlyAway(lambda message: message.key != "ill")
    async with store_on(database, **QUICK) as store, memory_bus() as bus, store._relay(broker.publish) as relay:
        for part in range(10):
            async with AsyncSession(store._engine) as session, session.begin():
                ill = [bus.encode(Moved(robot="ill", step=part * 2 + n)) for n in range(2)]
                well = [bus.encode(Moved(robot=f"r{n % 2}", step=part * 20 + n)) for n in range(20)]
                await store.put(session, *ill, *well)
        await eventually(lambda: len(broker.has) == 200, "the others", 8)
        await eventually(lambda: database.waiting() == 20, "and are removed")
        assert isinstance(relay.error, ConnectionError), "it can be seen"
        said = [record.getMessage() for record in caplog.records if "are not published yet" in record.getMessage()]
        assert len(said) == 1
        assert "Moved for topic:moves" in said[0]
        for robot in range(2):
            assert [step for step in broker.steps if step % 2 == robot] == [n for n in range(200) if n % 2 == robot]
        broker.has.clear()
        broker.takes = lambda _: True
        await eventually(lambda: len(broker.has) == 20, "it is taken", 15)
        assert broker.steps == list(range(20)), "in order"
        await eventually(lambda: relay.error is None and database.waiting() == 0, "all is well")


@in_loop
async def test_a_topic_that_is_not_there_now_keeps_no_other_topic_waiting(database: Database) -> None:
    broker = PartlyAway(lambda message: message.address.name != "moves")
    async with store_on(database, **QUICK) as store, memory_bus() as bus:
        async with AsyncSession(store._engine) as session, session.begin():
            await store.put(session, *(bus.encode(Moved(robot=f"r{n}", step=n)) for n in range(1_000)))
            await store.put(session, *(bus.encode(Halted(robot="a", step=n)) for n in range(300)))
        async with store._relay(broker.publish):
            await eventually(lambda: len(broker.has) == 300, "the others", 15)
            assert broker.steps == list(range(300))
            await eventually(lambda: database.waiting() == 1_000, "and are removed")
            broker.takes = lambda _: True
            await eventually(lambda: database.waiting() == 0, "all", 15)
        assert sorted(broker.steps[300:]) == list(range(1_000)), "each once"


@in_loop
async def test_a_topic_that_is_long_gone_does_not_fill_the_room_of_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventkit.sql.aside._CLOSED", 0.0)  # as if that time were over again and again
    monkeypatch.setattr("eventkit.sql.aside.MOST", 1_000)
    monkeypatch.setattr("eventkit.sql.aside._OF_ONE", 200)
    broker = PartlyAway(lambda message: message.address.name != "moves")
    async with store_on(database, **QUICK) as store, memory_bus() as bus:
        async with AsyncSession(store._engine) as session, session.begin():
            await store.put(session, *(bus.encode(Moved(robot=f"r{n}", step=n)) for n in range(1_500)))
            await store.put(session, bus.encode(Halted(robot="a", step=0)))
        async with store._relay(broker.publish):
            await eventually(lambda: len(broker.has) == 1, "the other")
            broker.takes = lambda _: True
            await eventually(lambda: database.waiting() == 0, "all", 15)


@in_loop
async def test_one_that_is_not_taken_once_is_put_aside_though_another_of_its_key_went_out_just_before(
    database: Database,
) -> None:
    refused: list[int] = []

    def takes(message: Message) -> bool:
        step: int = json.loads(message.body or b"")["step"]
        if step == 1 and not refused:
            refused.append(step)
            return False
        return True

    broker = PartlyAway(takes)
    async with store_on(database, **QUICK) as store, memory_bus() as bus:
        async with AsyncSession(store._engine) as session, session.begin():
            await store.put(session, *(bus.encode(Moved(robot="a", step=n)) for n in range(3)))
        async with store._relay(broker.publish) as relay:
            await eventually(lambda: database.waiting() == 0, "all are out", 15)
            await eventually(lambda: relay.error is None, "all is well")
    assert refused == [1]
    assert broker.steps == [0, 1, 2]


@in_loop
async def test_what_was_put_aside_and_is_gone_keeps_nothing_waiting(database: Database) -> None:
    broker = PartlyAway(lambda message: json.loads(message.body or b"")["step"] != 0)
    async with store_on(database, **QUICK) as store, memory_bus() as bus, store._relay(broker.publish) as relay:
        async with AsyncSession(store._engine) as session, session.begin():
            await store.put(session, *(bus.encode(Moved(robot="a", step=n)) for n in range(5)))
        await eventually(lambda: relay.error is not None, "the first is not taken")
        await store.run(lambda connection: statements.remove(connection, [1]))
        await eventually(lambda: broker.steps == [1, 2, 3, 4], "those behind it", 15)


@in_loop
async def test_what_was_refused_can_be_sent_once_that_is_mended(database: Database) -> None:
    robots = Service("robots")
    stopped: list[str] = []

    @robots.handler
    async def stop(command: Stop) -> None:
        stopped.append(command.robot)

    async with store_on(database, **QUICK) as store, memory_bus() as bus, store.relay(bus):
        async with AsyncSession(store._engine) as session, session.begin():
            await store.put(session, bus.encode(Stop(robot="a")))
        while not (await store.outbox()).refused:
            await asyncio.sleep(0.01)
        (refused,) = await store.refused()
        assert "NoOwner" in refused.why
        async with bus.run(robots):
            assert await store.retry_refused() == 1
            await eventually(lambda: stopped == ["a"], "now there is an owner")
            await eventually(lambda: database.waiting() == 0, "and it is gone")


@in_loop
async def test_what_a_handler_left_behind_goes_out_in_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message never comes again: the broker has lost it."""
    service, got = reader()
    async with store_on(database, **QUICK) as store, memory_bus() as bus, bus.run(service):
        for hold in (timedelta(hours=1), timedelta(0)):
            monkeypatch.setattr(eventkit.sql.asynchronous, "HOLD", hold)
            attempt = await store.begin(Mark("robots", "shop", str(hold)))
            assert not isinstance(attempt, Busy | Handled)
            await attempt.commit(Handled((bus.encode(Moved(robot="a", step=hold.seconds)),)))
        async with store.relay(bus):
            await eventually(lambda: len(got) == 1, "the one whose time is over")
        assert [event.step for event in got] == [0]
        again = await store.begin(Mark("robots", "shop", str(timedelta(hours=1))))
        assert isinstance(again, Handled)
        assert [message.type for message in again.outgoing] == ["Moved"]


@in_loop
async def test_a_handler_may_put_something_there_by_itself(database: Database) -> None:
    service, got = reader()
    robots = Service("robots")
    async with store_on(database, **QUICK) as store, memory_bus() as bus:

        @robots.handler(once=store)
        async def stop(
            command: Stop, context: Context, session: Annotated[AsyncSession, Depends(store.session)]
        ) -> None:
            await store.put(session, bus.encode(Moved(robot=command.robot, step=context.attempt)))
            if context.attempt == 1:
                raise RuntimeError("rolled back")

        async with bus.run(service, robots):
            await bus.send(Stop(robot="a"))
            await eventually(lambda: [event.step for event in got] == [2], "what the second attempt put")
    assert database.waiting() == 0


@in_loop
async def test_its_backlog_is_measured_where_a_relay_runs(database: Database) -> None:
    metrics = Metrics(CollectorRegistry(), backlog_every=timedelta(0))

    async def told(service: str) -> tuple[float, float, float] | None:
        """Rows that wait, rows that are refused, and the age of the first that waits."""
        text = (await metrics.page()).body.decode()
        found = {
            (sample.name, sample.labels.get("state")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("service") == service and sample.name.startswith("eventkit_outbox")
        }
        if not found:
            return None
        waiting, refused = found["eventkit_outbox", "waiting"], found["eventkit_outbox", "refused"]
        return waiting, refused, found["eventkit_outbox_oldest_seconds", None]

    async def until(service: str, waiting: int, refused: int) -> float:
        async with asyncio.timeout(20):
            while (seen := await told(service)) is None or seen[:2] != (waiting, refused):
                await asyncio.sleep(0.02)
        return seen[2]

    async def away(messages: Sequence[Message]) -> Sequence[Exception | None]:
        return [ConnectionError("away")] * len(messages)

    service = Service("robots")
    connected = eventkit.connect("memory", service="shop", namespace=fresh_namespace(), instruments=[metrics])
    async with store_on(database, **QUICK) as store, connected as bus:

        @service.handler(once=store)
        async def note(event: Moved) -> None: ...

        publish = bus.adapter.publish
        async with store.relay(bus):
            bus.adapter.publish = away  # type: ignore[method-assign, assignment]
            async with AsyncSession(store._engine) as session, session.begin():
                await store.put(session, bus.encode(Moved(robot="a", step=1)), bus.encode(Moved(robot="b", step=1)))
            first = await until("shop", 2, 0)
            await asyncio.sleep(0.1)
            assert await until("shop", 2, 0) > first >= 0, "it grows older"
            bus.adapter.publish = publish  # type: ignore[method-assign]
            async with AsyncSession(store._engine) as session, session.begin():
                await store.put(session, bus.encode(Stop(robot="a")))
            assert await until("shop", 0, 1) == 0, "nothing waits"
        assert await told("shop") is None, "no relay runs"
        async with bus.run(service):
            await until("robots", 0, 1)
        assert await told("robots") is None

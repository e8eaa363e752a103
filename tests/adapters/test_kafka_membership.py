"""Kafka's groups, where partitions are taken away: in time, and with nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from eventkit import Circuit, Event, Retry, Service, connect
from eventkit.adapter import DONE, RELEASE, Delivery, Move
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.testing.brokers import Broker
from eventkit_kafka.clients import end_consumer
from eventkit_kafka.consume import GroupConsumer
from eventkit_kafka.progress import Tracker
from tests.adapters.test_kafka import Bench, Recorder, copy, message, run, until


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


def consumer_of(recorder: Recorder) -> GroupConsumer:
    assert isinstance(recorder.consumer, GroupConsumer)
    return recorder.consumer


def fail_once(consumer: GroupConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading fails, and the consumer joins again."""

    async def fail() -> None:
        monkeypatch.delattr(consumer, "_round")
        raise KafkaConnectionError("on purpose")

    monkeypatch.setattr(consumer, "_round", fail)


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


class Charge(Event, topic="charges", key="card"):
    card: str


class Entered(Event, topic="entries", key="card"):
    card: str
    number: int


class Note(Event, topic="charges"):
    text: str


@pytest.mark.parametrize("what", ["the core", "a commit"])
@pytest.mark.parametrize("error", [RuntimeError("on purpose"), asyncio.CancelledError()])
def test_what_goes_wrong_while_partitions_are_taken_away_leaves_nothing_lent(
    url: str, what: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka writes an error down and goes on; what was still counted as lent then would never make room again."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None, in_flight=3)
        await it.publish(*(message() for _ in range(3)))
        await until(lambda: len(recorder.got) == 3)
        consumer = consumer_of(recorder)

        async def fail(*_: object) -> None:
            raise error

        if what == "the core":
            monkeypatch.setattr(recorder, "revoked", fail)
        else:
            monkeypatch.setattr(consumer.member.commits, "commit", fail)
        with pytest.raises(type(error)):
            await consumer.member.revoked()
        assert consumer._lending.room == 3
        monkeypatch.undo()

    run(url, scenario, partitions=1)


def test_what_is_settled_after_its_partition_was_taken_away_counts_for_nothing(url: str) -> None:
    """It comes again, to whoever has the partition now: room for another there is not, nor are copies made."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None, in_flight=3)
        await it.publish(*(message(body=b"%d" % n) for n in range(6)))
        await until(lambda: len(recorder.got) == 3)
        done, released, moved = recorder.got
        member = consumer_of(recorder).member
        tps = list(member.trackers)
        await member.revoked()
        await member.assigned(tps)
        await until(lambda: len(recorder.got) == 6)
        recorder.consumer.settle(done, DONE)
        recorder.consumer.settle(released, RELEASE)
        recorder.consumer.settle(moved, Move(copy(moved, it.group.dead)))
        await recorder.consumer.flush(5)
        recorder.settle(recorder.got[3])
        await until(lambda: len(recorder.got) > 6)
        await recorder.consumer.flush(5)
        assert recorder.bodies == [b"0", b"1", b"2", b"0", b"1", b"2", b"3"]
        assert await it.dead() == []

    run(url, scenario, partitions=1)


def test_what_was_read_just_before_partitions_are_taken_away_is_not_delivered_after_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core has dropped what had not begun by then: what came behind that would run before it comes again."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        await it.publish(message(body=b"1"))
        await until(lambda: recorder.got)
        consumer = consumer_of(recorder)
        read, go, told = asyncio.Event(), asyncio.Event(), asyncio.Event()
        take_due = consumer._held.take_due
        rounds = 0

        async def slow(batch: list[Delivery], ahead: set[Tracker]) -> None:
            nonlocal rounds
            rounds += 1
            await take_due(batch, ahead)
            if batch:
                read.set()
                await go.wait()

        async def look_for_ends() -> None:
            seen = rounds
            await until(lambda: rounds > seen + 1)  # one has begun since
            await it.publish(message(body=b"2"))
            await read.wait()

        async def revoked(*_: object) -> None:
            told.set()
            go.set()
            await asyncio.sleep(0.1)

        monkeypatch.setattr(consumer._held, "take_due", slow)
        monkeypatch.setattr(consumer.member, "look_for_ends", look_for_ends)
        monkeypatch.setattr(recorder, "revoked", revoked)
        tps = list(consumer.member.trackers)
        await consumer.member.revoked()
        assert told.is_set()
        assert recorder.bodies == [b"1"]
        monkeypatch.undo()
        await consumer.member.assigned(tps)
        await until(lambda: recorder.bodies == [b"1", b"1", b"2"])

    run(url, scenario, partitions=1)


def test_partitions_are_given_up_within_the_time_that_kafka_leaves_for_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the group is made anew without this member, and all that the others have just begun is taken away, too."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        await it.publish(message())
        await until(lambda: recorder.got)
        consumer = consumer_of(recorder)
        monkeypatch.setattr(recorder, "revoked", hang)
        monkeypatch.setattr(consumer.member.consumer, "commit", hang)
        copying = asyncio.create_task(hang())
        consumer._lending._moving.add(copying)
        began = time.monotonic()
        await consumer.member.revoked()
        assert time.monotonic() - began < 3.0
        copying.cancel()
        consumer._lending._moving.clear()
        monkeypatch.undo()

    run(url, scenario, rebalance_timeout=timedelta(seconds=3))


def test_who_dies_while_a_retry_is_not_due_did_not_die_of_it(url: str) -> None:
    """Else all that waits, for an hour perhaps, would be suspect after two crashes, and be tried in small groups."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        later = datetime.now(UTC) + timedelta(seconds=4)
        waits = [message(it.group.retry, b"waits", str(n))._replace(due=later) for n in range(5)]
        await it.publish(message(it.group.retry, b"runs"), *waits, message(body=b"runs, too"))
        await until(lambda: len(recorder.got) == 2)
        consumer = consumer_of(recorder)
        await until(lambda: consumer._held.next_due() is not None)
        await until(lambda: not any(tracker.touched for tracker in consumer.member.trackers.values()))
        for task in consumer._tasks:
            task.cancel()
        await end_consumer(consumer.member.consumer, 5.0)  # without a word, as one that dies
        another = it.another()
        await another.start(10)
        seen = await it.consume(on=another)
        await until(lambda: len(seen.got) == 7)
        counts = {(delivery.message.body, delivery.deliveries) for delivery in seen.got}
        assert counts == {(b"runs", 2), (b"runs, too", 2), (b"waits", 1)}
        await another.stop(5)

    run(url, scenario)


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "cannot commit"])
def test_who_joins_again_did_not_die(url: str, commits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what it had in hand would be suspect where Kafka is away twice, and leave the order of its key."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        consumer = consumer_of(recorder)
        await it.publish(message())
        await until(lambda: recorder.got)
        for times in (2, 3, 4):
            await until(lambda: not any(tracker.touched for tracker in consumer.member.trackers.values()))
            if not commits:
                monkeypatch.setattr(consumer.member.consumer, "commit", hang)
            fail_once(consumer, monkeypatch)
            await until(lambda times=times: len(recorder.got) == times)  # type: ignore[misc]
        assert [delivery.deliveries for delivery in recorder.got] == [1, 1, 1, 1]

    run(url, scenario, partitions=1)


def test_what_has_not_begun_where_reading_fails_runs_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes again: to others, perhaps, who would have it after what follows it."""
    service = Service("shop")
    begun: list[int] = []
    first, go_on = asyncio.Event(), asyncio.Event()

    @service.handler
    async def enter(event: Entered) -> None:
        begun.append(event.number)
        first.set()
        await go_on.wait()

    async def main() -> None:
        async with connect("kafka", url, namespace=fresh_namespace()) as bus, bus.run(service) as running:
            await bus.publish_many([Entered(card="1", number=number) for number in range(5)])
            await first.wait()
            consuming = running._consuming["shop"]
            consumer = consuming._consumer
            assert isinstance(consumer, GroupConsumer)
            await eventually(lambda: consuming.held == 5, "all are in hand")
            fail_once(consumer, monkeypatch)
            await eventually(lambda: not consumer.member.trackers, "given up")
            go_on.set()
            await eventually(lambda: running.counts["shop"].handled >= 6, "all, and what had begun once more")
            await consumer.flush(5)
            assert begun == [0, 0, 1, 2, 3, 4]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_has_not_begun_where_reading_fails_is_dropped_though_one_behind_it_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service("shop", concurrency=4)
    begun: list[int] = []
    go_on = asyncio.Event()

    @service.handler
    async def enter(event: Entered) -> None:
        begun.append(event.number)
        await go_on.wait()

    async def main() -> None:
        async with connect("kafka", url, namespace=fresh_namespace()) as bus, bus.run(service) as running:
            await bus.publish_many([Entered(card="1", number=number) for number in range(4)])
            consuming = running._consuming["shop"]
            await eventually(lambda: consuming.held == 4, "all are in hand")
            await bus.publish(Entered(card="2", number=4))
            await eventually(lambda: begun == [0, 4], "the first of each card runs")
            consumer = consuming._consumer
            assert isinstance(consumer, GroupConsumer)
            fail_once(consumer, monkeypatch)
            await eventually(lambda: not consumer.member.trackers, "given up")
            go_on.set()
            await eventually(lambda: running.counts["shop"].handled >= 7, "all, and what had begun once more")
            await consumer.flush(5)
            assert sorted(begun) == [0, 0, 1, 2, 3, 4, 4]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_is_due_is_written_down_before_it_is_delivered(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        member = consumer_of(recorder).member
        written: list[tuple[str, int | None]] = []
        commit = member.commits.commit

        async def note(trackers: Iterable[Tracker], seconds: float) -> bool:
            trackers = list(trackers)
            written.extend((tracker.address.kind, len(recorder.got)) for tracker in trackers if tracker.delivered)
            return await commit(trackers, seconds)

        monkeypatch.setattr(member.commits, "commit", note)
        await it.publish(message(it.group.retry)._replace(due=datetime.now(UTC) + timedelta(seconds=1)))
        await until(lambda: recorder.got)
        assert ("retry", 0) in written

    run(url, scenario)


@pytest.mark.parametrize("what", ["fails", "hangs"])
def test_a_consumer_that_does_not_end_in_order_leaves_nothing_running(
    url: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        before = asyncio.all_tasks()
        recorder = await it.consume()
        consumer = consumer_of(recorder).member.consumer

        async def close() -> None:
            if what == "fails":
                raise RuntimeError("on purpose")
            await hang()

        monkeypatch.setattr(consumer._coordinator, "close", close)
        await recorder.consumer.stop(2)
        await until(lambda: not asyncio.all_tasks() - before)

    run(url, scenario)


def test_a_group_that_is_not_told_where_to_go_on_keeps_its_place_and_asks_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for longer than its session without a sign of life is expelled, and then all of them, for ever. And
    who asks once only stands still from then on, and looks well."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None, in_flight=10)
        await it.publish(*(message(body=b"%d" % n) for n in range(4)))
        await until(lambda: len(recorder.got) == 4)
        for delivery in recorder.got[1::2]:
            recorder.settle(delivery)
        member = consumer_of(recorder).member
        await until(lambda: not any(tracker.touched for tracker in member.trackers.values()))
        tps = list(member.trackers)
        begins, asked = member._topics.begins, 0

        async def silent(tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
            nonlocal asked
            asked += 1
            if asked == 1:
                await hang()
            if asked < 5:
                raise (KafkaConnectionError(), asyncio.CancelledError(), ValueError())[asked - 2]
            return await begins(tps)

        monkeypatch.setattr(member._topics, "begins", silent)
        await member.revoked()
        began = time.monotonic()
        await member.assigned(tps)
        assert time.monotonic() - began < 3.0
        assert asked == 1
        await until(lambda: len(recorder.got) == 6)
        assert recorder.bodies[4:] == [b"0", b"2"], "what was settled out of order does not come again"
        await it.publish(message(body=b"last"))
        await until(lambda: recorder.bodies[-1] == b"last")

    run(url, scenario, partitions=1, session_timeout=timedelta(seconds=6))


def test_health_is_red_while_nobody_says_where_to_read_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(it: Bench) -> None:
        recorder = await it.consume()
        member = consumer_of(recorder).member
        tps = list(member.trackers)
        await until(lambda: recorder.consumer.error is None)

        async def refuse(_: object) -> dict[TopicPartition, int]:
            raise KafkaConnectionError

        monkeypatch.setattr(member._topics, "begins", refuse)
        await member.revoked()
        await member.assigned(tps)
        await until(lambda: recorder.consumer.error is not None)
        monkeypatch.undo()
        await it.publish(message(body=b"after"))
        await until(lambda: recorder.bodies == [b"after"] and recorder.consumer.error is None, 20)

    run(url, scenario)


def test_a_flush_waits_for_the_commit_that_is_under_way(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fail, and what it was to say would then be known to nobody if this process died."""

    async def scenario(it: Bench) -> None:
        recorder = await it.consume(None)
        await it.publish(message())
        await until(lambda: recorder.got)
        member = consumer_of(recorder).member
        tracker = next(tracker for tracker in member.trackers.values() if tracker.next)
        await until(lambda: not tracker.touched)
        commit = member.consumer.commit
        done: list[object] = []

        async def slow(marks: object) -> None:
            await asyncio.sleep(0.5)
            if not done:
                done.append("failed")
                raise KafkaConnectionError
            await commit(marks)
            done.append("committed")

        monkeypatch.setattr(member.consumer, "commit", slow)
        recorder.settle(recorder.got[0])
        await until(lambda: not tracker.touched)
        await recorder.consumer.flush(5)
        assert done[:2] == ["failed", "committed"]
        monkeypatch.undo()

    run(url, scenario, partitions=1)


def test_partitions_go_to_others_without_waiting_for_an_open_circuit(url: str) -> None:
    """It may be open for an hour, and the group stands still until all have given up what they had."""
    service = Service("shop")
    noting, go_on = asyncio.Event(), asyncio.Event()

    @service.handler(circuit=Circuit(failures=1, pause=timedelta(minutes=30)), retry=Retry(in_order=True))
    async def charge(event: Charge) -> None:
        raise OSError("away")

    @service.handler
    async def note(event: Note) -> None:
        noting.set()
        await go_on.wait()

    async def main() -> None:
        namespace = fresh_namespace()
        async with connect("kafka", url, namespace=namespace) as bus, bus.run(service) as running:
            await bus.publish_many([Charge(card=f"{n}") for n in range(20)])
            await eventually(lambda: running.health().circuits, "its circuit is open")
            await bus.publish_many([Note(text="") for _ in range(3)])
            await noting.wait()
            async with connect("kafka", url, namespace=namespace) as other:
                asyncio.get_running_loop().call_later(3.0, go_on.set)  # once they are being taken away
                began = time.monotonic()
                async with other.run(service) as second:
                    assert time.monotonic() - began < 12
                    await eventually(lambda: running.counts["shop"].handled + second.counts["shop"].handled == 3, "all")

    asyncio.run(asyncio.wait_for(main(), 60))

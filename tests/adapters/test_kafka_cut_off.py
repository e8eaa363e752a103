"""Partitions that end before where their group had come: the end of a log was lost, or the topic was made anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from eventkit import headers as h
from eventkit.adapter import DONE, RELEASE, Address, Delivery, Message, Move, Settlement
from eventkit.errors import Closed, LostMessage
from eventkit.testing.brokers import Broker
from eventkit_kafka import held
from eventkit_kafka.held import Held
from eventkit_kafka.lending import Lending
from eventkit_kafka.progress import WAITING, Tracker, decode, encode
from eventkit_kafka.records import Record
from tests.adapters.test_kafka import Bench, Recorder, Scenario, bench, copy, message, run, until
from tests.adapters.test_kafka_beginnings import admin_of
from tests.adapters.test_kafka_membership import consumer_of


@pytest.fixture
def url(broker: Callable[[str], Broker]) -> str:
    return broker("kafka").url


def patiently(url: str, scenario: Scenario) -> None:
    """aiokafka takes ten seconds and more to find out that a topic is gone."""

    async def whole() -> None:
        async with bench(url, partitions=1) as it, asyncio.timeout(90):
            await scenario(it)

    asyncio.run(whole())


def test_what_was_settled_in_a_log_that_is_gone_hides_nothing_of_the_next(url: str) -> None:
    async def scenario(it: Bench) -> None:
        tp = TopicPartition(it.topic("orders"), 0)
        await it.publish(*(message(body=b"%d" % n) for n in range(3)))
        assert it.adapter._running is not None
        mark = OffsetAndMetadata(5, encode(5, 10, [(7, 9)]))
        await it.adapter._running.cluster.topics.commit(it.topic(it.group.name), {tp: mark})  # type: ignore[dict-item]
        seen = await it.consume()
        await until(lambda: len(seen.got) == 3)
        await it.publish(*(message(body=b"%d" % n) for n in range(3, 12)))
        await until(lambda: len(seen.got) == 12)
        assert seen.bodies == [b"%d" % n for n in range(12)]

    run(url, scenario, partitions=1)


def test_what_was_settled_past_the_end_of_a_log_that_was_cut_meanwhile_hides_nothing(url: str) -> None:
    """Its mark is still in the log: nothing tells but what is written beside it."""

    async def scenario(it: Bench) -> None:
        tp = TopicPartition(it.topic("orders"), 0)
        await it.publish(*(message(body=b"%d" % n) for n in range(3)))
        assert it.adapter._running is not None
        mark = OffsetAndMetadata(1, encode(1, 10, [(2, 9)]))
        await it.adapter._running.cluster.topics.commit(it.topic(it.group.name), {tp: mark})  # type: ignore[dict-item]
        seen = await it.consume()
        await it.publish(*(message(body=b"%d" % n) for n in range(3, 12)))
        await until(lambda: len(seen.got) == 12)
        assert seen.bodies == [b"%d" % n for n in range(12)]

    run(url, scenario, partitions=1)


def test_what_is_in_hand_of_a_topic_that_was_deleted_is_not_dropped(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        later = datetime.now(UTC) + timedelta(seconds=8)
        await it.publish(*(message(body=b"%d" % n) for n in range(4)))
        await it.publish(message(it.group.retry, b"later", "k")._replace(due=later))
        await until(lambda: len(seen.got) == 4)
        member = consumer_of(seen).member
        await until(lambda: consumer_of(seen)._held.next_due() is not None)
        trackers = dict(member.trackers)
        async with admin_of(it) as admin:
            await admin.delete_topics([it.topic("orders"), it.topic("shipping.retry")])
        await until(lambda: not set(trackers.values()) & set(member.trackers.values()), 60)
        first, second, third, fourth = seen.got
        seen.how = DONE
        assert len(seen.held) == 4, "nobody else has them"
        seen.settle(first)
        seen.settle(second, Move(copy(second, it.group.retry)))
        seen.settle(third, Move(copy(third, it.group.dead)))
        seen.settle(fourth, RELEASE)
        await until(lambda: [delivery for delivery, error in seen.failed if isinstance(error, LostMessage)] == [fourth])
        await until(lambda: seen.bodies[4:] == [b"1", b"later"], 40)
        assert [letter.message.body for letter in await it.dead()] == [b"2"]

    patiently(url, scenario)


def test_what_a_stop_gives_back_of_a_topic_that_was_deleted_comes_again(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(message(body=b"in hand"))
        await until(lambda: seen.got)
        consumer = consumer_of(seen)
        consumer._tasks[-1].cancel()  # who would make the topics again
        async with admin_of(it) as admin:
            await admin.delete_topics([it.topic("orders"), it.topic("shipping.retry")])
        await until(lambda: consumer._lending.cut, 60)
        (delivery,) = seen.got
        seen.settle(delivery, RELEASE)
        assert isinstance(seen.failed[0][1], LostMessage)
        seen.settle(delivery, Move(copy(delivery, it.group.retry)))
        await seen.consumer.stop(8)
        again = await it.consume()
        await until(lambda: again.bodies == [b"in hand"])

    patiently(url, scenario)


def test_what_a_stop_gives_back_of_a_log_comes_again_where_nobody_has_noticed_that_it_was_lost(url: str) -> None:
    class Rescuing(Recorder):
        def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
            assert isinstance(error, LostMessage)
            self.consumer.settle(delivery, Move(copy(delivery, Address("retry", "shipping"))))

    async def scenario(it: Bench) -> None:
        seen = Rescuing(None)
        seen.consumer = await it.adapter.consume(it.group, seen, in_flight=10)
        await it.publish(message(body=b"0"), message(body=b"1"))
        await until(lambda: len(seen.got) == 2)
        member = consumer_of(seen).member
        member.trackers[TopicPartition(it.topic("orders"), 0)].next = 26  # as if it had lost its end since
        for delivery in seen.got:
            seen.settle(delivery, RELEASE)
        await seen.consumer.stop(8)
        again = await it.consume()
        await until(lambda: sorted(filter(None, again.bodies)) == [b"0", b"0", b"1", b"1"])

    run(url, scenario, partitions=1)


def test_a_log_that_is_cut_under_its_reader_is_read_from_its_beginning(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(*(message(body=b"%d" % n) for n in range(6)))
        await until(lambda: len(seen.got) == 6)
        member = consumer_of(seen).member
        tp = TopicPartition(it.topic("orders"), 0)
        seen.settle(seen.got[0])
        seen.settle(seen.got[3])
        tracker = member.trackers[tp]
        await until(lambda: not tracker.touched)
        member.fetcher._places[tp].next += 20  # as if that had been read of a log that lost its end since
        tracker.next = 26
        await until(lambda: member.trackers[tp] is not tracker)
        await until(lambda: len(seen.got) == 12)
        assert seen.bodies[6:] == [b"%d" % n for n in range(6)], "all of it once more"
        old, new = seen.got[1], seen.got[7]
        seen.settle(old, Move(copy(old, it.group.dead)))
        await until(lambda: tracker.lent() == 3)
        assert [letter.message.body for letter in await it.dead()] == [b"1"]
        assert member.trackers[tp].lent() == 6, "those that were read anew are others"
        seen.settle(new)
        await seen.consumer.flush(5)
        assert it.adapter._running is not None
        mark = (await it.adapter._running.cluster.topics.committed(it.topic(it.group.name)))[tp]
        assert mark.offset == 0
        assert decode(*mark)[1] == [(1, 2)]

    run(url, scenario, partitions=1)


def test_a_dead_letter_whose_topic_was_deleted_makes_it_again(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(message(body=b"dies"))
        await until(lambda: seen.got)
        async with admin_of(it) as admin:
            await admin.delete_topics([it.topic("shipping.dead")])
        (delivery,) = seen.got
        letter = Move(copy(delivery, it.group.dead))
        tried = 0
        ends = time.monotonic() + 80
        while not await it.dead():  # as the core asks for it again
            assert time.monotonic() < ends
            if len(seen.failed) >= tried:
                tried = len(seen.failed) + 1
                seen.settle(delivery, letter)
            await asyncio.sleep(0.1)

    patiently(url, scenario)


@pytest.mark.parametrize("ending", ["revoked", "rejoin"])
def test_what_was_settled_past_the_end_of_a_log_hides_nothing_from_its_next_reader(url: str, ending: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(*(message(body=b"%d" % n) for n in range(6)))
        await until(lambda: len(seen.got) == 6)
        consumer = consumer_of(seen)
        consumer._tasks[0].cancel()  # who reads, and would join again
        tp = TopicPartition(it.topic("orders"), 0)
        consumer.member.trackers[tp].next = 26  # as if that had been read of a log that lost its end since
        seen.settle(seen.got[1])
        await seen.consumer.flush(5)
        assert it.adapter._running is not None
        topics = it.adapter._running.cluster.topics
        mark = (await topics.committed(it.topic(it.group.name)))[tp]
        assert decode(*mark)[1] == [(1, 2), (6, 26)]
        await getattr(consumer.member, ending)()
        mark = (await topics.committed(it.topic(it.group.name)))[tp]
        assert (mark.offset, decode(*mark)[1]) == (0, [])

    run(url, scenario, partitions=1)


def test_a_log_that_is_begun_anew_while_it_is_taken_away_is_given_up_with_the_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(message())
        await until(lambda: seen.got)
        consumer = consumer_of(seen)
        member, topics = consumer.member, consumer.member._topics
        consumer._tasks[0].cancel()  # who reads, and would join again
        tp = TopicPartition(it.topic("orders"), 0)
        old, ends, finish = member.trackers[tp], topics.ends, consumer.finish
        reads: list[object] = []

        async def noticed(tps: Any) -> Any:
            found = await ends(tps)
            member._moved(tp, 26, 0, 1)
            return found

        async def finishing(*arguments: Any) -> None:
            reads.extend(member.fetcher._places)
            await finish(*arguments)

        monkeypatch.setattr(topics, "ends", noticed)
        monkeypatch.setattr(consumer, "finish", finishing)
        await member.revoked()
        assert old.cut
        assert not member.trackers
        assert not reads, "what is read no more is not begun anew"
        assert not member.fetcher._places

    run(url, scenario, partitions=1)


def test_what_is_read_while_kafka_says_where_a_log_ends_is_not_past_its_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        await it.publish(message())
        await until(lambda: seen.got)
        member = consumer_of(seen).member
        topics = member._topics
        ends = topics.ends

        async def late(tps: Any) -> Any:
            found = await ends(tps)
            await it.publish(message(body=b"newer"))
            await until(lambda: b"newer" in seen.bodies)
            return found

        monkeypatch.setattr(topics, "ends", late)
        (tracker,) = [one for one in member.trackers.values() if one.next is not None]
        await member.revoked()
        assert not tracker.cut

    run(url, scenario, partitions=1)


def test_what_was_given_back_of_a_log_before_it_was_lost_is_no_longer_only_here(url: str) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(message(body=b"0"), message(body=b"1"))
        await until(lambda: len(seen.got) == 2)
        consumer = consumer_of(seen)
        consumer._tasks[0].cancel()  # who would deliver them again
        for delivery in seen.got:
            seen.settle(delivery, RELEASE)
        consumer.member._moved(TopicPartition(it.topic("orders"), 0), 26, 0, 1)
        assert [delivery for delivery, error in seen.failed if isinstance(error, LostMessage)] == seen.got
        for delivery in seen.got:
            seen.settle(delivery, Move(copy(delivery, it.group.retry)))
        await seen.consumer.stop(5)
        again = await it.consume()
        await until(lambda: sorted(filter(None, again.bodies)) == [b"0", b"0", b"1", b"1"])

    run(url, scenario, partitions=1)


@pytest.mark.parametrize("log", ["cut", "another"])
def test_a_retry_that_waited_in_a_topic_that_was_made_anew_is_not_taken_for_what_that_has_in_its_place(
    url: str, log: str
) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume()
        due = datetime.now(UTC) + timedelta(seconds=3)
        await it.publish(message(it.group.retry, b"later")._replace(due=due))
        consumer = consumer_of(seen)
        await until(lambda: consumer._held.next_due() is not None)
        entry = at, turn, offset, tracker, record = consumer._held._heap[0]
        assert record is not None
        if log == "another":
            consumer._held._heap[0] = (at, turn, offset, tracker, record._replace(value=b"before"))
        assert consumer.member.trackers[tracker.tp] is entry[3]
        consumer.member._moved(tracker.tp, 26, 0, offset + 1)
        consumer.member.fetcher.begin(tracker.tp, 0)
        bodies = {b"later"} if log == "cut" else {b"later", b"before"}
        await until(lambda: set(seen.bodies) == bodies)
        await asyncio.sleep(0.5)
        assert len(seen.got) == len(bodies), "what is there still is not written anew"

    run(url, scenario, partitions=1)


def test_a_topic_that_was_made_anew_with_fewer_partitions_has_lost_what_was_in_the_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None)
        await it.publish(*(message(body=b"%d" % n, key=str(n)) for n in range(12)))
        await until(lambda: len(seen.got) == 12)
        member = consumer_of(seen).member
        topics = member._topics
        read = {tp: tracker for tp, tracker in member.trackers.items() if tracker.lent()}
        first, *others = sorted(read)
        assert others
        ask = topics._ask

        async def fewer(names: Any) -> list[dict[str, Any]]:
            found = await ask(names)
            for topic in found:
                topic["partitions"] = [p for p in topic["partitions"] if p["partition"] == first.partition]
            return found

        monkeypatch.setattr(topics, "_ask", fewer)
        await member.revoked()
        assert not read[first].cut
        assert all(read[tp].cut for tp in others)
        assert len([tracker for tracker in read.values() if tracker.lent()]) == len(others)

    run(url, scenario, partitions=3)


@pytest.mark.parametrize("ending", ["fails", "stops"])
def test_what_was_read_of_a_log_just_before_it_was_lost_is_not_dropped_where_reading_ends(
    url: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(it: Bench) -> None:
        seen = await it.consume(None, in_flight=10)
        consumer = consumer_of(seen)
        tp = TopicPartition(it.topic("orders"), 0)
        take_due = consumer._held.take_due
        lost = asyncio.Event()

        async def lose(batch: list[Delivery], ahead: set[Tracker]) -> None:
            await take_due(batch, ahead)
            if batch and not lost.is_set():
                consumer.member._moved(tp, 26, 0, 1)
                lost.set()
                if ending == "fails":
                    raise TimeoutError("on purpose")
                await asyncio.Event().wait()

        monkeypatch.setattr(consumer._held, "take_due", lose)
        await it.publish(message(body=b"0"), message(body=b"1"))
        await lost.wait()
        if ending == "stops":
            consumer._tasks[0].cancel()
        await until(lambda: [delivery.message.body for delivery, _ in seen.failed] == [b"0", b"1"])
        for delivery, error in seen.failed:
            assert isinstance(error, LostMessage)
            seen.settle(delivery, Move(copy(delivery, it.group.retry)))
        await until(lambda: consumer._lending.lent == len(seen.held))

    run(url, scenario, partitions=1)


def test_a_record_of_a_log_that_is_gone_is_not_looked_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(TopicPartition("shipping.retry", 0), Address("retry", "shipping"), ())
    tracker.pending[7] = WAITING

    async def gone(*_: object) -> dict[int, Record]:
        tracker.cut = True
        raise TimeoutError

    async def main() -> None:
        monkeypatch.setattr(held, "_BYTES", 0)
        monkeypatch.setattr(held, "records_at", gone)
        waiting = Held("shipping", cast("Any", None), cast("Any", SimpleNamespace(room=10)))
        waiting.add(0.0, tracker, Record(7, 0, None, b"", {}))
        with pytest.raises(TimeoutError):
            await waiting.take_due([], set())
        await waiting.take_due([], set())
        assert waiting.next_due() is None
        assert not tracker.pending

    asyncio.run(main())


def test_retries_that_cannot_be_written_anew_before_a_stop_are_named(caplog: pytest.LogCaptureFixture) -> None:
    retries = [message(), message()]

    async def closed(messages: Sequence[Message]) -> Sequence[Exception | None]:
        return [None, *(Closed("stopped") for _ in messages[1:])]

    async def main() -> None:
        publisher = cast("Any", SimpleNamespace(publish=closed))
        lending = Lending("shipping", cast("Any", None), publisher, 10, lambda: None, lambda: None)
        tracker = Tracker(TopicPartition("shipping.retry", 0), Address("retry", "shipping"), ())
        lending.cut_off(tracker, retries)
        await asyncio.wait_for(lending.moves_done(5), 6)

    asyncio.run(main())
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "stopped before 1 retries" in said
    assert said.endswith(f": {retries[1].headers[h.ID]}")

"""How the Kafka adapter reads partitions: ahead, each by itself, and over nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("eventkit_kafka")

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from aiokafka.protocol.offset import OffsetRequest

from eventkit_kafka import fetch
from eventkit_kafka.fetch import Fetcher
from eventkit_kafka.reading import _fill, see
from eventkit_kafka.records import Record, Unreadable
from tests.adapters.test_kafka_records import batch, some

ONE, TWO = TopicPartition("orders", 0), TopicPartition("orders", 1)


class Kafka:
    """A broker, and aiokafka's client for it: partitions of batches by their first offsets."""

    def __init__(self, **_: Any) -> None:
        self.logs: dict[TopicPartition, dict[int, bytes]] = {ONE: {}, TWO: {}}
        self.codes: dict[TopicPartition, int] = {}
        self.begins: dict[TopicPartition, int] = {}
        self.asked: list[dict[TopicPartition, int]] = []
        self.down = False
        self.metadata = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.cluster = SimpleNamespace(leader_for_partition=lambda tp: 0)

    def force_metadata_update(self) -> None:
        self.metadata += 1

    async def send(self, broker: int, request: Any) -> Any:
        if self.down:
            raise KafkaConnectionError("gone")
        if isinstance(request, OffsetRequest):
            return SimpleNamespace(topics=[("orders", [(p, 0, -1, self.begins[TopicPartition("orders", p)])
                                                       for _, ps in request._topics for p, _ in ps])])  # fmt: skip
        wanted = {TopicPartition(t, p): offset for t, ps in request.topics for p, offset, _ in ps}
        self.asked.append(wanted)
        await asyncio.sleep(0.001)
        found = [(tp.partition, self.codes.get(tp, 0), 0, 0, 0, [], -1, self._at(tp, at)) for tp, at in wanted.items()]
        await self.gate.wait()
        return SimpleNamespace(API_VERSION=11, topics=[("orders", found)])

    def _at(self, tp: TopicPartition, offset: int) -> bytes:
        return b"" if self.codes.get(tp) else self.logs[tp].get(offset, b"")


def run(scenario: Callable[[Kafka, Fetcher], Awaitable[None]]) -> None:
    async def whole() -> None:
        kafka = Kafka()
        fetcher = Fetcher(kafka)
        try:
            async with asyncio.timeout(10):
                await scenario(kafka, fetcher)
        finally:
            await fetcher.close()

    asyncio.run(whole())


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.001)


async def take(fetcher: Fetcher, tp: TopicPartition, most: int = 100) -> list[bytes | None]:
    while not (found := fetcher.take(tp, most)):
        await fetcher.wait(1.0)
    return [Record(*fields).value for fields in found]


def test_it_reads_on_and_ahead_and_gives_each_partition_by_itself() -> None:
    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.logs[ONE] = {3: batch(3, some(b"1", b"2")), 5: batch(5, some(b"3"))}
        kafka.logs[TWO] = {0: batch(0, some(b"other"))}
        fetcher.begin(ONE, 3)
        fetcher.begin(TWO, 0)
        await until(lambda: {ONE: 6, TWO: 1} in kafka.asked)
        assert set(fetcher.ready) == {ONE, TWO}
        assert await take(fetcher, ONE, 1) == [b"1"]
        assert fetcher.position(ONE) == 4
        assert await take(fetcher, TWO) == [b"other"]
        assert await take(fetcher, ONE) == [b"2"]
        assert await take(fetcher, ONE) == [b"3"]
        assert fetcher.ready == []
        assert fetcher.take(ONE, 9) == []

    run(scenario)


def test_it_asks_for_no_more_than_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    log = {n: batch(n, some(b"x" * 200)) for n in range(50)}
    monkeypatch.setattr(fetch, "_FEW", 100)
    monkeypatch.setattr(fetch, "_AHEAD", len(log[0]))  # an answer that waits is no reason not to read another meanwhile

    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.logs[ONE] = log
        fetcher.begin(ONE, 0)
        fetcher.begin(TWO, 0)
        await until(lambda: len(kafka.asked) > 5)
        assert max(wanted.get(ONE, 0) for wanted in kafka.asked) == 1  # the second answer was the last it had room for
        assert kafka.asked[-1] == {TWO: 0}  # which goes on
        for _ in range(50):
            assert await take(fetcher, ONE) == [b"x" * 200]

    run(scenario)


def test_those_of_which_enough_is_held_keep_no_other_from_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their handlers may be slow, and a stretch that was read makes no room before its last message is taken."""
    monkeypatch.setattr(fetch, "_ENOUGH", 100)

    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.logs[ONE] = {0: batch(0, some(b"x" * 200, b"y")), 2: batch(2, some(b"z"))}
        fetcher.begin(ONE, 0)
        await until(lambda: fetcher.ready)
        fetcher.begin(TWO, 0)
        await until(lambda: len(kafka.asked) > 2)
        kafka.logs[TWO] = {0: batch(0, some(b"1")), 1: batch(1, some(b"2"))}
        assert await take(fetcher, TWO) == [b"1"]
        assert await take(fetcher, TWO) == [b"2"]
        assert max(wanted.get(ONE, 0) for wanted in kafka.asked) == 0, "of the other there is enough"
        assert await take(fetcher, ONE) == [b"x" * 200, b"y"]
        assert await take(fetcher, ONE) == [b"z"]

    run(scenario)


def test_what_is_damaged_stops_its_partition_alone_and_nothing_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_UNREADABLE_AGAIN", 0.05)

    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        damaged = bytearray(batch(1, some(b"2")))
        damaged[-1] ^= 1
        kafka.logs[ONE] = {0: batch(0, some(b"1")) + bytes(damaged), 2: batch(2, some(b"3"))}
        kafka.logs[TWO] = {0: batch(0, some(b"other"))}
        fetcher.begin(ONE, 0)
        fetcher.begin(TWO, 0)
        await until(lambda: fetcher.ready)
        assert await take(fetcher, ONE) == [b"1"]
        kafka.gate.clear()  # what comes after the damaged one is under way
        await until(lambda: kafka.asked[-1].get(ONE) == 2)
        with pytest.raises(Unreadable):
            fetcher.take(ONE, 9)
        assert isinstance(fetcher.unreadable, Unreadable)
        assert fetcher.position(ONE) == 1
        kafka.gate.set()
        assert await take(fetcher, TWO) == [b"other"]
        kafka.logs[ONE][1] = batch(1, some(b"2"))  # of another replica it is whole
        assert await take(fetcher, ONE) == [b"2"]
        assert fetcher.unreadable is None
        assert await take(fetcher, ONE) == [b"3"]

    run(scenario)


def test_whoever_looks_on_sees_what_is_behind_it() -> None:
    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        damaged = bytearray(batch(0, some(b"1", b"2")))
        damaged[-1] ^= 1
        kafka.logs[ONE] = {0: bytes(damaged), 2: batch(2, some(b"3"))}
        fetcher.begin(ONE, 0)
        found: list[bytes | None] = []
        while not found:
            found = [record.value for record in see(fetcher, ONE)]
            await fetcher.wait(0.01)
        assert found == [b"3"]

    run(scenario)


def test_what_retention_has_dropped_is_passed_over() -> None:
    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.codes[ONE], kafka.begins[ONE] = 1, 7
        fetcher.begin(ONE, 3)
        await until(lambda: fetcher.position(ONE) == 7)
        kafka.codes.clear()
        kafka.logs[ONE] = {7: batch(7, some(b"8"))}
        assert await take(fetcher, ONE) == [b"8"]

    run(scenario)


def test_a_leader_that_has_changed_is_looked_for() -> None:
    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.codes[ONE] = 6
        fetcher.begin(ONE, 0)
        await until(lambda: kafka.metadata)
        kafka.codes.clear()
        kafka.logs[ONE] = {0: batch(0, some(b"1"))}
        assert await take(fetcher, ONE) == [b"1"]

    run(scenario)


def test_it_goes_on_when_the_broker_is_back() -> None:
    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.down = True
        fetcher.begin(ONE, 0)
        await asyncio.sleep(0.15)
        assert not fetcher.ready
        kafka.down = False
        kafka.logs[ONE] = {0: batch(0, some(b"1"))}
        assert await take(fetcher, ONE) == [b"1"]

    run(scenario)


def test_who_may_not_read_hears_of_it() -> None:
    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.codes[ONE] = 29
        fetcher.begin(ONE, 0)
        with pytest.raises(TopicAuthorizationFailedError):
            await fetcher.wait(5.0)

    run(scenario)


def test_what_comes_for_a_place_that_was_left_is_dropped() -> None:
    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.logs[ONE] = {0: batch(0, some(b"1")), 5: batch(5, some(b"6"))}
        kafka.gate.clear()
        fetcher.begin(ONE, 0)
        await until(lambda: kafka.asked)
        fetcher.begin(ONE, 5)
        kafka.gate.set()
        assert await take(fetcher, ONE) == [b"6"]
        fetcher.end([ONE])
        assert fetcher.take(ONE, 9) == []
        assert fetcher.ready == []

    run(scenario)


def test_what_is_read_ahead_of_some_partitions_does_not_keep_a_scan_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are merged by time: nothing more of the first is taken before there is something of the second."""
    monkeypatch.setattr(fetch, "_MOST", 100)

    async def scenario(kafka: Kafka, fetcher: Fetcher) -> None:
        kafka.logs[ONE] = {0: batch(0, some(*[b"one"] * 1_500))}
        ends = {ONE: 1_500, TWO: 1}
        waiting: dict[TopicPartition, deque[Record]] = {ONE: deque(), TWO: deque()}
        for tp in ends:
            fetcher.begin(tp, 0)
        await _fill(fetcher, [ONE, TWO], waiting, {ONE, TWO}, ends)
        kafka.logs[TWO] = {0: batch(0, some(b"two"))}
        while not waiting[TWO]:
            await _fill(fetcher, [TWO], waiting, {ONE, TWO}, ends)
        assert [record.offset for record in waiting[ONE]] == list(range(len(waiting[ONE])))

    run(scenario)

"""Reading partitions, each from its own place on.

aiokafka's own consumer asks for nothing while anything that it was given is not taken, gives of several partitions one
after another, and drops what it had read of the others where one cannot be read. Here what a broker leads is asked for
in one request, ahead of what is taken, and each partition is taken from by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from typing import Any

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest  # type: ignore[import-untyped]
from aiokafka.protocol.offset import OffsetRequest  # type: ignore[import-untyped]

from eventkit.cancelling import unbroken
from eventkit_kafka.layouts import Layouts
from eventkit_kafka.records import Fields, Stretch, Unreadable

log = logging.getLogger("eventkit.kafka")

_ANSWER, _OF_ONE = 4 << 20, 1 << 20
"""Bytes of an answer, in all and of one partition. A record that is larger comes all the same."""
_FEW, _ENOUGH, _MOST = 256 << 10, 8 << 20, 32 << 20
"""Bytes that are held, above which no more is asked for: of a partition; of those of which anything is held; of all."""
_LITTLE = 16 << 10
"""Bytes of an answer, of one partition of which nothing is held while there is enough of others."""
_AHEAD = _OF_ONE
"""Of a partition, while little else is held: so a whole answer of it waits while the one before is handled."""
_WAIT_MS, _BUSY_WAIT_MS, _ENOUGH_WAIT_MS = 500, 10, 100
"""How long a broker waits for something to answer with. The second: while partitions of it are left out, which are soon
to be asked for, and meanwhile cannot be: shorter than it takes to handle what is held of them; the third: of all."""
_SELDOM, _SELDOM_EACH = 0.02, 0.000_25
"""Seconds, and for each partition, until those alone are asked for again: what a request costs rises with them."""
_AGAIN = 0.1
"""Seconds until a partition is asked for again after an error."""
_UNREADABLE_AGAIN = 5.0
_COMMITTED = 1
_LATEST, _EARLIEST = -1, -2
_TAKEN_BACK_BEFORE_REPLICA = 11
"""From this version on an answer names a replica after the transactions that were taken back."""


class _Place:
    """One partition."""

    __slots__ = ("again", "at", "broker", "layouts", "next", "size", "stretches", "tp", "unreadable")

    def __init__(self, tp: TopicPartition, offset: int, layouts: Layouts) -> None:
        self.tp = tp
        self.at = offset
        """What comes next."""
        self.next = offset
        """What is to be asked for next."""
        self.size = 0
        self.stretches: deque[Stretch] = deque()
        self.layouts = layouts
        self.again = 0.0
        """Not to be asked for before."""
        self.broker = -1
        """Who was asked last."""
        self.unreadable: Unreadable | None = None


class Fetcher:
    """Over the connections of an aiokafka client, which is somebody else's to close."""

    def __init__(self, client: Any, moved: Callable[[TopicPartition, int, int, int], None] | None = None) -> None:
        """`moved` is told of partitions that do not hold what was asked for, once all that was read of them is taken:
        from which offset on it was, from which on they are read now, and where they end."""
        self._client = client
        self._moved = moved
        self._places: dict[TopicPartition, _Place] = {}
        self._ready: dict[TopicPartition, _Place] = {}
        self._layouts: dict[str, Layouts] = defaultdict(Layouts)
        self._size = 0
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._asked: dict[int, float] = {}
        """When each broker was, by `time.monotonic`."""
        self._failure: KafkaError | None = None
        self.heard = time.monotonic()
        """When a broker last answered."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="eventkit kafka fetch")

    async def close(self) -> None:
        tasks = [self._task, *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def begin(self, tp: TopicPartition, offset: int) -> None:
        """Read this partition, from that offset on."""
        self.end([tp])
        self._places[tp] = _Place(tp, offset, self._layouts[tp.topic])
        self._changed.set()

    def end(self, tps: Collection[TopicPartition]) -> None:
        """Read these no more, and forget what was read ahead."""
        for tp in tps:
            place = self._places.pop(tp, None)
            if place is not None:
                self._drop(place)
                self._changed.set()  # there is room for others, perhaps

    @property
    def ready(self) -> list[TopicPartition]:
        """Of which there may be something to take: the one that was taken from last comes last."""
        return list(self._ready)

    @property
    def full(self) -> bool:
        """Is so much held that no more is asked for until some is taken?"""
        return self._size >= _MOST

    @property
    def unreadable(self) -> Unreadable | None:
        """Why one of the partitions stands still; None: none does."""
        return next((place.unreadable for place in self._places.values() if place.unreadable is not None), None)

    def position(self, tp: TopicPartition) -> int:
        """The offset after what was taken."""
        return self._places[tp].at

    def take(self, tp: TopicPartition, most: int) -> list[Fields]:
        """So many records at most of what was read. Unreadable where the next is; it is then asked for again later."""
        place = self._places.get(tp)
        found: list[Fields] = []
        while place is not None and place.stretches and not found:
            stretch = place.stretches[0]
            try:
                found = stretch.read(most)
            except Unreadable as error:
                place.at = stretch.at
                self._stand_still(place, error)
                raise
            place.at = stretch.at
            if stretch.finished:
                place.stretches.popleft()
                place.size -= stretch.size
                self._size -= stretch.size
                if place.size <= _AHEAD and place.broker not in self._asking:
                    self._changed.set()
        if place is not None:
            self._ready.pop(tp, None)
            if place.stretches:
                self._ready[tp] = place
            if found:
                place.unreadable = None
        return found

    async def wait(self, seconds: float) -> None:
        """Until something was read, for so long at most. Raises what Kafka refuses for good."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        if self._task.done():
            raise RuntimeError("the task that reads from Kafka has ended")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    # asking

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            pause = self._ask_all()
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _ask_all(self) -> float | None:
        """Each broker that is not being asked. Seconds until it is to be tried again; None: when something changes."""
        if self.full:
            return None
        enough = self._size >= _ENOUGH  # then those of which nothing is held go on: handlers of the others may be slow
        few = 0 if enough else _AHEAD if self._size <= 2 * _AHEAD else _FEW
        now = time.monotonic()
        pause: float | None = None
        wanted: dict[int, list[_Place]] = defaultdict(list)
        left_out: set[int] = set()
        leader_of = self._client.cluster.leader_for_partition
        for tp, place in self._places.items():
            broker = leader_of(tp)
            if broker is None or broker == -1:
                self._client.force_metadata_update()
                pause = _AGAIN
            elif broker in self._asking:
                continue
            elif place.again > now:
                pause = min(pause or _UNREADABLE_AGAIN, place.again - now)
                left_out.add(broker)
            elif place.size > few:
                left_out.add(broker)
            else:
                wanted[broker].append(place)
        for broker, places in wanted.items():
            wait = _ENOUGH_WAIT_MS if enough else _WAIT_MS
            if broker in left_out and not enough:
                rest = self._asked.get(broker, 0.0) + _SELDOM + len(places) * _SELDOM_EACH - now
                if rest > 0:
                    pause = min(pause or rest, rest)
                    continue
                wait = _BUSY_WAIT_MS
            self._asked[broker] = now
            self._asking[broker] = asyncio.get_running_loop().create_task(
                self._ask(broker, places, wait, _LITTLE if enough else _OF_ONE),
                name=f"eventkit kafka fetch from {broker}",
            )
        return pause

    async def _ask(self, broker: int, places: list[_Place], wait_ms: int, of_one: int) -> None:
        asked = {place.tp: (place, place.next) for place in places}
        for place in places:
            place.broker = broker
        topics: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for (topic, partition), (_, offset) in asked.items():
            topics[topic].append((partition, offset, of_one))
        try:
            request = FetchRequest(wait_ms, 1, _ANSWER, _COMMITTED, list(topics.items()))
            answer = await unbroken(self._client.send(broker, request))
            self.heard = time.monotonic()
            back = -3 if answer.API_VERSION >= _TAKEN_BACK_BEFORE_REPLICA else -2
            for topic, partitions in answer.topics:
                for partition, code, _, *rest in partitions:
                    place, offset = asked[TopicPartition(topic, partition)]
                    if self._places.get(place.tp) is not place or place.next != offset:
                        continue  # it is no longer what is wanted
                    if code:
                        await self._refused(broker, place, for_code(code))
                    elif rest[-1]:
                        self._add(place, Stretch(rest[-1], offset, place.layouts, rest[back]))
        except (KafkaError, OSError, TimeoutError) as error:
            log.debug("could not read from broker %s: %r", broker, error)
            await asyncio.sleep(_AGAIN)
        except Exception:
            log.exception("an answer of Kafka's was not understood")
            await asyncio.sleep(_AGAIN)
        finally:
            self._asking.pop(broker, None)
            self._changed.set()

    def _add(self, place: _Place, stretch: Stretch) -> None:
        if stretch.finished:
            return
        place.next = stretch.end
        place.stretches.append(stretch)
        place.size += stretch.size
        self._size += stretch.size
        self._ready.setdefault(place.tp, place)
        # those that were answered come last in the next request: an answer that is full has nothing of the last ones
        self._places[place.tp] = self._places.pop(place.tp)
        self._news.set()

    async def _refused(self, broker: int, place: _Place, error: type[KafkaError]) -> None:
        place.again = time.monotonic() + _AGAIN
        if error is OffsetOutOfRangeError:
            if place.stretches:
                return  # what comes next is of another log, perhaps: first all of this one
            wanted = place.next
            begin = await self._offset(broker, place.tp, _EARLIEST)
            end = await self._offset(broker, place.tp, _LATEST)
            if place.next != wanted:
                return  # the broker that leads it now has answered meanwhile
            if begin is not None and end is not None and self._places.get(place.tp) is place:
                log.debug("%s is read from offset %d on: Kafka has none of %d", place.tp, begin, place.next)
                if self._moved is not None and begin != place.next:
                    self._moved(place.tp, place.next, begin, end)
                place.next = place.at = begin
        elif error is TopicAuthorizationFailedError:
            self._failure = error(place.tp.topic)
            self._news.set()
        else:
            log.debug("could not read %s: %s", place.tp, error.__name__)
            if error.invalid_metadata:
                self._client.force_metadata_update()

    async def _offset(self, broker: int, tp: TopicPartition, which: int) -> int | None:
        """Where the partition begins, or ends."""
        request = OffsetRequest(-1, _COMMITTED, [(tp.topic, [(tp.partition, which)])])
        answer = await unbroken(self._client.send(broker, request))
        for _, partitions in answer.topics:
            for _, code, *_, offset in partitions:
                return None if code else int(offset)
        return None

    def _stand_still(self, place: _Place, error: Unreadable) -> None:
        if place.unreadable is None:
            log.warning("topic %s, partition %d stands still: %s", *place.tp, error)
        self._drop(place)
        place.next = place.at
        place.unreadable = error
        place.again = time.monotonic() + _UNREADABLE_AGAIN
        self._changed.set()

    def _drop(self, place: _Place) -> None:
        self._size -= place.size
        place.size = 0
        place.stretches.clear()
        self._ready.pop(place.tp, None)

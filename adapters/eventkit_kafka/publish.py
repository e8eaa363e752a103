"""Publishing: messages gathered into one open batch a partition, one batch of it under way at a time.

That is all the order Kafka needs, and it makes batches by itself: what is published while a batch is under way goes
into the next. aiokafka's own accumulator lets many tasks wait on one full batch, and takes a future a message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError  # type: ignore[import-untyped]

from eventkit import names
from eventkit.adapter import Address, Message
from eventkit.cancelling import unbroken
from eventkit.errors import Closed, MessageTooLarge, NoOwner, NotProvisioned
from eventkit_kafka.clients import Clients, begin, end_producer
from eventkit_kafka.routes import Batch, Lane, Record, Route
from eventkit_kafka.topics import Topics

log = logging.getLogger("eventkit.kafka")

_SPREADS = 1.0
"""Seconds until every broker knows a topic that was just made: the one that is asked may say that it is not there."""


class Publisher:
    """One idempotent producer, and a lane for each partition it sends to."""

    def __init__(self, clients: Clients, topics: Topics, naming: names.Naming, timeout: float, age: float) -> None:
        """`age`: seconds after which a topic's limit is asked for again, if a message seems too large for it."""
        self._clients = clients
        self._topics = topics
        self._naming = naming
        self._timeout = timeout
        self._age = age
        self._producer: Any = None
        self._routes: dict[Address, Route] = {}
        self._doubtful: dict[Address, Route] = {}
        """Routes that must be asked for again before they are used."""
        self._finding = asyncio.Lock()
        self._replacing = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def client(self) -> Any:
        """aiokafka's connections to the brokers, for a request of one's own."""
        return self._producer.client

    async def start(self) -> None:
        self._producer = await self._connect(())

    async def stop(self, timeout: float) -> None:
        """Send what is waiting, if that is possible in time, and end the producer."""
        self._closed = True
        pumps = {lane.pump for lane in self._lanes() if lane.pump is not None}
        ends = time.monotonic() + timeout
        if pumps:
            _, late = await asyncio.wait(pumps, timeout=timeout * 0.6)
            for pump in late:
                pump.cancel()
            if late:
                await asyncio.wait(late)
        for lane in self._lanes():
            lane.drop_expired(float("inf"), _late())
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await end_producer(producer, max(ends - time.monotonic(), 0.1))
        if self._ending:
            await asyncio.wait(self._ending)

    async def publish(self, messages: Sequence[Message]) -> list[Exception | None]:
        """One answer each, in order: None is confirmed."""
        now = time.time()
        together = len(messages)
        answers = await self._hand_over(
            [message.address for message in messages],
            lambda place, route: route.record(messages[place], now, together),
        )
        if any(answers):
            again = [place for place, answer in enumerate(answers) if self._outdated(messages[place].address, answer)]
            if again:
                found = await self._hand_over(
                    [messages[place].address for place in again],
                    lambda place, route: route.record(messages[again[place]], now, len(again)),
                )
                for place, answer in zip(again, found, strict=True):
                    answers[place] = answer
        return answers

    def _outdated(self, address: Address, answer: Exception | None) -> bool:
        """Was the limit of the topic changed since we read it? Of a batch that the broker refused, some would fit."""
        if isinstance(answer, MessageSizeTooLargeError):
            return True
        route = self._routes.get(address)
        if not isinstance(answer, MessageTooLarge) or route is None:
            return isinstance(answer, MessageTooLarge) and address in self._doubtful
        if asyncio.get_running_loop().time() - route.read < self._age:
            return False
        self._doubt(route)
        return True

    async def write(self, records: Sequence[tuple[Address, Record]]) -> list[Exception | None]:
        """Records that are no messages, such as tombstones."""
        return await self._hand_over([address for address, _ in records], lambda place, _: records[place][1])

    async def _hand_over(
        self, addresses: Sequence[Address], record: Callable[[int, Route], Record]
    ) -> list[Exception | None]:
        if self._closed or self._producer is None:
            return [Closed("the Kafka adapter is not started")] * len(addresses)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        routes = self._routes
        unknown = {address for address in addresses if address not in routes}
        refused = await self._find(unknown, deadline) if unknown else {}
        answers: list[Exception | None] = [None] * len(addresses)
        placed: list[Batch | None] = [None] * len(addresses)
        waits_for: dict[Batch, None] = {}
        stamp = int(time.time() * 1000)
        for place, address in enumerate(addresses):
            route = routes.get(address)
            if route is None:
                answers[place] = refused.get(address) or _missing(address)
                continue
            try:
                wanted = record(place, route)
                lane = route.lanes[wanted.partition]
                batch = placed[place] = lane.add(wanted, stamp, deadline)
            except Exception as error:  # noqa: BLE001 one that is too large, or cannot be written, harms no other
                answers[place] = error
                continue
            waits_for[batch] = None
            if lane.pump is None:
                lane.pump = loop.create_task(self._pump(lane), name=f"eventkit kafka publish {route.topic}")
        if waits_for:
            _, late = await asyncio.wait([b.future for b in waits_for], timeout=max(deadline - loop.time(), 0.0))
            if late:
                now = loop.time()
                for lane in self._lanes():
                    lane.drop_expired(now, _late())
            if late or any(batch.future.result() is not None for batch in waits_for):
                for place, sent in enumerate(placed):
                    if sent is not None:
                        answers[place] = sent.future.result() if sent.future.done() else _late()
        return answers

    async def _pump(self, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        batch: Batch | None = None
        try:
            while lane.queue:
                batch = lane.take()
                batch.answer(_late() if loop.time() > batch.deadline else await self._send(lane, batch))
        finally:
            lane.pump = None
            if batch is not None:
                batch.answer(_late())  # only if this was cancelled

    async def _send(self, lane: Lane, batch: Batch) -> Exception | None:
        producer, route = self._producer, lane.route
        try:
            await (await producer.send_batch(batch.builder, route.topic, partition=lane.partition))
        except Exception as error:  # noqa: BLE001 it is the answer of these messages, whatever it is
            gone = isinstance(error, UnknownTopicOrPartitionError)
            if gone or isinstance(error, MessageSizeTooLargeError):
                self._doubt(route)  # its limit was lowered, or it is gone
            await self._replace(producer, error)
            return _missing(route.address) if gone else error
        return None

    # the producer

    async def _connect(self, topics: Collection[str]) -> Any:
        """A producer that knows these topics, whose news are ours."""
        producer = self._clients.producer()
        try:
            await begin(producer.start)
            if topics:
                await unbroken(producer.client.set_topics(topics))
        except BaseException:
            await end_producer(producer, 1.0)
            raise
        producer.client.cluster.add_listener(self._refresh)
        return producer

    async def _replace(self, broken: Any, error: Exception) -> None:
        """A refused batch leaves a gap in its partition's sequence: a new producer begins a new one."""
        async with self._replacing:
            if self._producer is not broken or self._closed:
                return
            log.warning("Kafka refused a batch, going on with a new producer: %r", error)
            try:
                async with asyncio.timeout(self._timeout):
                    fresh = await self._connect({route.topic for route in self._routes.values()})
            except (TimeoutError, OSError, KafkaError) as failure:
                log.warning("no new producer yet: %r", failure)
                return
            if self._closed:  # a topic that is gone may outlast stop()
                await end_producer(fresh, 1.0)
                return
            broken.client.cluster.remove_listener(self._refresh)
            self._producer = fresh
            task = asyncio.create_task(end_producer(broken, self._timeout), name="eventkit kafka end producer")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    # routes

    async def _find(self, addresses: set[Address], deadline: float) -> dict[Address, Exception]:
        """Make routes; what cannot be asked for is refused. No route: there is no topic."""
        now = asyncio.get_running_loop().time
        gives_up = min(deadline, now() + _SPREADS)
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    if await unbroken(self._found(addresses)) or now() >= gives_up:
                        return {}
                    await asyncio.sleep(0.05)
        except Exception as error:  # noqa: BLE001 it is the answer of these messages
            return dict.fromkeys(addresses, error)

    async def _found(self, addresses: set[Address]) -> bool:
        """Make routes to the topics that are there. Are they all?"""
        async with self._finding:
            routes = [
                self._doubtful.get(address) or Route(address, self._topic(address))
                for address in addresses
                if address not in self._routes
            ]
            existing = await self._topics.existing(route.topic for route in routes)
            limits = await self._topics.limits(existing)
            for route in routes:
                self._doubtful.pop(route.address, None)
                if route.topic in existing:
                    # the others too: with its next answer aiokafka forgets all topics that it was not told of
                    kept = {*existing, *(known.topic for known in self._routes.values())}
                    route.fit(await _known(self._producer.client, route.topic, kept))
                    route.limit, route.read = limits[route.topic], asyncio.get_running_loop().time()
                    self._routes[route.address] = route
            return len(existing) == len({route.topic for route in routes})

    def _refresh(self, cluster: Any) -> None:
        """The brokers told what there is: partitions that are new, topics that may be gone."""
        doubtful: list[Route] = []
        for route in self._routes.values():
            partitions = cluster.partitions_for_topic(route.topic)
            if partitions is None:
                doubtful.append(route)
            else:
                route.fit(len(partitions))
        for route in doubtful:
            self._doubt(route)
        if doubtful and self._producer is not None:  # or aiokafka asks for it, and complains, for ever
            topics = {route.topic for route in self._routes.values()}
            asyncio.get_running_loop().call_soon(self._producer.client.set_topics, topics)

    def _doubt(self, route: Route) -> None:
        """What waits in its lanes still goes before what comes later, if it is there after all."""
        if self._routes.pop(route.address, None) is not None:
            self._doubtful[route.address] = route

    def forget(self, address: Address) -> None:
        """Its topic was deleted: look for it before anything is sent there, which aiokafka would try for long."""
        if (route := self._routes.get(address)) is not None:
            self._doubt(route)

    def _topic(self, address: Address) -> str:
        name = service_of(address.name) if address.kind == "reply" else address.name
        return self._naming.channel(address.kind, name, address.physical)

    def _lanes(self) -> list[Lane]:
        return [lane for routes in (self._routes, self._doubtful) for route in routes.values() for lane in route.lanes]


async def _known(client: Any, topic: str, kept: set[str]) -> int:
    """How many partitions it has, once this client knows all their leaders. `kept`: all that it is to know of."""
    ask: Callable[[], Awaitable[object]] = lambda: client.set_topics(kept)  # noqa: E731 only the first time
    while True:
        partitions = client.cluster.partitions_for_topic(topic)
        if partitions and partitions == client.cluster.available_partitions_for_topic(topic):
            return len(partitions)
        await ask()
        if not client.cluster.partitions_for_topic(topic):
            await asyncio.sleep(0.02)
        ask = client.force_metadata_update


def service_of(reply: str) -> str:
    """Reply addresses are `<service>.<instance>`: all of a service share a topic."""
    return reply.rpartition(".")[0] or reply


def _missing(address: Address) -> Exception | None:
    if address.kind == "reply":
        return None  # whoever asked is gone, and nobody waits for it
    if address.kind == "inbox":
        return NoOwner(f"the service {address.name!r} has no inbox on this broker: start it once")
    return NotProvisioned(f"{address} has no topic on this Kafka")


def _late() -> TimeoutError:
    return TimeoutError("Kafka did not confirm in time: it may still be written")

"""The adapter: who may put what where, and what can be asked of it."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import ClassVar

from pydantic_settings import BaseSettings

from eventkit import names
from eventkit.adapter import (
    Address,
    Backlog,
    Capabilities,
    Connection,
    Delivery,
    Group,
    Limits,
    Message,
    Provision,
    Receive,
    Waiting,
)
from eventkit.clock import Clock, SystemClock
from eventkit.errors import Closed, GroupInUse, MessageTooLarge, NoOwner, NotProvisioned
from eventkit.memory.consumer import MemoryConsumer
from eventkit.memory.store import Queue, Store, Stored

_MESSAGE_BYTES = 1_048_576
_HEADROOM = 65_536
"""What a copy may be larger than its original: what failed, and why."""
_KEPT = 100_000
"""Messages a topic keeps for groups that start with the earliest."""

_SHARED = Store()


class MemoryAdapter:
    """Keeps messages in this process."""

    name: ClassVar[str] = "memory"
    settings: ClassVar[type[BaseSettings] | None] = None
    capabilities: Capabilities = Capabilities(
        durable=False,
        start_earliest=True,
        key_order_across_replicas=True,
        delivery_count=True,
        longest_handler=None,
        settles_in_order=False,
        validates_subscriptions=True,
        lists_groups=True,
    )

    def __init__(self, connection: Connection, *, store: Store | None = None, clock: Clock | None = None) -> None:
        self._naming = names.memory(connection.namespace)
        self._store = store or _SHARED
        self._clock = clock or SystemClock()
        self._consumers: list[MemoryConsumer] = []
        self._names: dict[Address, str] = {}
        self.error: Exception | None = None
        self._open = False

    async def start(self, timeout: float, /) -> Limits:
        self._open = True
        return Limits(message_bytes=_MESSAGE_BYTES)

    async def stop(self, timeout: float, /) -> None:
        for consumer in list(self._consumers):
            await consumer.stop(timeout)
        self._open = False

    async def provision(self, wanted: Collection[Address | Group], how: Provision, /) -> None:
        self._check_open()
        missing: list[str] = []
        for item in wanted:
            if how is Provision.ASSUME:
                continue
            if how is Provision.CREATE and not (isinstance(item, Address) and item.kind == "inbox"):
                self._create(item)
            else:
                missing += self._missing(item)
        if missing:
            raise NotProvisioned(f"missing in memory: {', '.join(missing)}")

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Exception | None]:
        if not self._open:
            return [Closed("the memory broker is not started")] * len(messages)
        put = self._put
        answers = [put(message) for message in messages]
        if self._store.followers:
            self._show(messages, answers)
        await asyncio.sleep(0)  # as a broker that answers: a loop of publishes leaves the others their turn
        return answers

    async def consume(self, group: Group, receive: Receive, /, *, in_flight: int) -> MemoryConsumer:
        self._check_open()
        queue = self._store.queues.get(self._naming.group(group.name))
        reply = next((source for source in group.sources if source.kind == "reply"), None)
        if reply is not None:
            queue = self._store.queues[self._name(reply)] = Queue()
        if queue is None:
            raise NotProvisioned(f"missing in memory: group:{group.name}")
        forget = self._forget if reply is None else functools.partial(self._forget, reply=reply)
        consumer = MemoryConsumer(queue, receive, in_flight, self._put, forget)
        self._consumers.append(consumer)
        for stored in queue.late:  # who put it there may have had a loop that is closed by now
            self._ring(queue, stored)
        return consumer

    async def browse(self, address: Address, /) -> AsyncIterator[Delivery]:
        name = self._name(address)
        if address.kind == "dead":
            for position, message in list(self._store.dead.get(name, {}).items()):
                yield Delivery(message, position, None, None)
        elif address.kind in ("inbox", "retry"):
            queue = self._store.queues.get(self._naming.group(address.name))
            for stored in list(queue.ready) if queue else []:
                yield Delivery(stored.message, stored.position, stored.deliveries, None)
        else:
            for stored in list(self._store.topics.get(name, ())):
                yield Delivery(stored.message, stored.position, None, None)

    @asynccontextmanager
    async def follow(self, address: Address, /) -> AsyncIterator[AsyncIterator[Delivery]]:
        self._check_open()
        if missing := self._missing(address):
            raise NotProvisioned(f"missing in memory: {missing[0]}")
        name, arrived = self._name(address), asyncio.Queue[Delivery]()
        followers = self._store.followers.setdefault(name, [])
        followers.append(arrived)
        try:
            yield _each(arrived)
        finally:
            followers.remove(arrived)
            if not followers:
                self._store.followers.pop(name, None)

    async def remove(self, deliveries: Sequence[Delivery], /) -> Sequence[Exception | None]:
        for delivery in deliveries:
            self._store.dead.get(self._name(delivery.message.address), {}).pop(delivery.position, None)
        return [None] * len(deliveries)

    async def measure(self, group: Group, /) -> Backlog:
        queue = self._store.queues.get(self._naming.group(group.name))
        if queue is None:
            raise NotProvisioned(f"missing in memory: group:{group.name}")
        held = [stored for consumer in queue.consumers for stored in list(consumer.held.values())]
        ready, in_flight = self._split(list(queue.ready)), self._split(held)
        return Backlog(
            ready=len(queue.ready),
            in_flight=len(held),
            delayed=len(queue.late),
            dead=len(self._store.dead.get(self._name(group.dead), ())),
            consumers=len(queue.consumers),
            sources={
                source: Waiting(ready[self._name(source)], in_flight[self._name(source)]) for source in group.sources
            },
        )

    async def groups(self, names: Collection[str] | None = None, /) -> Sequence[Group]:
        self._check_open()
        wanted = self._naming.groups(self._store.dead) if names is None else names
        there = [name for name in wanted if self._name(Address("dead", name)) in self._store.dead]
        return [Group(name, tuple(self._sources(name))) for name in sorted(there)]

    async def disband(self, name: str, /) -> None:
        self._check_open()
        store = self._store
        queue = store.queues.get(self._naming.group(name))
        if queue is not None:
            if queue.consumers:
                raise GroupInUse(name, len(queue.consumers))
            for subscribers in store.subscribers.values():
                if queue in subscribers:
                    subscribers.remove(queue)
            store.subscribers.pop(self._name(Address("inbox", name)), None)
            del store.queues[self._naming.group(name)]
        store.dead.pop(self._name(Address("dead", name)), None)

    def _split(self, stored: Iterable[Stored]) -> Counter[str]:
        """How many are of each channel."""
        return Counter(self._name(one.message.address) for one in stored)

    def _sources(self, group: str) -> Iterator[Address]:
        queue = self._store.queues.get(self._naming.group(group))
        for channel, subscribers in self._store.subscribers.items():
            if queue in subscribers and (source := self._naming.source(channel)) is not None:
                yield Address(*source)

    def _check_open(self) -> None:
        if not self._open:
            raise Closed("the memory broker is not started")

    def _name(self, address: Address) -> str:
        name = self._names.get(address)
        if name is None:
            name = self._naming.channel(address.kind, address.name, address.physical)
            if address.kind != "reply":  # of which each requester has one of its own
                self._names[address] = name
        return name

    def _create(self, item: Address | Group) -> None:
        store = self._store
        if isinstance(item, Address):
            if item.kind == "topic":
                store.topics.setdefault(self._name(item), deque(maxlen=_KEPT))
            return
        name = self._naming.group(item.name)
        known = name in store.queues
        queue = store.queues.setdefault(name, Queue())
        for source in item.sources:
            channel = self._name(source)
            log = store.topics.setdefault(channel, deque(maxlen=_KEPT)) if source.kind == "topic" else ()
            subscribers = store.subscribers.setdefault(channel, [])
            if queue not in subscribers:
                subscribers.append(queue)
                if item.start == "earliest" and not known:
                    for stored in log:
                        queue.put(Stored(stored.message, stored.number))
        store.dead.setdefault(self._name(item.dead), {})

    def _missing(self, item: Address | Group) -> list[str]:
        store = self._store
        if isinstance(item, Group):
            queue = store.queues.get(self._naming.group(item.name))
            missing = [name for source in item.sources for name in self._missing(source)]
            unread = [s for s in item.sources if queue not in store.subscribers.get(self._name(s), ())]
            if queue is None or unread:
                missing.append(
                    f"group:{item.name} on {', '.join(map(str, unread))}" if unread else f"group:{item.name}"
                )
            return missing
        if item.kind in ("topic", "inbox"):
            found = self._name(item) in (store.topics if item.kind == "topic" else store.subscribers)
        else:
            found = self._naming.group(item.name) in store.queues
        return [] if found else [str(item)]

    def _put(self, message: Message) -> Exception | None:
        store = self._store
        address = message.address
        headers = message.headers
        size = len(message.body or b"") + sum(map(len, headers)) + sum(map(len, headers.values()))
        limit = _MESSAGE_BYTES + (_HEADROOM if address.kind in ("retry", "dead") else 0)
        if size > limit:
            return MessageTooLarge(f"{message.type} for {address}", size, limit)
        name = self._name(address)
        stored_as = next(store.count)
        if address.kind == "topic":
            log = store.topics.get(name)
            if log is None:
                return NotProvisioned(f"missing in memory: {address}")
            log.append(Stored(message, stored_as))
            for queue in store.subscribers.get(name, ()):
                queue.put(Stored(message, stored_as))
        elif address.kind == "inbox":
            owners = store.subscribers.get(name)
            if not owners:
                return NoOwner(f"{address} has no owner in memory")
            for queue in owners:
                queue.put(Stored(message, stored_as))
        elif address.kind == "dead":
            store.dead.setdefault(name, {})[f"{stored_as}"] = message
        elif address.kind == "reply":
            waiting = store.queues.get(name)
            if waiting is not None:
                waiting.put(Stored(message, stored_as))
        else:
            return self._delay(message, stored_as)
        return None

    def _show(self, messages: Sequence[Message], answers: Sequence[Exception | None]) -> None:
        """To those who follow."""
        for message, answer in zip(messages, answers, strict=True):
            for arrived in self._store.followers.get(self._name(message.address), ()) if answer is None else ():
                arrived.put_nowait(Delivery(message, f"{next(self._store.count)}", None, None))

    def _delay(self, message: Message, number: int) -> Exception | None:
        queue = self._store.queues.get(self._naming.group(message.address.name))
        if queue is None:
            return NotProvisioned(f"missing in memory: {message.address}")
        stored = Stored(message, number)
        if _seconds_until(message.due, self._clock) <= 0:
            queue.put(stored)
        else:
            queue.wait(stored)
            self._ring(queue, stored)
        return None

    def _ring(self, queue: Queue, stored: Stored) -> None:
        """When it is due."""
        wait = _seconds_until(stored.message.due, self._clock)
        self._clock.call_later(max(wait, 0.0), lambda: queue.ripen(stored))

    def _forget(self, consumer: MemoryConsumer, reply: Address | None = None) -> None:
        self._consumers.remove(consumer)
        if reply is not None:
            self._store.queues.pop(self._name(reply), None)


def _seconds_until(due: datetime | None, clock: Clock) -> float:
    return 0.0 if due is None else (due - clock.now()) / timedelta(seconds=1)


async def _each(arrived: asyncio.Queue[Delivery]) -> AsyncIterator[Delivery]:
    while True:
        yield await arrived.get()

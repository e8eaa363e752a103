"""Where messages go: the partitions of each address, and what waits to go to each of them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import NamedTuple

from aiokafka.producer.message_accumulator import BatchBuilder  # type: ignore[import-untyped]

from eventkit.adapter import Address, Message
from eventkit.errors import MessageTooLarge
from eventkit_kafka import codec
from eventkit_kafka.partitions import key_hash, reply_partition, retry_partition

_BATCH_BYTES = 512 * 1024
"""A batch is closed at this size, or at the topic's own limit."""
_RUN = 100
"""Messages without a key that go to one partition before the next has its turn; fewer in small calls."""
_UNCOMPRESSED = 0


class Record(NamedTuple):
    """A message as Kafka has it."""

    type: str
    """Not sent: what it is called in an error."""
    partition: int
    key: bytes | None
    value: bytes | None
    headers: codec.Headers


class Batch:
    """Records of one partition, sent together. Its future's result is None, or why it was not confirmed."""

    __slots__ = ("builder", "deadline", "future")

    def __init__(self, builder: BatchBuilder, future: asyncio.Future[Exception | None], deadline: float) -> None:
        self.builder = builder
        self.future = future
        self.deadline = deadline

    def answer(self, result: Exception | None) -> None:
        if not self.future.done():
            self.future.set_result(result)


class Lane:
    """What waits to go to one partition."""

    __slots__ = ("open", "partition", "pump", "queue", "route")

    def __init__(self, route: Route, partition: int) -> None:
        self.route = route
        self.partition = partition
        self.queue: deque[Batch] = deque()
        self.open: Batch | None = None
        """The last of the queue, while it takes more."""
        self.pump: asyncio.Task[None] | None = None

    def add(self, record: Record, timestamp: int, deadline: float) -> Batch:
        """Into the open batch, or a new one. MessageTooLarge if it fits into none."""
        _, _, key, value, headers = record
        batch = self.open
        if batch is not None:
            if batch.builder.append(timestamp=timestamp, key=key, value=value, headers=headers) is not None:
                batch.deadline = deadline
                return batch
            self.open = None
        limit = self.route.limit
        builder = BatchBuilder(min(_BATCH_BYTES, limit), _UNCOMPRESSED)
        # The first record is taken at any size. A batch that the broker refuses would leave a gap in the producer's
        # sequence, and all that follows would be refused too: so it is looked at before it goes.
        builder.append(timestamp=timestamp, key=key, value=value, headers=headers)
        if builder.size() > limit:
            raise MessageTooLarge(f"{record.type or 'a message'} to {self.route.address}", builder.size(), limit)
        batch = self.open = Batch(builder, asyncio.get_running_loop().create_future(), deadline)
        self.queue.append(batch)
        return batch

    def take(self) -> Batch:
        """The next to be sent. It takes no more."""
        batch = self.queue.popleft()
        if self.open is batch:
            self.open = None
        batch.builder.close()
        return batch

    def drop_expired(self, now: float, why: Exception) -> None:
        """While a batch is stuck, those behind it that nobody waits for any more are not sent."""
        if any(batch.deadline <= now for batch in self.queue):
            for batch in self.queue:
                if batch.deadline <= now:
                    batch.answer(why)
                    if batch is self.open:
                        self.open = None
            self.queue = deque(batch for batch in self.queue if batch.deadline > now)


class Route:
    """The partitions of one address."""

    __slots__ = ("_left", "_turn", "address", "lanes", "limit", "read", "topic")

    def __init__(self, address: Address, topic: str) -> None:
        self.address = address
        self.topic = topic
        self.limit = 0
        """The largest batch that the topic takes, in bytes."""
        self.read = 0.0
        """When we asked for that, by the loop's clock."""
        self.lanes: list[Lane] = []
        self._turn = int(time.time() * 1000)  # so that processes do not all begin with partition 0
        self._left = 0

    def fit(self, partitions: int) -> None:
        """There are so many partitions now. Fewer, where the topic was deleted and made again: what waits to go to the
        others is answered as it fails."""
        del self.lanes[partitions:]
        self.lanes += (Lane(self, partition) for partition in range(len(self.lanes), partitions))

    def record(self, message: Message, now: float, together: int) -> Record:
        """The message's record; `together` is how many are published at once."""
        kind = self.address.kind
        count = len(self.lanes)
        if kind in ("topic", "inbox"):
            key = codec.encode_key(message.key)
            partition = self._next(min(max(together // count, 1), _RUN)) if key is None else key_hash(key) % count
            return Record(message.type, partition, key, message.body, codec.encode_headers(message.headers.items()))
        headers = codec.encode_headers(codec.kept_headers(message))
        if kind == "retry":
            key = codec.encode_key(message.key)
            waits = 0.0
            if message.due is not None:
                until = codec.milliseconds(message.due)
                waits = until / 1000 - now
                if waits > 0:
                    headers.append((codec.HELD_UNTIL, b"%d" % until))
            return Record(message.type, retry_partition(waits, key, count, self._next(1)), key, message.body, headers)
        if kind == "dead":
            key = codec.dead_key(message)
            if message.body is None:
                headers.append((codec.NO_BODY, b"1"))
            return Record(message.type, key_hash(key) % count, key, message.body or b"", headers)
        name = self.address.name
        headers.append((codec.REPLY, name.encode()))
        return Record(message.type, reply_partition(name, count), None, message.body, headers)

    def _next(self, run: int) -> int:
        """A partition for a message without a key."""
        if self._left <= 0:
            self._left = run
            self._turn += 1
        self._left -= 1
        return self._turn % len(self.lanes)

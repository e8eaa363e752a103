"""What lies in topics: dead letters to look at and to discard, and how much waits for a group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from aiokafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from eventkit.adapter import Address, Backlog, Delivery, Group, Waiting
from eventkit.errors import CapabilityNotSupported
from eventkit_kafka import codec
from eventkit_kafka.cluster import Cluster
from eventkit_kafka.consume import GroupConsumer
from eventkit_kafka.progress import WAITING, Tracker, count, decode
from eventkit_kafka.reading import latest, reader, scan, see
from eventkit_kafka.routes import Record

_COUNTED = 200_000
"""Dead letters are counted by reading them; more records than this are not read for it."""
_OLDEST_WAIT = 2.0


class Stock:
    """Reads outside of any group."""

    def __init__(self, cluster: Cluster) -> None:
        self._clients = cluster.clients
        self._topics = cluster.topics
        self._publisher = cluster.publisher
        self._provisioner = cluster.provisioner
        self._naming = cluster.naming

    async def browse(self, address: Address) -> AsyncIterator[Delivery]:
        """Dead letters without those that were discarded; of a retry topic or an inbox what is not settled."""
        topic = self._provisioner.topic(address)
        if not await self._topics.existing([topic]):
            return
        tps = (await self._topics.partitions([topic]))[topic]
        begins, ends = await self._topics.begins(tps), await self._topics.ends(tps)
        settled: dict[TopicPartition, list[tuple[int, int]]] = {}
        kept: Mapping[tuple[int, bytes], int] | None = None
        if address.kind == "dead":
            kept = await latest(self._clients, begins, ends)
        elif address.kind in ("retry", "inbox"):
            for tp, mark in (await self._topics.committed(self._naming.group(address.name))).items():
                if tp in begins:
                    begins[tp] = max(begins[tp], mark.offset)
                    settled[tp] = decode(mark.offset, mark.metadata)[1]
        read = codec.decode if address.kind in ("topic", "inbox") else codec.decode_copy
        async for tp, record in scan(self._clients, begins, ends):
            if kept is not None:
                if kept.get((tp.partition, record.key or b"")) != record.offset:
                    continue
            elif any(start <= record.offset < stop for start, stop in settled.get(tp, ())):
                continue
            message = read(address, record)
            yield Delivery(message, f"{tp.partition}:{record.offset}", None, (topic, tp.partition, record.key))

    async def remove(self, deliveries: Sequence[Delivery]) -> list[Exception | None]:
        """A dead letter is discarded by a record that says so; of other topics Kafka deletes no single record."""
        answers: list[Exception | None] = [None] * len(deliveries)
        places: list[int] = []
        tombstones: list[tuple[Address, Record]] = []
        for place, delivery in enumerate(deliveries):
            address = delivery.message.address
            if address.kind != "dead" or not isinstance(delivery.token, tuple):
                answers[place] = CapabilityNotSupported(f"Kafka cannot delete single messages of {address}")
                continue
            _, partition, key = delivery.token
            places.append(place)
            tombstones.append((address, Record("", partition, key, None, [])))
        for place, answer in zip(places, await self._publisher.write(tombstones), strict=True):
            answers[place] = answer
        return answers

    async def measure(self, group: Group, consumers: Collection[GroupConsumer]) -> Backlog:
        """From the marks that members commit; what this process reads itself is known better. Retries that
        others have in hand count as delayed."""
        wanted = [self._provisioner.topic(address) for address in (*group.sources, group.retry, group.dead)]
        existing = await self._topics.existing(wanted)
        partitions = await self._topics.partitions(existing)
        retry, dead = self._provisioner.topic(group.retry), self._provisioner.topic(group.dead)
        tps = [tp for topic, found in partitions.items() if topic != dead for tp in found]
        name = self._naming.group(group.name)
        marks, members, begins, ends = await asyncio.gather(
            self._topics.committed(name), self._topics.members(name), self._topics.begins(tps), self._topics.ends(tps)
        )
        live = {tp: tracker for one in consumers for tp, tracker in one.member.trackers.items()}
        # how far a retry topic was delivered says nothing of what is not due before that
        lending = {tp: 0 if tp.topic == retry else members for tp in tps}
        counts = {tp: _left(live.get(tp), marks.get(tp), begins[tp], ends[tp], lending[tp]) for tp in tps}
        waiting = {tp: first for tp, (ready, _, first) in counts.items() if ready and tp.topic != retry}
        ages = await self._ages(waiting) if waiting else {}
        sources: dict[Address, Waiting] = {}
        for source in group.sources:
            own = partitions.get(self._provisioner.topic(source), [])
            sources[source] = Waiting(
                sum(counts[tp][0] for tp in own),
                sum(counts[tp][1] for tp in own),
                max((ages[tp] for tp in own if tp in ages), default=None),
            )
        return Backlog(
            ready=sum(source.ready or 0 for source in sources.values()),
            in_flight=sum(lent for _, lent, _ in counts.values()),
            delayed=sum(counts[tp][0] for tp in partitions.get(retry, [])),
            dead=await self._count_dead(partitions.get(dead, [])),
            oldest=max(ages.values(), default=None),
            consumers=members,
            sources=sources,
        )

    async def _count_dead(self, tps: Sequence[TopicPartition]) -> int | None:
        if not tps:
            return 0
        begins, ends = await self._topics.begins(tps), await self._topics.ends(tps)
        if sum(ends[tp] - begins[tp] for tp in tps) > _COUNTED:
            return None
        return len(await latest(self._clients, begins, ends))

    async def _ages(self, waiting: Mapping[TopicPartition, int]) -> dict[TopicPartition, timedelta]:
        """How old the first record is that waits in each partition: one is read of each."""
        ages: dict[TopicPartition, timedelta] = {}
        try:
            async with asyncio.timeout(_OLDEST_WAIT), reader(self._clients, waiting) as fetcher:
                while len(ages) < len(waiting):
                    await fetcher.wait(_OLDEST_WAIT)
                    for tp in fetcher.ready:
                        for record in see(fetcher, tp, 1):
                            ages[tp] = timedelta(seconds=max(time.time() - record.timestamp / 1000, 0.0))
                            fetcher.end([tp])
        except (TimeoutError, KafkaError):
            pass
        return ages


def _left(
    tracker: Tracker | None, mark: OffsetAndMetadata | None, begin: int, end: int, members: int
) -> tuple[int, int, int]:
    """Of a partition: how many are neither settled nor delivered, how many are delivered, and the first of the former.
    What was delivered to members that are gone is neither."""
    if tracker is not None and tracker.next is not None:
        lent = sum(1 for state in tracker.pending.values() if state != WAITING)
        beyond = sum(stop - max(start, tracker.next) for start, stop in tracker.settled if stop > tracker.next)
        first = next((offset for offset, state in tracker.pending.items() if state == WAITING), tracker.next)
        return len(tracker.pending) + max(end - tracker.next, 0) - beyond - lent, lent, first
    if mark is None:
        return end - begin, 0, begin
    read, settled = decode(mark.offset, mark.metadata)
    start = max(mark.offset, begin)
    left = max(end - start, 0) - count(settled)
    if not members:
        return left, 0, start
    below = count([(a, min(b, read)) for a, b in settled if a < read])
    lent = max(min(read - mark.offset - below, left), 0)
    return left - lent, lent, max(read, start)

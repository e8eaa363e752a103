"""A group's consumer: fetching what there is room for, a fair share of each partition, and handing it over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError  # type: ignore[import-untyped]

from eventkit.adapter import Delivery, Group, Receive, Settlement
from eventkit_kafka import codec
from eventkit_kafka.clients import unbroken
from eventkit_kafka.cluster import Cluster
from eventkit_kafka.held import Held
from eventkit_kafka.lending import Lending
from eventkit_kafka.membership import Membership
from eventkit_kafka.progress import LENT, WAITING, Tracker
from eventkit_kafka.salvage import salvage

log = logging.getLogger("eventkit.kafka")

_POLL = 0.2
"""Seconds to wait for records at most, so that what is due or given back is looked at."""
_HELD_AT_ONCE = 500
_SINGLY_MS = 100
_UNREADABLE_AGAIN = 5.0
_APART, _GLANCE = 1.0, 0.02
_AHEAD = 2.0
"""Seconds that writing a mark before a delivery may take."""
UNREADABLE = (CorruptRecordException, UnsupportedCodecError, ValueError)
"""What aiokafka raises for a record: damaged, packed by a library that is not installed, a header's name no UTF-8."""
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)


class GroupConsumer:
    """eventkit.adapter.Consumer of a lasting group."""

    def __init__(self, cluster: Cluster, group: Group, receive: Receive, in_flight: int) -> None:
        self.group = group
        self.stopped = False
        self.member = Membership(cluster, group, self)
        self._cluster = cluster
        self._receive = receive
        self._lending = Lending(group.name, receive, cluster.publisher, in_flight, self.member.commits.touched)
        self._held = Held(group.name, cluster.clients, self._lending)
        self.settle: Callable[[Delivery, Settlement], None] = self._lending.settle
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._turn = 0
        self._busy = 1
        self._error: Exception | None = None
        self._unreadable: dict[TopicPartition, tuple[float, Exception]] = {}
        """Partitions that stand still at a record that aiokafka cannot read: when to try again, and why."""
        self._apart_until = 0.0
        self._ahead: set[Tracker] = set()
        """Partitions whose mark is to be written before what was read of them is delivered."""
        self._tasks: list[asyncio.Task[None]] = []

    # eventkit.adapter.Consumer

    @property
    def error(self) -> Exception | None:
        unreadable = next(iter(self._unreadable.values()), (0.0, None))[1]
        return self._error or self.member.error or unreadable

    async def flush(self, timeout: float, /) -> None:
        ends = time.monotonic() + timeout
        await self._lending.moves_done(timeout / 2)
        if not await self.member.commits.commit(list(self.member.trackers.values()), max(ends - time.monotonic(), 0.2)):
            raise TimeoutError("Kafka did not take the commit")

    def pause(self) -> None:
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    async def stop(self, timeout: float, /) -> None:
        if self.stopped:
            return
        self.stopped = True
        ends = time.monotonic() + timeout
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout / 4)
        await self._lending.moves_done(timeout / 4)
        await self.member.leave(max(ends - time.monotonic(), 0.2))

    async def start(self) -> None:
        """Join the group. Returns when the next message will not be missed."""
        await self.member.join()
        loop = asyncio.get_running_loop()
        name = f"eventkit kafka {self.group.name}"
        self._tasks = [
            loop.create_task(self._fetch(), name=f"{name} fetch"),
            loop.create_task(self.member.commits.regularly(), name=f"{name} commit"),
            loop.create_task(self.member.watch(), name=f"{name} watch"),
        ]

    # eventkit_kafka.membership.Owner

    async def finish(self, trackers: Sequence[Tracker], seconds: float) -> None:
        await self._lending.finish(trackers, seconds)

    def forget(self, trackers: Sequence[Tracker]) -> None:
        self._held.drop(set(trackers))
        self._unreadable.clear()
        self._lending.forget(trackers)

    # fetching

    async def _fetch(self) -> None:
        failures = 0
        while True:
            try:
                await unbroken(self._round())
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 a consumer survives whatever comes
                self._error = error
                if not failures:
                    log.warning("group %s: reading from Kafka failed, trying again: %r", self.group.name, error)
                await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
                failures += 1
                try:
                    await unbroken(self.member.rejoin())
                except Exception as failure:  # noqa: BLE001 the next round fails too, and tries again
                    log.debug("group %s: could not join again: %r", self.group.name, failure)
            else:
                if failures:
                    log.info("group %s: reading from Kafka again", self.group.name)
                    self._error = None
                failures = 0

    async def _round(self) -> None:
        if not self._resumed.is_set():
            await self._resumed.wait()
        if self._lending.room <= 0:
            await self._lending.wait_for_room()
        member = self.member
        if member.stuck:
            raise TimeoutError("Kafka answers others, but not on this consumer's connections")
        revocations = member.revocations
        batch: list[Delivery] = []
        again = self._lending.take_given_back(batch)
        await self._held.take_due(batch)
        trackers = self._in_turn()
        found = busy = 0
        for tracker in trackers:
            most = self._share(tracker)
            if most > 0 and self._readable(tracker):
                taken = await self._read([tracker.tp], 0, most, batch)
                if taken:
                    found += taken
                    busy += 1
        self._busy = max(busy, 1)
        if not found and not batch:
            found = await self._wait_for_records(trackers, batch, again)
        if found:
            await self._held.take_due(batch)
        if self._ahead:
            await self._write_ahead()
        if member.revocations != revocations:
            batch = self._lending.still_ours(batch)
        if batch:
            await self._receive.deliveries(batch)
            await asyncio.sleep(0)

    async def _write_ahead(self) -> None:
        """Say how far we have read before anything of it runs: whoever comes after us, if it kills us, must know."""
        ahead, self._ahead = self._ahead, set()
        for tracker in ahead:
            tracker.touched = True
        if await self.member.commits.commit(ahead, _AHEAD):
            for tracker in ahead:
                tracker.noted = True

    def _in_turn(self) -> list[Tracker]:
        """All partitions, beginning with another one each time."""
        every = list(self.member.trackers.values())
        if len(every) > 1:
            self._turn = (self._turn + 1) % len(every)
            every = every[self._turn :] + every[: self._turn]
        return every

    def _share(self, tracker: Tracker) -> int:
        """How many records to take of a partition: what room there is, shared with those that had some last time."""
        if tracker.address.kind == "retry":
            return _HELD_AT_ONCE
        room = self._lending.room
        return min(room, max(room // self._busy, self._lending.in_flight // (self._busy * 4), 1))

    def _readable(self, tracker: Tracker) -> bool:
        if not tracker.open or self._held.full(tracker):
            return False
        return not self._unreadable or self._unreadable.get(tracker.tp, (0.0,))[0] < time.monotonic()

    async def _wait_for_records(self, trackers: Sequence[Tracker], batch: list[Delivery], again: float | None) -> int:
        if self.member.dead():
            raise RuntimeError("aiokafka's task of fetching has ended")
        readable = [tracker.tp for tracker in trackers if self._readable(tracker)]
        if not readable:
            await self.member.changed(_POLL)
            return 0
        if self._apart_until > time.monotonic():  # to find out which partition holds what cannot be read
            await asyncio.sleep(_GLANCE)
            return 0
        wait = _POLL if again is None else min(_POLL, again)
        due = self._held.next_due()
        if due is not None:
            wait = min(wait, max(due - time.time(), 0.0))
        most = max(self._lending.room // 2, 1)
        taken = await self._read(readable, int(wait * 1000) + 1, most, batch)
        self.member.hasten(busy=bool(taken))
        return taken

    async def _read(self, tps: Sequence[TopicPartition], wait_ms: int, most: int, batch: list[Delivery]) -> int:
        consumer = self.member.consumer
        try:
            return self._take(await consumer.getmany(*tps, timeout_ms=wait_ms, max_records=most), batch)
        except UNREADABLE as error:
            log.debug("group %s: reading one by one after %r", self.group.name, error)
        if len(tps) == 1:  # aiokafka drops what it had read with the unreadable record, and reads it again
            return await self._read_singly(tps[0], batch)
        # Of the others it drops what it would have returned, and thinks that we have it.
        self.member.rewind(tps)
        self._apart_until = time.monotonic() + _APART
        return 0

    async def _read_singly(self, tp: TopicPartition, batch: list[Delivery]) -> int:
        """Up to the unreadable record, if it is in this partition, and over it if it can be read by hand."""
        consumer = self.member.consumer
        taken = 0
        while self._lending.room > 0:
            try:
                records = await consumer.getmany(tp, timeout_ms=_SINGLY_MS, max_records=1)
            except UNREADABLE as error:
                offset = await consumer.position(tp)
                if not isinstance(error, UnicodeDecodeError):
                    log.warning("topic %s, partition %d stands still at offset %d: %r", *tp, offset, error)
                    self._unreadable[tp] = (time.monotonic() + _UNREADABLE_AGAIN, error)
                    return taken
                found, following = await salvage(self._cluster.publisher.client, tp, offset)
                most = self._lending.room
                if len(found) > most:
                    found, following = found[:most], found[most].offset
                consumer.seek(tp, following)
                return taken + (self._take({tp: found}, batch) if found else 0)
            self._unreadable.pop(tp, None)
            if not records:
                break
            taken += self._take(records, batch)
        return taken

    def _take(self, found: Mapping[TopicPartition, Sequence[Any]], batch: list[Delivery]) -> int:
        """What was read is ours from here on. How many records it was."""
        total = 0
        for tp, records in found.items():
            # What aiokafka gives is of the assignment that holds now; ours may not have been told of it yet.
            tracker = self.member.trackers.get(tp)
            if tracker is None:
                self.member.consumer.seek(tp, records[0].offset)
                continue
            if tracker.next is not None and records[0].offset > tracker.next:
                self.member.jumped(tracker, tracker.next)
            total += len(records)
            fresh = records
            if tracker.settled:
                fresh = [record for record in records if not tracker.skips(record.offset)]
            pending = tracker.pending
            if tracker.address.kind == "retry":
                for record in fresh:
                    pending[record.offset] = WAITING
                    self._held.add(codec.due(record), tracker, record)
            else:
                address, prefix, decode, deliver = tracker.address, tracker.prefix, codec.decode, codec.deliver
                count = tracker.count
                for record in fresh:
                    offset = record.offset
                    pending[offset] = LENT
                    batch.append(
                        deliver(decode(address, record), f"{prefix}{offset}", (tracker, offset, LENT), count(offset))
                    )
                self._lending.lent += len(fresh)
            if not tracker.noted or records[0].offset < tracker.careful:
                self._ahead.add(tracker)
            tracker.next = records[-1].offset + 1
            tracker.touched = True
        if total:
            self.member.commits.touched()
        return total

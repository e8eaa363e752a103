"""A group's consumer: fetching what there is room for, a fair share of each partition, and handing it over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from eventkit.adapter import RELEASE, Delivery, Group, Receive, Settlement, new
from eventkit.cancelling import unbroken
from eventkit_kafka import codec
from eventkit_kafka.cluster import Cluster
from eventkit_kafka.held import Entry, Held
from eventkit_kafka.lending import Lending, place
from eventkit_kafka.membership import Membership
from eventkit_kafka.progress import LENT, WAITING, Tracker
from eventkit_kafka.records import Fields, Record, Unreadable

log = logging.getLogger("eventkit.kafka")

_POLL = 0.2
"""Seconds to wait for records at most, so that what is due or given back is looked at."""
_HELD_AT_ONCE = 500
_AT_LEAST = 16
"""Records that are taken of a partition at once, where there are so many and there is room."""
_AHEAD = 2.0
"""Seconds that writing a mark before a delivery may take."""
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)


class GroupConsumer:
    """eventkit.adapter.Consumer of a lasting group."""

    def __init__(self, cluster: Cluster, group: Group, receive: Receive, in_flight: int) -> None:
        self.group = group
        self.stopped = False
        self.member = Membership(cluster, group, self)
        self._receive = receive
        told = (self.member.commits.touched, self.member.doubt)
        self._lending = Lending(group.name, receive, cluster.publisher, in_flight, *told)
        self._held = Held(group.name, cluster.clients, self._lending)
        self.settle: Callable[[Delivery, Settlement], None] = self._lending.settle
        self.hold: Callable[[int], None] = self._lending.hold
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._error: Exception | None = None
        self._ahead: set[Tracker] = set()
        """Partitions whose mark is to be written before the next of them is delivered."""
        self._tasks: list[asyncio.Task[None]] = []
        self._dropping: set[asyncio.Task[None]] = set()

    # eventkit.adapter.Consumer

    @property
    def error(self) -> Exception | None:
        return self._error or self.member.error or self.member.fetcher.unreadable

    async def flush(self, timeout: float, /) -> None:
        ends = time.monotonic() + timeout
        await self._lending.moves_done(timeout / 2)
        commits = self.member.commits
        await commits.ended(max(ends - time.monotonic(), 0.1))
        if not await commits.commit(list(self.member.trackers.values()), max(ends - time.monotonic(), 0.2)):
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
        tasks = [*self._tasks, *self._dropping]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout / 4)
        await self.member.look_for_ends(timeout / 4)
        if self._lending.cut:  # what is given back of that becomes copies, and their topic may be gone, too
            await self.member.restore(timeout / 4)
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

    async def finish(self, trackers: Sequence[Tracker], drain: float, seconds: float) -> None:
        await self._lending.finish(trackers, drain, seconds)

    def forget(self, trackers: Sequence[Tracker]) -> None:
        self._held.drop(set(trackers))
        self._lending.forget(trackers)

    def drop(self, trackers: Sequence[Tracker]) -> None:
        gone = set(trackers)
        dropping = self._receive.revoked(lambda delivery: place(delivery)[0] in gone, None)
        task = asyncio.get_running_loop().create_task(dropping, name=f"eventkit kafka {self.group.name} drop")
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    def cut_off(self, tracker: Tracker, end: int) -> None:
        gone, doubtful = self._held.take_out(tracker, end)
        self._lending.cut_off(tracker, gone)
        if doubtful:
            self._lending.in_background(self._rescue(tracker, doubtful))

    async def _rescue(self, tracker: Tracker, doubtful: list[Entry]) -> None:
        if messages := await self._held.missing(doubtful):
            log.warning(
                "group %s: topic %s, partition %d was made anew: %d messages that waited in it are written again",
                *(self.group.name, *tracker.tp, len(messages)),
            )
            await self._lending.write_anew(messages)

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
        await member.poll()
        revocations = member.revocations
        batch: list[Delivery] = []
        try:
            await self._gather(batch)
        except BaseException:
            # what is lent, and delivered to nobody, is nowhere else where Kafka has lost it meanwhile
            for delivery in batch:
                self._lending.settle(delivery, RELEASE)
            raise
        if member.revocations != revocations:
            batch = self._lending.still_ours(batch)
        if batch:
            await self._receive.deliveries(batch)
            await asyncio.sleep(0)

    async def _gather(self, batch: list[Delivery]) -> None:
        """Lend what is to be delivered now: what was given back, what is due, what is new."""
        again = self._lending.take_given_back(batch)
        await self._held.take_due(batch, self._ahead)
        found = self._take_all(batch)
        if not found and not batch:
            await self._wait_for_records(again)
            found = self._take_all(batch)
        if found:
            await self._held.take_due(batch, self._ahead)
        if self._ahead:
            await self._write_ahead()
        if not self._resumed.is_set():  # it was paused while this was read
            await self._resumed.wait()

    async def _write_ahead(self) -> None:
        """Say how far we deliver before anything of it runs: whoever comes after us, if it kills us, must know."""
        ahead, self._ahead = self._ahead, set()
        for tracker in ahead:
            tracker.touched = True
        if await self.member.commits.commit(ahead, _AHEAD):
            for tracker in ahead:
                tracker.noted = True

    async def _wait_for_records(self, again: float | None) -> None:
        wait = _POLL if again is None else min(_POLL, again)
        due = self._held.next_due()
        if due is not None:
            wait = min(wait, max(due - time.time(), 0.0))
        await self.member.fetcher.wait(wait)

    def _take_all(self, batch: list[Delivery]) -> int:
        """Of each partition of which something was read, as much as is its due. How many records it was."""
        fetcher, trackers = self.member.fetcher, self.member.trackers
        ready = [tracker for tp in fetcher.ready if (tracker := trackers.get(tp)) is not None and self._takes(tracker)]
        found = 0
        for tracker in ready:
            most = self._share(tracker, len(ready))
            if most <= 0:
                continue
            try:
                records = fetcher.take(tracker.tp, most)
            except Unreadable:
                continue  # it stands still, the others do not
            if records:
                found += len(records)
                self._take(tracker, records, batch)
        if found:
            self.member.commits.touched()
        return found

    def _takes(self, tracker: Tracker) -> bool:
        return tracker.open and not self._held.full(tracker)

    def _share(self, tracker: Tracker, busy: int) -> int:
        """How many records to take of a partition: what room there is, shared with the others that have some."""
        if tracker.address.kind == "retry":
            return _HELD_AT_ONCE
        room = self._lending.room
        return min(room, max(room // busy, self._lending.in_flight // (busy * 4), _AT_LEAST))

    def _take(self, tracker: Tracker, records: Sequence[Fields], batch: list[Delivery]) -> None:
        """What was read is ours from here on."""
        first, last = records[0][0], records[-1][0]
        if tracker.next is not None and first > tracker.next:
            self.member.gaps.jumped(tracker.tp, tracker.next)
        fresh = records
        if tracker.settled:
            fresh = [record for record in records if not tracker.skips(record[0])]
        pending = tracker.pending
        if tracker.address.kind == "retry":
            for record in (Record(*fields) for fields in fresh):
                pending[record.offset] = WAITING
                self._held.add(codec.due(record), tracker, record)
        else:
            address, prefix, decode = tracker.address, tracker.prefix, codec.decode
            count = tracker.count if tracker.deaths else None
            for fields in fresh:
                offset = fields[0]
                pending[offset] = LENT
                arrivals = 1 if count is None else count(offset)
                token = (tracker, offset, LENT)
                batch.append(new(Delivery, (decode(address, fields), f"{prefix}{offset}", arrivals, token)))
            self._lending.lent += len(fresh)
            if not tracker.noted or first < tracker.careful:
                self._ahead.add(tracker)
        tracker.next = last + 1
        tracker.touched = True

"""Membership of a consumer group: joining, rebalancing, committing, and whether it is alive."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.abc import ConsumerRebalanceListener  # type: ignore[import-untyped]
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from aiokafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from eventkit.adapter import Group
from eventkit.cancelling import unbroken
from eventkit.errors import NotProvisioned
from eventkit_kafka import lives
from eventkit_kafka.clients import begin, end_consumer, hear_commits, keep_commits
from eventkit_kafka.cluster import Cluster
from eventkit_kafka.commits import Commits
from eventkit_kafka.fetch import Fetcher
from eventkit_kafka.gaps import Gaps
from eventkit_kafka.progress import Ranges, Tracker, decode, reached

log = logging.getLogger("eventkit.kafka")

_LAST_COMMIT = 5.0
_IN_TIME = 0.85
"""The part of the rebalance time-out in which all is done that is to be done before others get our partitions. Whoever
takes longer is out of the group, which then is made anew once more."""
_WATCH = 2.0
_STUCK = 4
"""So many times without an answer, while others are answered: this member's connections lead nowhere."""
_CUT = 1.0
"""Seconds that Kafka has to say whether what is taken away is still there."""
_LOOK_UP = 10.0
_FIND_AGAIN = 0.5
_POLL = 0.5
"""Seconds between two questions whether aiokafka's own parts are well."""
_NOBODY = TopicPartition("eventkit-nobody", 0)
"""Asking for its records counts as polling, and takes none of any other."""


class Owner(Protocol):
    """What is told about partitions that go."""

    async def finish(self, trackers: Sequence[Tracker], drain: float, seconds: float) -> None: ...

    def forget(self, trackers: Sequence[Tracker]) -> None: ...

    def drop(self, trackers: Sequence[Tracker]) -> None:
        """These were given up at once: what has not begun of them runs where it comes again, and not here, too."""

    def cut_off(self, tracker: Tracker, end: int) -> None:
        """Kafka has lost all of this log from `end` on: what is in hand of that is nowhere else."""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Passes on what happens to one consumer, as long as it is the one in use."""

    def __init__(self, member: Membership, consumer: Any) -> None:
        self._member = member
        self._consumer = consumer

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # it may be a coroutine
        self, revoked: Collection[TopicPartition]
    ) -> None:
        if self._member.consumer is self._consumer:
            await self._member.revoked()

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]  # it may be a coroutine
        self, assigned: Collection[TopicPartition]
    ) -> None:
        if self._member.consumer is self._consumer:
            await self._member.assigned(assigned)


class Membership:
    """One member of a group, joined again when it is beyond mending."""

    def __init__(self, cluster: Cluster, group: Group, owner: Owner) -> None:
        self.group = cluster.naming.group(group.name)
        self.consumer: Any = None
        self.fetcher: Fetcher
        self.trackers: dict[TopicPartition, Tracker] = {}
        self.error: Exception | None = None
        self.revocations = 0
        """How often partitions were taken away."""
        self._channels = {cluster.provisioner.topic(address): address for address in (*group.sources, group.retry)}
        self._clients = cluster.clients
        self._topics = cluster.topics
        self._settings = cluster.settings
        self._provisioner = cluster.provisioner
        self._starts = cluster.beginnings.starts
        self._group = group
        self.doubtful = False
        """A copy found no topic, which may have been deleted."""
        self.stuck = False
        """Kafka answers others, but not this member."""
        self._owner = owner
        self._assigned = asyncio.Event()
        self.commits = Commits(self.group, self, self._settings.commit_interval.total_seconds())
        self._survived: set[TopicPartition] = set()
        """What a member of this process has given up: nobody died of what it had in hand, whatever its mark says."""
        self._polled = 0.0
        self._finding: set[asyncio.Task[None]] = set()
        self.gaps = Gaps(self.group, cluster.topics)

    # joining and leaving

    async def join(self) -> None:
        """Become a member and know where to read from. TimeoutError if the group does not let us in."""
        settings = self._settings
        session = int(settings.session_timeout.total_seconds() * 1000)
        rebalance = settings.rebalance_timeout.total_seconds()
        self._assigned.clear()
        self.stuck = False
        consumer = self._clients.consumer(
            group_id=self.group,
            auto_offset_reset="earliest",  # a partition that appears later is read from its beginning
            # to be let in takes as long as others need to end their handlers, and nothing is answered meanwhile
            request_timeout_ms=int(rebalance * 1000) + 5_000,
            session_timeout_ms=session,
            heartbeat_interval_ms=max(min(session // 4, 750), 50),
            rebalance_timeout_ms=int(rebalance * 1000),
        )
        self.consumer = consumer
        self.fetcher = Fetcher(consumer._client, self._moved)  # noqa: SLF001 or it would need connections of its own
        try:
            consumer.subscribe(list(self._channels), listener=_Listener(self, consumer))
            async with asyncio.timeout(rebalance + 15):
                await begin(consumer.start)
                keep_commits(consumer)
                hear_commits(consumer)
                await self._assigned.wait()
                if self._finding:
                    await asyncio.wait(self._finding)
        except BaseException:
            await self._end(2.0)
            raise

    async def rejoin(self) -> None:
        """Give up this member and become another one."""
        await self.look_for_ends()
        trackers = list(self.trackers.values())
        self._close(trackers)
        await self.commits.commit(trackers, _CUT)
        self._survived.update(self.trackers)
        self._forget(trackers)
        self._owner.drop(trackers)
        if self.stuck:
            self._topics.renew()
        await self._end(0.5 if self.stuck else 5.0)
        await self.join()
        self._survived.clear()

    async def leave(self, timeout: float) -> None:
        """Write down what is settled, give back the rest, leave the group."""
        ends = time.monotonic() + timeout
        self._close(list(self.trackers.values()))
        await self.commits.commit(self.trackers.values(), timeout * 0.6)
        self._forget(list(self.trackers.values()))
        await self._end(max(ends - time.monotonic(), 0.2))

    async def _end(self, seconds: float) -> None:
        self._find_no_more()
        await self.fetcher.close()
        await end_consumer(self.consumer, seconds)

    def _find_no_more(self) -> None:
        for task in self._finding:
            task.cancel()

    # rebalancing: aiokafka waits for both, and keeps us in the group meanwhile

    async def revoked(self) -> None:
        """All partitions are taken away; some may come back."""
        self._assigned.clear()
        self._find_no_more()
        if not self.trackers:
            return
        within = self._settings.rebalance_timeout.total_seconds()
        ends = time.monotonic() + within * _IN_TIME
        await self.look_for_ends()
        trackers = list(self.trackers.values())  # not before: logs may have been begun anew
        self._close(trackers)
        try:
            await self._owner.finish(trackers, within * 2 / 3, ends - time.monotonic())
            await self.commits.commit(trackers, min(_LAST_COMMIT, max(ends - time.monotonic(), within / 20)))
        finally:  # whatever aiokafka cancels: what is not forgotten would be counted as lent for ever
            self._forget(trackers)

    async def look_for_ends(self, seconds: float = _CUT) -> None:
        """Begin anew with those whose log no longer reaches as far as we have read, since a broker has lost it: what is
        in hand of them is no other member's, and how far we had come says nothing. They are to be committed: what was
        settled above the old mark would hide what the log has by then. Nothing, if Kafka does not say so in time."""
        # as of now: what is read meanwhile may be newer than the answer
        read = {tracker: tracker.next for tracker in self.trackers.values() if tracker.next is not None}
        if not read:
            return
        try:
            async with asyncio.timeout(min(seconds, _CUT, self._settings.rebalance_timeout.total_seconds() / 10)):
                there = await unbroken(self._topics.present({tracker.tp.topic for tracker in read}))
                ends = await unbroken(self._topics.ends([tracker.tp for tracker in read if tracker.tp in there]))
                short = {tracker: wanted for tracker, wanted in read.items() if ends.get(tracker.tp, 0) < wanted}
                cut = [tracker.tp for tracker in short if tracker.tp in ends]
                begins = await unbroken(self._topics.begins(cut)) if cut else {}
        except Exception as error:  # noqa: BLE001 whatever aiokafka raises: then it is all there, as far as we know
            log.debug("group %s: Kafka does not say where its logs end: %r", self.group, error)
            return
        for tracker, wanted in short.items():
            tp = tracker.tp
            if self.trackers.get(tp) is not tracker:
                continue
            self.fetcher.end([tp])
            if tp in ends:
                self._moved(tp, wanted, begins[tp], ends[tp])
            else:
                del self.trackers[tp]
                self._owner.cut_off(tracker, 0)

    async def assigned(self, tps: Collection[TopicPartition]) -> None:
        """These are ours: find out where to go on."""
        self.consumer.pause(*tps)  # we read ourselves
        self.trackers = {}
        # aiokafka gives no sign of life before this returns: who asks for long here is expelled, and all begins anew
        session = self._settings.session_timeout.total_seconds()
        if tps and not await self._find(tps, min(session / 3, _LOOK_UP)):
            log.warning("group %s: Kafka does not say yet how far it has come, asking again", self.group)
            task = asyncio.get_running_loop().create_task(self._find_later(tps), name="eventkit kafka start")
            self._finding.add(task)
            task.add_done_callback(self._finding.discard)
        self._assigned.set()

    async def _find_later(self, tps: Collection[TopicPartition]) -> None:
        while not await self._find(tps, _LOOK_UP):  # noqa: ASYNC110 it asks, and is told nothing
            await asyncio.sleep(_FIND_AGAIN)

    async def _find(self, tps: Collection[TopicPartition], seconds: float) -> bool:
        """Read these from where the group had come to. False: Kafka did not say in time."""
        try:
            async with asyncio.timeout(seconds):
                marks = await unbroken(self._topics.committed(self.group))
                # not before: what is committed meanwhile may be newer than where they end
                begins, ends = await unbroken(asyncio.gather(self._topics.begins(tps), self._topics.ends(tps)))
            trackers = {tp: self._go_on(tp, marks.get(tp), begins[tp], ends[tp]) for tp in sorted(tps)}
        except Exception as error:  # noqa: BLE001 whatever aiokafka raises: given up, they would be read by nobody
            log.debug("group %s: no places to read from: %r", self.group, error)
            return False
        self.trackers = trackers
        return True

    def _go_on(self, tp: TopicPartition, mark: OffsetAndMetadata | None, begin: int, end: int) -> Tracker:
        start = self._starts.get((self.group, tp), begin) if mark is None else mark.offset
        if mark is not None and (last := reached(*mark)) > end:
            # cut off while nobody read: what was settled past its end would hide what it has by then
            self.gaps.cut_off(tp, last, begin)
            mark, start = None, begin
        tracker = Tracker(tp, self._channels[tp.topic], *left_behind(mark, survived=tp in self._survived))
        if mark is None:
            tracker.next = start  # so that it is committed, whether or not anything comes
            tracker.touched = True
            self.commits.touched()
        elif start < begin:
            self.gaps.say(tp, start, begin)
        self.consumer.seek(tp, max(start, begin))  # or it would look for it itself
        self.fetcher.begin(tp, max(start, begin))
        return tracker

    def _moved(self, tp: TopicPartition, wanted: int, begin: int, end: int) -> None:
        """Kafka has not what we asked for."""
        if begin > wanted:
            self.gaps.say(tp, wanted, begin)
            return
        self.gaps.cut_off(tp, wanted, begin)
        self._begin_anew(tp, begin, end)

    def _begin_anew(self, tp: TopicPartition, begin: int, end: int) -> None:
        """Its offsets count other records from now on: what we know of the old ones must hide none of these."""
        old = self.trackers.get(tp)
        if old is None:
            return
        self.trackers[tp] = fresh = Tracker(tp, old.address, ())
        fresh.next = begin  # so that it is committed before new records reach the old mark
        fresh.touched = True
        self.commits.touched()
        self._owner.cut_off(old, end)

    def _close(self, trackers: Sequence[Tracker]) -> None:
        """We leave these in order, and the next commit says so."""
        self.revocations += 1  # what was read of them, and is not handed over yet, no longer is
        self.fetcher.end([tracker.tp for tracker in trackers])  # or one that ends too early would be begun anew
        for tracker in trackers:
            tracker.open = False
            tracker.touched |= tracker.next is not None

    def _forget(self, trackers: Sequence[Tracker]) -> None:
        self.revocations += 1
        for tracker in trackers:
            tracker.open = False
        self.fetcher.end([tracker.tp for tracker in trackers])
        self._owner.forget(trackers)
        for tracker in trackers:
            if self.trackers.get(tracker.tp) is tracker:
                del self.trackers[tracker.tp]

    # being alive

    async def poll(self) -> None:
        """Raises what has ended aiokafka's membership; waits while partitions are given to others."""
        now = time.monotonic()
        if now - self._polled > _POLL:
            self._polled = now
            await self.consumer.getmany(_NOBODY, timeout_ms=0)

    async def watch(self) -> None:
        """Keep polling while handlers are slow, and notice when Kafka no longer answers, or a topic is gone."""
        failures = 0
        while True:
            if failures != 1:  # one may be a hiccup: ask again at once
                await asyncio.sleep(_WATCH)
            consumer = self.consumer
            try:
                await unbroken(self._asked(consumer))
                gone = await unbroken(self._gone())
            except Exception as error:  # noqa: BLE001 a consumer that is being replaced says anything
                failures += 1
                if failures == 2 and consumer is self.consumer:
                    self.error = error if str(error) else TimeoutError("Kafka does not answer")
                    log.warning("group %s: Kafka does not answer, waiting for it: %r", self.group, self.error)
                if failures >= _STUCK and self._assigned.is_set():
                    self.stuck = await self._answers_others()
            else:
                if self.error is not None and gone is None:
                    log.info("group %s: Kafka answers again", self.group)
                self.error = gone
                failures = 0

    async def _asked(self, consumer: Any) -> None:
        async with asyncio.timeout(_WATCH):
            await consumer.getmany(_NOBODY, timeout_ms=0)
            if self._finding:
                raise TimeoutError("Kafka does not say how far the group has come")
            tp = next(iter(self.trackers), None)
            if tp is not None:
                await consumer.committed(tp)

    async def _answers_others(self) -> bool:
        try:
            async with asyncio.timeout(_WATCH):
                await unbroken(self._clients.probe())
        except (TimeoutError, OSError, KafkaError):
            return False
        return True

    def doubt(self) -> None:
        """The group's own topics may have been deleted."""
        self.doubtful = True

    async def restore(self, seconds: float) -> None:
        """Make the group's topics again, if they were deleted and were made by us."""
        self.doubtful = True
        try:
            async with asyncio.timeout(seconds):
                await unbroken(self._gone())
        except Exception as error:  # noqa: BLE001 whatever aiokafka raises: it is stopping, and copies fail as they would
            log.debug("group %s: its topics could not be looked for: %r", self.group, error)

    async def _gone(self) -> NotProvisioned | None:
        """Were topics deleted under us? They are made again, if we had made them."""
        known = self.consumer._client.cluster  # noqa: SLF001 what it has learned anyway, by reading from them
        unknown = [topic for topic in self._channels if not known.partitions_for_topic(topic)]
        if self.doubtful:
            unknown += [self._provisioner.topic(address) for address in (self._group.retry, self._group.dead)]
        if not unknown:
            return None
        async with asyncio.timeout(_LOOK_UP):
            missing = sorted(set(unknown) - await self._topics.existing(unknown))
            if missing and await self._provisioner.restore(self._group):
                log.error(
                    "group %s: %s was deleted and is made again; what was in it is lost",
                    self.group,
                    ", ".join(missing),
                )
                missing = []
            if not missing:
                self.doubtful = False
                await self.consumer._client.force_metadata_update()  # noqa: SLF001 or it would wait until it is old
                return None
        return NotProvisioned(f"topic {', '.join(missing)} was deleted from Kafka")


def left_behind(mark: OffsetAndMetadata | None, *, survived: bool = False) -> tuple[Ranges, Sequence[int]]:
    """What the reader before us had settled above its mark, and the places of those that died."""
    if mark is None:
        return (), ()
    read, settled = decode(*mark)
    living, deaths = lives.read(*mark)
    return settled, [*deaths, read] if living and not survived else deaths

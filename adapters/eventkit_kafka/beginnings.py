"""Where groups begin: in each topic once as they are told to, and never anew.

How far a group has come are its committed offsets. They can be lost: a broker forgets what nobody reads for long, and
anyone may delete them. So a note among the group's dead letters, which are compacted and never expire, says what it has
begun to read. What stands there and has no offsets is read from its oldest record on: repeats, rather than a loss.

Only members may commit offsets of a group that runs. So where it begins with a topic that a next release adds is noted
there, too: who finds it first may die before it is a member, and others get the partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from uuid import uuid4

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.errors import CommitFailedError  # type: ignore[import-untyped]

from eventkit.adapter import Address, Group
from eventkit.names import Naming
from eventkit_kafka import codec
from eventkit_kafka.clients import Clients
from eventkit_kafka.publish import Publisher
from eventkit_kafka.reading import is_note, is_tombstone, scan
from eventkit_kafka.routes import Record
from eventkit_kafka.topics import Topics

log = logging.getLogger("eventkit.kafka")

_STARTS = "starts"
"""The header of a note that says where the group begins with topics; of others it says what has begun."""

_Place = tuple[int, bytes]
"""The partition and the key of a note."""


class Beginnings:
    """Of the groups that this process provisions."""

    def __init__(self, clients: Clients, topics: Topics, publisher: Publisher, naming: Naming) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._naming = naming
        self.starts: dict[tuple[str, TopicPartition], int] = {}
        """Where a running group begins with a topic that is new to it: only its members may commit that."""

    def forget(self, group: str) -> None:
        """It was removed, or its topics were deleted."""
        name = self._naming.group(group)
        for known in [start for start in self.starts if start[0] == name]:
            del self.starts[known]

    async def begin(self, group: Group, channels: Mapping[str, Address], made: Collection[str]) -> set[str]:
        """Write down where the group begins in each of these that is new to it. `made`: topics that were not there
        before. Those of which it has offsets now: they are to be noted."""
        name = self._naming.group(group.name)
        begun = await self._begun(name)
        new = [topic for topic in channels if topic not in begun]
        if not new:
            return begun
        # First where they end, then what is noted, then whether the group has begun. So of ten processes at once none
        # takes for an end what lies behind what was published after another had finished. And offsets are written
        # before the note: where it is there and they are not, they were lost.
        tps = [tp for found in (await self._topics.partitions(new)).values() for tp in found]
        oldest, ends = await self._topics.begins(tps), await self._topics.ends(tps)
        noted, notes = await self._noted(self._naming.channel("dead", group.name))
        begun = await self._begun(name)
        starts = _earliest(notes.values())
        offsets: dict[TopicPartition, int] = {}
        later: dict[TopicPartition, int] = {}
        lost: dict[TopicPartition, int] = {}
        for tp in tps:
            if tp.topic in begun:
                continue
            known = tp.topic in noted
            whole = known or group.start == "earliest" or _is_its_own(channels[tp.topic])
            offsets[tp] = oldest[tp] if whole else max(min(starts.get(tp, ends[tp]), ends[tp]), oldest[tp])
            if not whole and tp not in starts:  # an empty one, too: it has more by the time that the next one looks
                later[tp] = offsets[tp]
            if known and tp.topic not in made and ends[tp] > oldest[tp]:
                lost[tp] = ends[tp]
        old = [place for place, said in notes.items() if {tp.topic for tp in said} <= begun & noted]
        await self._forget_starts(group.name, old)
        if lost:
            self._say(group.name, oldest, lost)
        if offsets and not await self._topics.members(name):
            try:
                await self._topics.commit(name, offsets)
            except CommitFailedError:
                pass  # a member came at this moment
            else:
                return begun | {tp.topic for tp in offsets}
        for tp, offset in offsets.items():
            self.starts.setdefault((name, tp), offset)
        if later:
            await self._note_starts(group.name, later)
        return begun

    async def _note_starts(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        said = " ".join(f"{tp.partition}:{offset}:{tp.topic}" for tp, offset in sorted(offsets.items()))
        # under a key of its own: of several processes that find no note the earliest place counts
        key = f"{codec.NOTE}.{uuid4()}".encode()
        record = Record("", 0, key, said.encode(), [(codec.NOTE, _STARTS.encode())])
        (answer,) = await self._publisher.write([(Address("dead", group), record)])
        if answer is not None:
            log.warning(
                "group %s: where it begins with %s could not be noted among its dead letters: if this process dies, "
                "what is published before the next one starts is not read: %r",
                *(group, ", ".join(sorted({tp.topic for tp in offsets})), answer),
            )

    async def _forget_starts(self, group: str, notes: Collection[_Place]) -> None:
        """These say nothing any more: all that they name has begun since, and that is noted."""
        tombstones = [(Address("dead", group), Record("", partition, key, None, [])) for partition, key in notes]
        if any(await self._publisher.write(tombstones)):
            log.debug("group %s: old notes stay among its dead letters", group)

    async def note(self, begun: Mapping[str, Collection[str]]) -> None:
        """By group, the topics of which it has offsets. Written at each start: to know whether it is there, all dead
        letters would have to be read."""
        records = [
            (
                Address("dead", group),
                Record("", 0, codec.NOTE.encode(), ",".join(sorted(topics)).encode(), [(codec.NOTE, b"1")]),
            )
            for group, topics in begun.items()
            if topics
        ]
        answers = await self._publisher.write(records)
        for (address, _), answer in zip(records, answers, strict=True):
            if answer is not None:
                log.warning(
                    "group %s: what it reads could not be noted among its dead letters: if its committed offsets are "
                    "lost while it is down, what is published meanwhile is not read: %r",
                    address.name,
                    answer,
                )

    async def _begun(self, name: str) -> set[str]:
        return {tp.topic for tp in await self._topics.committed(name)}

    async def _noted(self, dead: str) -> tuple[set[str], dict[_Place, dict[TopicPartition, int]]]:
        """The topics that the group had begun to read, and the notes of where it is to begin with others."""
        noted: set[str] = set()
        notes: dict[_Place, dict[TopicPartition, int]] = {}
        if not await self._topics.existing([dead]):
            return noted, notes
        tps = (await self._topics.partitions([dead]))[dead]
        begins, ends = await self._topics.begins(tps), await self._topics.ends(tps)
        async for tp, record in scan(self._clients, begins, ends):
            place = (tp.partition, record.key or b"")
            if is_tombstone(record):
                notes.pop(place, None)
            if not is_note(record):
                continue
            said = (record.value or b"").decode()
            if record.headers[codec.NOTE] != _STARTS:
                noted = set(said.split(","))
                continue
            notes[place] = {
                TopicPartition(topic, int(partition)): int(offset)
                for partition, offset, topic in (one.split(":", 2) for one in said.split())
            }
        return noted, notes

    def _say(self, group: str, oldest: Mapping[TopicPartition, int], lost: Mapping[TopicPartition, int]) -> None:
        log.warning(
            "group %s: its committed offsets are gone from Kafka, as after offsets.retention.minutes in which nobody "
            "read, or deleted: it reads all that is kept, so that nothing is missed, and what it had handled comes "
            "again: %s. To begin elsewhere, stop it and set its offsets with kafka-consumer-groups --reset-offsets.",
            group,
            ", ".join(
                f"topic {tp.topic}, partition {tp.partition} (offsets {oldest[tp]} to {end - 1})"
                for tp, end in sorted(lost.items())
            ),
        )


def _earliest(notes: Iterable[Mapping[TopicPartition, int]]) -> dict[TopicPartition, int]:
    starts: dict[TopicPartition, int] = {}
    for said in notes:
        for tp, offset in said.items():
            starts[tp] = min(starts.get(tp, offset), offset)
    return starts


def _is_its_own(address: Address) -> bool:
    """Nobody else reads it, and nothing was in it before the group was."""
    return address.kind != "topic" and address.physical is None

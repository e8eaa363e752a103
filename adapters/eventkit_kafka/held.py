"""Messages of a retry topic that are not due yet.

Kafka delivers at once and in order, so they are read as they come and held here until they are due. Of most only offset
and time are kept: past a few megabytes a record is read again when its time has come.
"""

from __future__ import annotations

import heapq
import logging
import time
from datetime import UTC, datetime

from eventkit.adapter import Delivery, Message
from eventkit_kafka import codec
from eventkit_kafka.clients import Clients
from eventkit_kafka.lending import Lending
from eventkit_kafka.progress import WAITING, Tracker
from eventkit_kafka.reading import records_at
from eventkit_kafka.records import Record

log = logging.getLogger("eventkit.kafka")

RECORDS = 200_000
"""So many of one partition are held; then it is read no further until some are due, and later ones may be late."""
_BYTES = 8 * 1024 * 1024
_OVERHEAD = 1_000
"""What a record takes besides its body, about."""

Entry = tuple[float, int, int, Tracker, Record | None]
"""When due, in seconds since 1970; its turn; its offset; its partition; the record, or None: to be read again."""


class Held:
    """A heap by due time, over all retry partitions that this process reads."""

    def __init__(self, group: str, clients: Clients, lending: Lending) -> None:
        self._group = group
        self._clients = clients
        self._lending = lending
        self._heap: list[Entry] = []
        self._counts: dict[Tracker, int] = {}
        self._bytes = 0
        self._turn = 0

    def add(self, due: float, tracker: Tracker, record: Record) -> None:
        self._turn += 1  # of those due at one time the first read is the first out
        self._push((due, self._turn, record.offset, tracker, record if self._bytes < _BYTES else None))

    def full(self, tracker: Tracker) -> bool:
        """Is this partition to be read no further for now?"""
        return self._counts.get(tracker, 0) >= RECORDS

    def next_due(self) -> float | None:
        """Seconds since 1970; None: nothing is held."""
        return self._heap[0][0] if self._heap else None

    async def take_due(self, batch: list[Delivery], ahead: set[Tracker]) -> None:
        """Lend what is due, the longest due first: as much as there is room for, half of it if others come too. `ahead`
        gets those whose mark is to be written before."""
        if not self._heap or self._heap[0][0] > time.time():
            return
        room = self._lending.room
        entries = self._pop(time.time(), room if not batch else max(room // 2, min(room, 1)))
        if any(record is None for _, _, _, _, record in entries):
            entries = await self._read_again(entries)
        for _, _, offset, tracker, record in entries:
            # of a partition that is being taken away nothing more is begun: its next reader has it
            if record is not None and tracker.open and tracker.pending.get(offset) == WAITING:
                batch.append(self._lending.lend(tracker, offset, codec.decode_copy(tracker.address, record)))
                if not tracker.noted or offset < tracker.careful:
                    ahead.add(tracker)

    def drop(self, trackers: set[Tracker]) -> None:
        """Forget what belongs to these partitions: somebody else reads them now."""
        heap, self._heap = self._heap, []
        self._counts.clear()
        self._bytes = 0
        for entry in heap:
            if entry[3] not in trackers:
                self._push(entry)

    def take_out(self, tracker: Tracker, end: int) -> tuple[list[Message], list[Entry]]:
        """What is here of a log that was cut off at `end`, and is forgotten here: what it has no more, and what it has
        below that. The latter is read once more, unless the log is another one, see `missing`."""
        heap = self._heap
        self.drop({tracker})
        ours = [one for one in sorted(heap, key=lambda one: one[:2]) if one[3] is tracker]
        ours = [one for one in ours if tracker.pending.pop(one[2], None) is not None]
        return self._messages([one for one in ours if one[2] >= end]), [one for one in ours if one[2] < end]

    async def missing(self, doubtful: list[Entry]) -> list[Message]:
        """Those of one log that are not what it has now at their offsets: its topic was deleted and made again. All of
        them, where that cannot be seen."""
        tracker = doubtful[0][3]
        found: dict[int, Record] = {}
        try:
            found = await records_at(self._clients, tracker.tp, [offset for _, _, offset, _, _ in doubtful])
        except Exception as error:  # noqa: BLE001 whatever aiokafka raises
            log.debug("group %s: %s cannot be read: %r", self._group, tracker.tp, error)
        return self._messages([one for one in doubtful if not _is_there(one, found.get(one[2]))])

    def _messages(self, entries: list[Entry]) -> list[Message]:
        messages: list[Message] = []
        for due, _, _, tracker, record in entries:
            if record is not None:
                until = datetime.fromtimestamp(due, UTC) if due else None
                messages.append(codec.decode_copy(tracker.address, record)._replace(due=until))
        if lost := len(entries) - len(messages):
            log.error("group %s: Kafka has lost %d messages before they were due", self._group, lost)
        return messages

    async def _read_again(self, entries: list[Entry]) -> list[Entry]:
        """Fill in the records that were too many to keep."""
        absent: dict[Tracker, list[int]] = {}
        for _, _, offset, tracker, record in entries:
            if record is None and not tracker.cut and tracker.pending.get(offset) == WAITING:
                absent.setdefault(tracker, []).append(offset)
        try:
            found = {t: await records_at(self._clients, t.tp, offsets) for t, offsets in absent.items()}
        except BaseException:
            for entry in entries:
                self._push(entry)
            raise
        filled: list[Entry] = []
        for due, turn, offset, tracker, record in entries:
            # of a log that was cut off meanwhile the offsets are other records'
            again = record if record is not None or tracker.cut else found.get(tracker, {}).get(offset)
            if again is not None:
                filled.append((due, turn, offset, tracker, again))
            elif tracker.pending.pop(offset, None) is None:
                continue
            elif tracker.cut:
                log.error("group %s: Kafka has lost a message before it was due", self._group)
            else:
                log.warning("group %s: Kafka's retention dropped a message before it was due", self._group)
        return filled

    def _push(self, entry: Entry) -> None:
        _, _, _, tracker, record = entry
        heapq.heappush(self._heap, entry)
        self._counts[tracker] = self._counts.get(tracker, 0) + 1
        self._bytes += _size(record)

    def _pop(self, now: float, most: int) -> list[Entry]:
        taken: list[Entry] = []
        while self._heap and len(taken) < most and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            self._counts[entry[3]] -= 1
            self._bytes -= _size(entry[4])
            taken.append(entry)
        return taken


def _is_there(entry: Entry, found: Record | None) -> bool:
    due, _, _, _, record = entry
    if found is None or record is None:
        return found is not None and codec.due(found) == due
    return found[:4] == record[:4] and dict(found.headers) == dict(record.headers)


def _size(record: Record | None) -> int:
    return 0 if record is None else len(record.value or b"") + _OVERHEAD

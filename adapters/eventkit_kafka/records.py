"""Records as they lie in a broker's answer to a fetch (pure).

aiokafka makes two objects of each record and one of each of its headers; and of a batch with one header whose name is
no UTF-8, which any client can write, it reads nothing at all. Here a record becomes no more than a message needs.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode  # type: ignore[import-untyped]
from aiokafka.errors import CorruptRecordException  # type: ignore[import-untyped]
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]
from aiokafka.record.util import calc_crc32c, decode_varint  # type: ignore[import-untyped]

from eventkit_kafka.layouts import Layouts

_BATCH = struct.Struct(">qiibIhiqqqhii")
_START = struct.Struct(">qi4xb6xi")
"""First offset, length, version, and how much later the last offset is."""
_AFTER_LENGTH = 12
_CHECKED = 21
"""From here on a batch is covered by its checksum."""
_UNPACK: dict[int, Callable[[bytes], bytes]] = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
_PACKED, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20

_number: Any = decode_varint  # whose annotation is narrower than what it takes
_SHORT = [byte >> 1 if byte < 0x80 and not byte & 1 else -1 for byte in range(256)]
"""The number that is written as this one byte; -1: it is negative, or has more than one."""

Fields: TypeAlias = "tuple[int, int, bytes | None, bytes | None, Mapping[str, str]]"
"""Those of a `Record`: as a plain tuple they cost a quarter of it, and are taken apart for less."""


class Record(NamedTuple):
    """One record."""

    offset: int
    timestamp: int
    """Milliseconds since 1970."""
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]
    """By their names in `eventkit.headers`, without what is no text."""


class Unreadable(Exception):
    """A batch is damaged, or packed by a library that is not installed."""

    def __init__(self, offset: int, following: int, why: Exception) -> None:
        super().__init__(f"offset {offset}: {why!r}")
        self.following = following
        """The offset after the batch."""


class Stretch:
    """What one answer holds of one partition, read piece by piece."""

    def __init__(
        self, data: bytes, offset: int, layouts: Layouts, taken_back: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """From `offset` on. `taken_back`: the producers and first offsets of transactions that were."""
        self.at = offset
        """The offset after what was read of it."""
        self.end = offset
        """The offset after all that it holds."""
        self.size = len(data)
        self._data = data
        self._layouts = layouts
        self._batches: deque[tuple[int, int, int]] = deque()
        self._following = offset
        """The offset after the batch that is open."""
        self._ready: list[Fields] = []
        self._taken_back = deque(sorted(taken_back or (), key=lambda one: one[1]))
        self._aborted: set[int] = set()
        at = 0
        while at + _START.size <= len(data):
            base, length, version, last = _START.unpack_from(data, at)
            stop = at + _AFTER_LENGTH + length
            if stop > len(data) or length <= 0:
                break  # the broker cuts where the answer is full
            self.end = base + (last if version >= 2 else 0) + 1
            self._batches.append((at, stop, self.end))
            at = stop

    @property
    def finished(self) -> bool:
        """Is nothing left to read?"""
        return not self._ready and not self._batches

    def read(self, most: int) -> list[Fields]:
        """So many records, or as many as there are. Unreadable for a batch, once what is before it has been read."""
        found: list[Fields] = []
        while len(found) < most:
            if not self._ready:
                if not self._batches:
                    break
                try:
                    self._open()
                except Unreadable:
                    if found:
                        break
                    raise
            if (wanted := most - len(found)) < len(self._ready):
                found += self._ready[:wanted]
                del self._ready[:wanted]
                self.at = found[-1][0] + 1
            else:
                found += self._ready
                self._ready = []
                self.at = self._following
        return found

    def _open(self) -> None:
        place, stop, following = self._batches[0]
        try:
            records = self._records(place, stop)
        except Exception as error:
            raise Unreadable(self.at, max(following, self.at + 1), error) from error
        self._batches.popleft()
        self._following = max(following, self.at)
        at = self.at
        if records and records[0][0] < at:  # of a batch we want the end only
            records = [record for record in records if record[0] >= at]
        self._ready = records
        if not records:
            self.at = self._following

    def _records(self, place: int, stop: int) -> list[Fields]:
        data = self._data
        if data[place + 16] < 2:
            return _old(data[place:stop])
        base, _, _, _, checksum, attributes, _, first, latest, producer, _, _, count = _BATCH.unpack_from(data, place)
        if calc_crc32c(data[place + _CHECKED : stop]) != checksum:
            raise CorruptRecordException("the checksum is wrong")
        while self._taken_back and self._taken_back[0][1] <= base:
            self._aborted.add(self._taken_back.popleft()[0])
        if attributes & _CONTROL:
            if producer in self._aborted and _ends_badly(data[place:stop]):
                self._aborted.discard(producer)
            return []
        if attributes & _TRANSACTIONAL and producer in self._aborted:
            return []
        at = place + _BATCH.size
        if packed := attributes & _PACKED:
            data, at = bytes(_UNPACK[packed](data[at:stop])), 0
        return _read(data, at, count, base, first, latest if attributes & _APPEND_TIME else None, self._layouts)


def _read(
    data: bytes, at: int, count: int, base: int, first: int, written: int | None, layouts: Layouts
) -> list[Fields]:
    """`written`: when the broker wrote them all, where that counts."""
    records: list[Fields] = []
    headers_of, add, short, number = layouts.read, records.append, _SHORT, _number
    for _ in range(count):
        # A number of one byte costs half of a call if it is looked up. And where the data ends, that raises, to which
        # `number` does not look: begun inside of it, it comes to an end at the zero behind all bytes.
        if (length := short[data[at]]) >= 0:
            at += 1
        else:
            length, at = number(data, at)
        end = at + length
        if length < 0 or end > len(data):
            raise ValueError("a record is longer than its batch")
        if (later := short[data[at + 1]]) >= 0:  # after the attributes, of which there are none
            at += 2
        else:
            later, at = number(data, at + 1)
        if (offset := short[data[at]]) >= 0:
            at += 1
        else:
            offset, at = number(data, at)
        if (length := short[data[at]]) >= 0:
            at += 1
        else:
            length, at = number(data, at)
        key = None
        if length >= 0:
            key, at = data[at : at + length], at + length
        if (length := short[data[at]]) >= 0:
            at += 1
        else:
            length, at = number(data, at)
        value = None
        if length >= 0:
            value, at = data[at : at + length], at + length
        if at > end:
            raise ValueError("a record is shorter than it says")
        add((base + offset, written or first + later, key, value, headers_of(data[at:end])))
        at = end
    return records


def _old(data: bytes) -> list[Fields]:
    """Of the formats before Kafka 0.11."""
    batch: Any = MemoryRecords(data).next_batch()
    if not batch.validate_crc():
        raise CorruptRecordException("the checksum is wrong")
    return [(one.offset, one.timestamp or 0, one.key, one.value, {}) for one in batch]


def _ends_badly(data: bytes) -> bool:
    batch: Any = MemoryRecords(data).next_batch()
    return bool(ControlRecord.parse(next(batch).key) == ABORT_MARKER)

"""How far a partition has come: one mark for Kafka, and what is settled above it.

Kafka keeps one number for a partition, the first offset that is not settled. What was settled out of order above it is
written into the commit's metadata, so that whoever reads the partition next leaves it out.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import deque
from collections.abc import Iterable, Sequence

from aiokafka import TopicPartition  # type: ignore[import-untyped]

from eventkit.adapter import Address
from eventkit_kafka import lives

LENT, WAITING, MOVING = 0, -1, -2
"""An offset's state: delivered (0, or how often it had been given back before, so that an earlier arrival settles
nothing); read, but not delivered (not due, or given back); its copy is being published."""

METADATA = 4096
"""Characters of metadata that Kafka takes with a commit (`offset.metadata.max.bytes`)."""
_MARK, _ZIPPED = "ek1:", "ek1z:"
_LONGEST = 1 << 20
_WIDEST = 63
"""Bits of an offset."""
_CAREFUL = 10_000
"""Messages past the last death: more than a reader gets through before its mark is written down."""

Ranges = Sequence[tuple[int, int]]
"""Half-open, ascending, apart from each other."""


class Tracker:
    """One partition, from its assignment to its revocation. A settlement that comes later finds nothing here."""

    __slots__ = (
        "address",
        "careful",
        "cut",
        "deaths",
        "delivered",
        "next",
        "noted",
        "open",
        "pending",
        "prefix",
        "settled",
        "touched",
        "tp",
        "written",
    )

    def __init__(self, tp: TopicPartition, address: Address, settled: Ranges, deaths: Sequence[int] = ()) -> None:
        self.tp = tp
        self.address = address
        self.prefix = f"{tp.partition}:"
        self.pending: dict[int, int] = {}
        """Offsets that were read and are not settled, ascending, with their state."""
        self.next: int | None = None
        """The offset after the last that was read. None: nothing was read yet."""
        self.delivered: int | None = 0 if address.kind == "retry" else None
        """The offset after the last that was delivered, where that is not what was read: most in a retry topic is read
        long before it is due, and who dies meanwhile does not die of that."""
        self.settled = deque(settled)
        """What was settled before our time, not read yet."""
        self.open = True
        """False: it is being revoked, nothing more is delivered from it."""
        self.cut = False
        """Has Kafka lost what is in hand of it? Then nobody takes that away, and it cannot be given back."""
        self.touched = False
        """Has anything changed since the last commit?"""
        self.written = 0.0
        """When that was, by the loop's clock."""
        self.deaths = list(deaths)
        """How far those had read that died with this partition: what is not settled before that, they had in hand."""
        self.noted = False
        """Is it written down that we deliver of it?"""
        self.careful = max(deaths, default=-_CAREFUL) + _CAREFUL
        """What is below this offset is written down before it is delivered: it may be what kills."""

    def count(self, offset: int) -> int:
        """Which delivery this is, from 1, of those that began with a new reader."""
        deaths = self.deaths
        return 1 + sum(offset < place for place in deaths) if deaths else 1

    def skips(self, offset: int) -> bool:
        """Was it settled before our time? To be asked in ascending order."""
        settled = self.settled
        while settled and settled[0][1] <= offset:
            settled.popleft()
        return bool(settled) and settled[0][0] <= offset

    def mark(self, room: int = METADATA) -> tuple[int, str] | None:
        """The offset and the metadata to commit. None: there is nothing to say yet."""
        if self.next is None:
            return None
        watermark = next(iter(self.pending), self.next)
        ranges: list[tuple[int, int]] = []
        at = watermark
        for offset in self.pending:
            if offset > at:
                ranges.append((at, offset))
            at = offset + 1
        if self.next > at:
            ranges.append((at, self.next))
        for start, stop in self.settled:
            if stop > self.next:
                ranges.append((max(start, self.next), stop))
        said = lives.write(watermark, self.deaths, living=self.open)
        if len(said) > room:
            said = ""
        read = self.next if self.delivered is None else self.delivered
        return watermark, encode(watermark, read, ranges, room - len(said)) + said

    def complete(self, room: int = METADATA) -> bool:
        """Does all that is settled above the mark fit into its metadata?"""
        mark = self.mark(_LONGEST)
        return mark is None or len(mark[1]) <= room

    def highest_settled(self) -> int:
        """The last offset that was read and is settled; -1: none is."""
        at = (self.next or 0) - 1
        for offset in reversed(self.pending):
            if offset != at:
                return at
            at -= 1
        return -1

    def lent(self) -> int:
        """How many deliveries the core has, those with a copy on its way included."""
        return sum(1 for state in self.pending.values() if state != WAITING)


def encode(watermark: int, read: int, settled: Ranges, room: int = METADATA) -> str:
    """As metadata: how far it was delivered, and what is settled above `watermark`. What does not fit is left out, the
    highest first: it is then delivered again if this process dies."""
    if read <= watermark and not settled:
        return ""
    ranges = list(settled)
    while True:
        numbers = [max(read - watermark, 0)]
        at = watermark
        for start, stop in ranges:
            numbers += (start - at, stop - start)
            at = stop
        raw = b"".join(map(_varint, numbers))
        text = _MARK + base64.b64encode(raw).decode()
        if len(text) > 200:
            text = min(text, _ZIPPED + base64.b64encode(zlib.compress(raw, 1)).decode(), key=len)
        if len(text) <= room:
            return text
        if not ranges:
            return ""
        del ranges[len(ranges) * 3 // 4 :]


def decode(watermark: int, metadata: str) -> tuple[int, list[tuple[int, int]]]:
    """How far it was read, and what is settled above `watermark`. Anything that we did not write says nothing."""
    nothing: tuple[int, list[tuple[int, int]]] = (watermark, [])
    metadata = lives.rest(metadata)
    try:
        if metadata.startswith(_MARK):
            raw = base64.b64decode(metadata[len(_MARK) :], validate=True)
        elif metadata.startswith(_ZIPPED):
            unzip = zlib.decompressobj()
            raw = unzip.decompress(base64.b64decode(metadata[len(_ZIPPED) :], validate=True), _LONGEST)
            if not unzip.eof:
                return nothing
        else:
            return nothing
        numbers = _numbers(raw)
    except (binascii.Error, zlib.error, ValueError):
        return nothing
    if len(numbers) % 2 == 0:
        return nothing
    ranges = []
    at = watermark
    for gap, length in zip(numbers[1::2], numbers[2::2], strict=True):
        if length < 1:
            return nothing
        ranges.append((at + gap, at + gap + length))
        at += gap + length
    return watermark + numbers[0], ranges


def reached(watermark: int, metadata: str) -> int:
    """The offset after all that had been read or settled by then."""
    read, settled = decode(watermark, metadata)
    return max([read, *(stop for _, stop in settled[-1:])])


def count(ranges: Iterable[tuple[int, int]]) -> int:
    """How many offsets these are."""
    return sum(stop - start for start, stop in ranges)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _numbers(raw: bytes) -> list[int]:
    numbers, number, shift = [], 0, 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > _WIDEST:
                raise ValueError("no offset")
        else:
            numbers.append(number)
            number = shift = 0
    if shift or not numbers:
        raise ValueError("cut short")
    return numbers

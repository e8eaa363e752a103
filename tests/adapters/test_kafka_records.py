"""Records as the Kafka adapter reads them, beside aiokafka's own reading of the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("eventkit_kafka")

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from eventkit import headers as h
from eventkit.headers import Alike
from eventkit_kafka.layouts import Layouts, varint
from eventkit_kafka.records import Record, Stretch, Unreadable

Raw = Sequence[tuple[str, bytes | None]]
_CONTROL, _TRANSACTIONAL, _ABORT = 0x20, 0x10, struct.pack(">HH", 0, 0)


class Written(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Raw
    time: int = 1_700_000_000_000


def batch(base: int, records: Sequence[Written], *, packed: int = 0, producer: int = -1, attributes: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, packed, bool(attributes & _TRANSACTIONAL), producer, 0, 0, 1 << 24)
    for offset, one in enumerate(records):
        builder.append(offset, one.time, one.key, one.value, list(one.headers))
    raw = builder.build()
    struct.pack_into(">q", raw, 0, base)
    struct.pack_into(">h", raw, 21, struct.unpack_from(">h", raw, 21)[0] | attributes)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


def some(*values: bytes) -> list[Written]:
    return [Written(None, value, ()) for value in values]


def read(stretch: Stretch, most: int = 1_000) -> list[Record]:
    return [Record(*fields) for fields in stretch.read(most)]


def values(stretch: Stretch, most: int = 1_000) -> list[bytes | None]:
    return [record.value for record in read(stretch, most)]


_bytes = st.one_of(st.none(), st.binary(max_size=200))
_names = st.one_of(st.sampled_from(["ce_id", "ce_type", "content-type", "ce_dataversion", "x"]), st.text(max_size=9))
_headers = st.lists(
    st.tuples(_names, st.one_of(_bytes, st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))),
    max_size=5,
)
_times = st.integers(0, 2**42)
_written = st.builds(Written, _bytes, _bytes, _headers, _times)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(_written, min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from([0, 0, 1, 2, 3, 4]),
    st.integers(1, 5),
)
def test_they_are_what_aiokafka_reads(batches: list[list[Written]], packed: int, most: int) -> None:
    raw, base = b"", 0
    for records in batches:
        raw += batch(base, records, packed=packed)
        base += len(records) + 2  # as compaction leaves gaps
    theirs, memory = [], MemoryRecords(raw)
    while memory.has_next():
        theirs += list(memory.next_batch())  # type: ignore[arg-type]
    stretch = Stretch(raw + raw[:30], 0, layouts := Layouts())  # what is cut off does not count
    ours: list[Record] = []
    while not stretch.finished:
        ours += read(stretch, most)
        assert stretch.at == (ours[-1].offset + 1 if len(ours) < len(theirs) else stretch.end) or not stretch._ready
    assert stretch.end == stretch.at == base - 2
    for again in (ours, read(Stretch(raw, 0, layouts))):  # the second time, their layouts are known
        assert [(r.offset, r.timestamp, r.key, r.value) for r in again] == [
            (r.offset, r.timestamp, r.key, r.value) for r in theirs
        ]
        for mine, other in zip(again, theirs, strict=True):
            wanted = {
                "ce-" + name[3:] if name.startswith("ce_") else name: text
                for name, value in other.headers
                if (text := h.text(value)) is not None
            }
            assert dict(mine.headers) == wanted == {name: mine.headers.get(name) for name in wanted}
            assert mine.headers == wanted
            assert len(mine.headers) == len(wanted)
            assert "absent" not in mine.headers
            assert mine.headers.get("absent") is None


def test_what_has_the_same_layout_is_read_by_it() -> None:
    layouts = Layouts()
    written = [
        Written(None, b"", [("ce_id", b"%04d" % n), ("ce_type", b"Placed"), ("content-type", b"application/json")])
        for n in range(3)
    ]
    first, second, third = read(Stretch(batch(0, written), 0, layouts))
    assert not isinstance(first.headers, Alike)
    assert isinstance(second.headers, Alike)
    assert dict(second.headers) == {h.ID: "0001", h.TYPE: "Placed", h.CONTENT_TYPE: "application/json"}
    assert third.headers[h.ID] == "0002"
    with pytest.raises(KeyError):
        third.headers["absent"]


@pytest.mark.parametrize(
    "other",
    [
        [("ce_id", b"0001"), ("x", b"b"), ("content-type", b"application/json")],
        [("ce_id", b"0001"), ("y", b"a"), ("content-type", b"application/json")],
        [("ce_id", b"0001"), ("x", b"a"), ("content-type", b"application/jsom")],
        [("ce_id", b"00\xc3\xa9"), ("x", b"a"), ("content-type", b"application/json")],
        [("ce_id", b"\xff\xff\xff\xff"), ("x", b"a"), ("content-type", b"application/json")],
        [("ce_id", b"001"), ("xx", b"a"), ("content-type", b"application/json")],
        [("ce_id", b"01"), ("xx", b"aa"), ("content-type", b"application/json")],
    ],
)
def test_of_one_length_but_of_another_layout(other: Raw) -> None:
    alike: Raw = [("ce_id", b"0000"), ("x", b"a"), ("content-type", b"application/json")]
    records = read(Stretch(batch(0, [Written(None, b"", headers) for headers in (alike, alike, other)]), 0, Layouts()))
    wanted = {name.replace("ce_", "ce-"): text for name, value in other if (text := h.text(value)) is not None}
    assert dict(records[2].headers) == wanted


def test_layouts_are_bounded() -> None:
    layouts = Layouts()
    for number in range(2_000):
        headers = [(f"{number:04}", b"v"), ("x" * (number % 100), b"")]
        (record,) = read(Stretch(batch(0, [Written(None, b"", headers)]), 0, layouts))
        assert record.headers[f"{number:04}"] == "v"
    assert layouts._count <= 500


def test_only_from_the_wanted_offset_on() -> None:
    stretch = Stretch(batch(10, some(b"1", b"2", b"3")), 11, Layouts())
    assert [(record.offset, record.value) for record in read(stretch, 1)] == [(11, b"2")]
    assert (stretch.at, stretch.end, stretch.finished) == (12, 13, False)
    assert values(stretch) == [b"3"]
    assert (stretch.at, stretch.finished) == (13, True)


def test_what_is_damaged_is_said_when_the_rest_was_read() -> None:
    good, bad = batch(0, some(b"1", b"2")), bytearray(batch(2, some(b"3", b"4")))
    bad[-1] ^= 1
    stretch = Stretch(good + bytes(bad) + batch(4, some(b"5")), 0, Layouts())
    assert values(stretch) == [b"1", b"2"]
    assert stretch.at == 2
    for _ in range(2):
        with pytest.raises(Unreadable, match="offset 2") as raised:
            stretch.read(10)
        assert raised.value.following == 4


def test_records_that_say_they_are_longer_than_their_batch() -> None:
    raw = bytearray(batch(0, some(b"one", b"two")))
    raw[61] = 0x7E  # the length of the first
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    with pytest.raises(Unreadable):
        Stretch(bytes(raw), 0, Layouts()).read(10)


@pytest.mark.parametrize("last", range(1, 20))
def test_a_number_that_does_not_end_where_the_data_does(last: int) -> None:
    raw = bytearray(batch(0, some(b"the value of one")))
    raw[-last:] = b"\xff" * last
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    with pytest.raises(Unreadable):
        Stretch(bytes(raw), 0, Layouts()).read(10)


def test_what_a_transaction_took_back_is_not_read() -> None:
    end = [Written(_ABORT, b"", ())]
    raw = (
        batch(0, some(b"1"), producer=7, attributes=_TRANSACTIONAL)
        + batch(1, some(b"kept"), producer=8, attributes=_TRANSACTIONAL)
        + batch(2, end, producer=7, attributes=_TRANSACTIONAL | _CONTROL)
        + batch(3, some(b"later"), producer=7, attributes=_TRANSACTIONAL)
        + batch(4, [Written(struct.pack(">HH", 0, 1), b"", ())], producer=7, attributes=_TRANSACTIONAL | _CONTROL)
    )
    stretch = Stretch(raw, 0, Layouts(), [(7, 0)])
    assert values(stretch) == [b"kept", b"later"]
    assert stretch.at == stretch.end == 5


def test_times_that_the_broker_sets() -> None:
    written = [Written(None, b"1", (), 1_000), Written(None, b"2", (), 3_000)]
    assert [r.timestamp for r in read(Stretch(batch(0, written), 0, Layouts()))] == [1_000, 3_000]
    assert [r.timestamp for r in read(Stretch(batch(0, written, attributes=0x08), 0, Layouts()))] == [3_000, 3_000]


@pytest.mark.parametrize("magic", [0, 1])
def test_the_formats_before_headers(magic: Literal[0, 1]) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
    for offset, value in enumerate((b"1", b"2")):
        builder.append(offset, timestamp=1_000, key=b"k", value=value)
    stretch = Stretch(bytes(builder.build()), 0, Layouts())
    assert [(r.offset, r.key, r.value, dict(r.headers)) for r in read(stretch)] == [
        (0, b"k", b"1", {}),
        (1, b"k", b"2", {}),
    ]
    assert stretch.finished


@pytest.mark.parametrize("number", [0, 1, -1, 63, 64, -64, -65, 300, 2**31 - 1, -(2**31), 2**62])
def test_numbers(number: int) -> None:
    zigzag = number << 1 ^ number >> 63
    raw = bytearray()
    while zigzag > 0x7F:
        raw.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    raw.append(zigzag)
    assert varint(bytes(raw), 0) == (number, len(raw))

"""Whatever arrives: decoding gives a message, or the one error that is made for it; and a group goes on."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventkit import Bus, Command, CommandFailed, CommandRejected, Event, Service, UndecodableMessage, letter, replies
from eventkit import headers as h
from eventkit.adapter import Address, Connection, Delivery, Group, Message
from eventkit.contract.checks import eventually
from eventkit.copies import attempt, back, dead, origin, redrive, retry, suspicion, waits
from eventkit.memory import MemoryAdapter, Store
from eventkit.wire import JSON_SERIALIZER, decode, received, unwrap, version
from tests.models import nasty

TOPIC, INBOX, RETRY, DEAD = (
    Address("topic", "fuzzed"),
    Address("inbox", "fuzzed"),
    Address("retry", "fuzzed"),
    Address("dead", "fuzzed"),
)
GROUP = Group("fuzzed", (TOPIC, INBOX))

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Told(Event, topic="fuzzed", key="key", version=3):
    number: int = 0
    key: str | None = None


@Told.upcast(from_version=1)
def _second(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "number": data["old"]}


class Ask(Command[int], service="fuzzed"):
    number: int


def usable(message: Message) -> None:
    """All that the core asks of a message. Nothing but the typed error."""
    delivery = Delivery(message, "7", 1, None)
    with suppress(UndecodableMessage):
        decode(unwrap(message), Told)
    with suppress(UndecodableMessage):
        back(delivery)
    for read in (attempt, waits, origin, suspicion, version):
        read(message)
    why = ValueError("\ud800")
    for copy in (
        dead(delivery, GROUP, reason=letter.Reason.UNDECODABLE, error=why, attempt=1, failed_at=nasty.NOW),
        retry(delivery, GROUP, attempt=2, due=None, failed_at=nasty.NOW),
        redrive(message, GROUP),
    ):
        assert copy.body == message.body
    letter.read(delivery, JSON_SERIALIZER)
    with suppress(UndecodableMessage, CommandFailed, CommandRejected):
        replies.read(message, int)


@quick
@given(nasty.headers, nasty.bodies, nasty.keys)
def test_the_core_reads_whatever_comes(headers: dict[str, str], body: bytes | None, key: str | None) -> None:
    usable(received(TOPIC, headers, body, key))


@pytest.mark.parametrize("name", nasty.NAMES)
def test_the_core_reads_each_header_whatever_it_says(name: str) -> None:
    for text in nasty.TEXTS:
        usable(received(TOPIC, {h.ID: "7", h.TYPE: "Told", name: text}, b'{"number": 1}'))


# what each adapter makes of bytes

_pairs = st.lists(st.tuples(st.text(max_size=8), st.one_of(st.none(), st.binary(max_size=12))), max_size=6)
_lines = st.lists(st.binary(max_size=20), max_size=5).map(
    lambda lines: b"NATS/1.0\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"
)
_known = nasty.headers.map(
    lambda found: (
        b"NATS/1.0\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in found.items()).encode("utf-8", "surrogatepass")
        + b"\r\n"
    )
)


@quick
@given(st.one_of(st.none(), st.binary(max_size=60), _lines, _known), st.binary(max_size=20))
def test_nats_reads_whatever_comes(headers: bytes | None, body: bytes) -> None:
    codec = pytest.importorskip("eventkit_nats.codec")
    for address in (TOPIC, RETRY, DEAD):
        usable(codec.decode(address, headers, body))


_envelopes = st.builds(
    lambda version, start, end, rest: b"\x89BIN\x0d\x0a\x1a\x0a" + struct.pack(">HII", version, start, end) + rest,
    st.sampled_from([1, 1, 1, 2]),
    st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1)),
    st.one_of(st.integers(0, 80), st.integers(0, 2**32 - 1)),
    st.binary(max_size=80),
)


@quick
@given(
    st.one_of(st.binary(max_size=60), nasty.json_bodies, nasty.faststreams_bodies, _envelopes),
    st.lists(st.binary(max_size=10), max_size=6),
)
def test_redis_reads_whatever_comes(data: bytes, fields: list[bytes]) -> None:
    codec = pytest.importorskip("eventkit_redis.codec")
    usable(codec.message(TOPIC, [codec.FIELD, b'{"data": "\\ud800", "headers": {"\\ud801": "\\ud802"}}']))
    for entry in ([codec.FIELD, data], [b"data", data], fields, [*fields, data]):
        usable(codec.message(TOPIC, entry))


@quick
@given(nasty.headers, nasty.bodies, st.data())
def test_redis_reads_its_own_form_cut_and_spoilt(
    headers: dict[str, str], body: bytes | None, data: st.DataObject
) -> None:
    codec = pytest.importorskip("eventkit_redis.codec")
    whole = codec.encode(received(TOPIC, headers, body), fit=True)
    at = data.draw(st.integers(0, len(whole)))
    byte = data.draw(st.binary(max_size=2))
    usable(codec.message(TOPIC, [codec.FIELD, whole[:at]]))
    usable(codec.message(TOPIC, [codec.FIELD, whole[:at] + byte + whole[at + len(byte) :]]))


_properties = st.builds(
    lambda flags, rest: b"\0\x3c\0\0" + bytes(8) + struct.pack(">H", flags) + rest,
    st.integers(0, 0xFFFF),
    st.one_of(
        st.binary(max_size=80),
        st.lists(st.tuples(st.sampled_from(b"tbBsuIilLfdDTAFVxSz"), st.binary(max_size=12)), max_size=5).map(
            lambda rows: _table([bytes((1, 0x61 + at, kind)) + value for at, (kind, value) in enumerate(rows)])
        ),
    ),
)


def _table(rows: Sequence[bytes]) -> bytes:
    whole = b"".join(rows)
    return struct.pack(">I", len(whole)) + whole


@quick
@given(st.one_of(st.binary(max_size=60), _properties), st.binary(max_size=20))
def test_rabbit_reads_whatever_comes(header: bytes, body: bytes) -> None:
    reading = pytest.importorskip("eventkit_rabbit.decode")
    delay = pytest.importorskip("eventkit_rabbit.delay")
    found = reading.decode(header)
    if found.until is not None:
        delay.moment(found.until)
    assert reading.position(found, body)
    usable(reading.read(TOPIC, found, body))


_KAFKAS = ("ek-held-until", "ek-reply", "ek-no-body")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_records = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([*nasty.NAMES, "ce_id", *_KAFKAS]), st.text(max_size=8)),
        st.one_of(st.none(), st.binary(max_size=12), nasty.texts.map(_raw)),
    ),
    max_size=6,
)  # fmt: skip


@quick
@given(_records, st.one_of(st.none(), st.binary(max_size=12)), nasty.bodies)
def test_kafka_reads_whatever_comes(headers: list[tuple[str, bytes]], key: bytes | None, body: bytes | None) -> None:
    codec = pytest.importorskip("eventkit_kafka.codec")
    record = _as_read(headers, key, body)
    assert codec.due(record) >= 0
    usable(codec.decode(TOPIC, record))
    for address in (RETRY, DEAD):
        usable(codec.decode_copy(address, record))


@pytest.mark.parametrize("text", nasty.TEXTS)
def test_kafka_reads_whatever_time_is_said(text: str) -> None:
    codec = pytest.importorskip("eventkit_kafka.codec")
    assert codec.due(_as_read([(codec.HELD_UNTIL, _raw(text))], None, b"")) >= 0


def _as_read(headers: list[tuple[str, bytes]], key: bytes | None, body: bytes | None) -> Any:
    """From a batch, as it comes over the wire."""
    from aiokafka.record.default_records import DefaultRecordBatchBuilder

    from eventkit_kafka.layouts import Layouts
    from eventkit_kafka.records import Record, Stretch

    batch = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    batch.append(0, 0, key, body, [*headers])
    (fields,) = Stretch(bytes(batch.build()), 0, Layouts()).read(1)
    return Record(*fields)


@quick
@given(
    st.integers(0, 2**40), st.one_of(st.text(max_size=60), st.binary(max_size=40).map(lambda raw: "ek1:" + raw.hex()))
)
def test_kafka_reads_whatever_metadata(watermark: int, metadata: str) -> None:
    progress = pytest.importorskip("eventkit_kafka.progress")
    lives = pytest.importorskip("eventkit_kafka.lives")
    read, settled = progress.decode(watermark, metadata)
    assert read >= watermark
    assert all(start < stop and start >= watermark for start, stop in settled)
    lives.read(watermark, metadata)


# and a group that gets them goes on


_messages = st.lists(st.tuples(nasty.headers, nasty.bodies, nasty.keys), min_size=1, max_size=15)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_messages)
def test_a_group_outlives_whatever_comes(
    given_: list[tuple[dict[str, str], bytes | None, str | None]],
) -> None:
    failures = _listen("eventkit")
    service = Service("fuzzed")
    fine: list[int] = []

    @service.handler
    async def told(event: Told) -> None:
        fine.append(event.number)

    @service.handler
    async def ask(command: Ask) -> int:
        return command.number

    async def main() -> None:
        adapter = MemoryAdapter(Connection(url=None, namespace="", client="t"), store=Store())
        async with Bus(adapter, source="t") as bus, bus.run(service) as running:
            for address in (TOPIC, INBOX):
                answers = await adapter.publish([received(address, *rest) for rest in given_])
                assert not any(answers)
            await bus.publish(Told(number=-7))
            await eventually(lambda: -7 in fine and not running.at_work, "the healthy one behind them is handled", 10.0)
            assert running.health().ok

    with failures as said:
        asyncio.run(main())
    assert not said


class _listen:  # noqa: N801 used as a function
    """What a logger says of eventkit's own failures."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)
        self._said: list[str] = []
        self._handler = logging.Handler()
        self._handler.emit = self._emit  # type: ignore[method-assign]

    def _emit(self, record: logging.LogRecord) -> None:
        if "eventkit itself failed" in record.msg:
            self._said.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")

    def __enter__(self) -> list[str]:
        self._level = self._log.level
        self._log.addHandler(self._handler)
        self._log.setLevel(logging.ERROR)
        return self._said

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self._handler)
        self._log.setLevel(self._level)

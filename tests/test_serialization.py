"""Serializers through all that a message may go through: retry, dead letter, redrive, request and reply; in memory and
on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import fastavro
import msgpack
import pytest
from pydantic import BaseModel

import eventkit
from eventkit import Command, Context, Event, GiveUp, InvalidMessage, Retry, Serializer, Service, UndecodableMessage
from eventkit import headers as h
from eventkit.asyncapi import document
from eventkit.contract.checks import eventually, fresh_namespace
from eventkit.contract.letters import listed
from eventkit.testing.brokers import NAMES, Broker
from eventkit.wire import decode
from examples.middleware.sealed import Sealed
from examples.serialization.avro import Avro
from examples.serialization.messages import FIRST, Measured
from examples.serialization.packed import Msgpack
from tests.wanted import wanted

M = TypeVar("M", bound=BaseModel)

AT = datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
_WEIGHED = {
    "type": "record",
    "name": "Weighed",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "kilos", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}
_WEIGH = {"type": "record", "name": "Weigh", "fields": [{"name": "name", "type": "string"}]}
KEYS = {"old": bytes(32), "new": bytes(range(32))}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = wanted(metafunc.config)
        metafunc.parametrize("name", ["memory", *[name for name in NAMES if name in names][:1]])


class Weight(BaseModel):
    kilos: Decimal


@dataclass
class Shop:
    """A service, and the messages that it speaks."""

    service: Service
    event: type[Any]
    command: type[Any]
    event_type: str
    """The content type of the event; the reply is written by `reply`."""
    connect: dict[str, Any]
    """Of who publishes and asks."""
    runs_with: dict[str, Any] = field(default_factory=dict)
    """Of the bus that its service runs on."""


class Counting:
    """A serializer that says what it wrote."""

    def __init__(self, inner: Serializer) -> None:
        self.inner = inner
        self.content_type = inner.content_type
        self.wrote: list[str] = []

    def encode(self, message: BaseModel, /) -> bytes:
        self.wrote.append(type(message).__name__)
        return self.inner.encode(message)

    def decode(self, body: bytes, as_: type[M], /) -> M:
        return self.inner.decode(body, as_)

    def data(self, body: bytes, /) -> object:
        return self.inner.data(body)


def msgpack_of_the_service() -> tuple[Shop, Counting]:
    packed = Counting(Msgpack())
    return _shop({}, {}, Service("scale", serializer=packed, retry=_RETRY), serializer=packed), packed


def avro_of_the_classes() -> tuple[Shop, Counting]:
    written = Counting(Avro(_WEIGHED))
    replies = Counting(Msgpack())  # a reply is another record: this command has a format of its own
    shop = _shop({"serializer": written}, {"serializer": replies}, Service("scale", retry=_RETRY))
    return shop, written


def sealed_on_the_bus() -> tuple[Shop, Counting]:
    sealed = Counting(Sealed(KEYS, current="new", inner=Msgpack()))
    shop = _shop({}, {}, Service("scale", retry=_RETRY), serializer=sealed)
    shop.runs_with = shop.connect
    return shop, sealed


_RETRY = Retry(attempts=2, first_delay=eventkit.Retry().first_delay / 100, jitter=0)


def _shop(event: dict[str, Any], command: dict[str, Any], service: Service, **connect: Any) -> Shop:
    class Weighed(Event, topic="weighed", key="name", **event):
        name: str
        kilos: Decimal
        at: datetime

    class Weigh(Command[Weight], service="scale", **command):
        name: str

    written = event.get("serializer") or connect.get("serializer")
    return Shop(service, Weighed, Weigh, written.content_type, connect)


ALL = [msgpack_of_the_service, avro_of_the_classes, sealed_on_the_bus]


@pytest.mark.parametrize("made", ALL)
def test_through_retry_dead_letter_redrive_and_reply(
    name: str, made: Callable[[], tuple[Shop, Counting]], broker: Callable[[str], Broker]
) -> None:
    shop, serializer = made()
    service, wrong = shop.service, True
    seen: list[tuple[object, int, str]] = []

    async def weighed(event: Any, context: Context) -> None:
        seen.append((event, context.attempt, context.delivery.message.headers[h.CONTENT_TYPE]))
        if wrong:
            raise ValueError("it cannot be weighed")

    async def weigh(command: Any) -> Weight:
        return Weight(kilos=Decimal("12.50"))

    weighed.__annotations__["event"] = shop.event
    weigh.__annotations__["command"] = shop.command
    service.handler(weighed)
    service.handler(weigh)
    event = shop.event(name="a crate", kilos=Decimal("3.25"), at=AT)

    async def main() -> None:
        nonlocal wrong
        url = None if name == "memory" else broker(name).url
        namespace = fresh_namespace()
        async with (
            eventkit.connect(name, url, namespace=namespace, **shop.runs_with) as runs,
            eventkit.connect(name, url, namespace=namespace, **shop.connect) as bus,
            runs.run(service),
        ):
            written = bus.encode(event)
            assert written.headers[h.CONTENT_TYPE] == shop.event_type
            await bus.publish(event)
            (letter,) = await listed(bus, "scale", 1)
            assert letter.attempts == 2
            assert letter.message.headers[h.CONTENT_TYPE] == shop.event_type
            assert b"crate" not in (letter.body or b"") or not isinstance(serializer.inner, Sealed)
            assert letter.read(shop.event) == event
            (same,) = await listed(runs, "scale", 1)  # this bus knows nothing of the service's own serializer
            assert same.read(shop.event, serializer=service.serializer) == event
            wrong = False
            assert await bus.dead_letters("scale").retry(all=True) == 1
            await eventually(lambda: len(seen) == 3, "the redriven one is handled")
            assert seen == [(event, attempt, shop.event_type) for attempt in (1, 2, 1)]
            assert await bus.request(shop.command(name="a crate")) == Weight(kilos=Decimal("12.50"))

    asyncio.run(main())
    if shop.connect:
        assert "Weight" in serializer.wrote, "a reply that is a model is written by it, too"


def test_the_document_says_what_stands_on_the_wire() -> None:
    def said(shop: Shop, **options: Any) -> dict[str, str]:
        async def weighed(event: Any) -> None: ...
        async def weigh(command: Any) -> Weight: ...

        weighed.__annotations__ = {"event": shop.event, "return": None}
        weigh.__annotations__ = {"command": shop.command, "return": Weight}
        service = Service("scale", serializer=shop.service.serializer, publishes=(shop.event,))
        service.handler(weighed)
        service.handler(weigh)
        found = document(service, **options)["components"]["messages"]
        for message in found.values():
            written = message["headers"]["properties"]["content-type"]
            assert message["contentType"] in (written.get("const"), written.get("default"), *written.get("enum", ()))
        return {message["title"]: message["contentType"] for message in found.values()}

    packed, avro, json, sealed = (
        "application/msgpack",
        "application/avro",
        "application/json",
        "application/x-sealed",
    )
    by_service = said(msgpack_of_the_service()[0])
    assert by_service == {
        "Weighed": packed,
        "Weigh": packed,
        "Reply to Weigh": packed,
        "Failed": json,
        "Rejected": json,
    }
    by_class = said(avro_of_the_classes()[0])
    assert (by_class["Weighed"], by_class["Weigh"], by_class["Reply to Weigh"]) == (avro, packed, packed)
    by_bus = said(sealed_on_the_bus()[0], content_type=sealed)
    assert (by_bus["Weighed"], by_bus["Weigh"], by_bus["Reply to Weigh"]) == (sealed, sealed, sealed)


def test_who_does_not_share_the_format_is_told() -> None:
    shop, _ = msgpack_of_the_service()
    message = eventkit.connect("memory", **shop.connect).encode(shop.event(name="a", kilos=Decimal(1), at=AT))
    with pytest.raises(UndecodableMessage, match="'application/msgpack' is neither JSON nor application/json"):
        decode(message, shop.event)


def test_avro_reads_what_an_older_schema_wrote_and_names_it_as_avro_does() -> None:
    assert fastavro.schema.fingerprint('"null"', "CRC-64-AVRO") == (7195948357588979594).to_bytes(8, "little").hex()
    old = Avro(FIRST)

    class Before(BaseModel):
        station: str
        celsius: float

    bus = eventkit.connect("memory")
    new = bus.encode(Measured(station="a", celsius=1.5, at=AT))
    assert new.body is not None
    assert decode(new, Measured).at == AT
    assert decode(new._replace(body=old.encode(Before(station="a", celsius=1.5))), Measured) == Measured(
        station="a", celsius=1.5
    )
    for broken in (b"", new.body[:-1], b"\xc3\x01" + bytes(8) + new.body[10:], b'{"station": "a", "celsius": 1.5}'):
        with pytest.raises(UndecodableMessage, match="cannot be read as application/avro"):
            decode(new._replace(body=broken), Measured)


def test_avro_refuses_a_field_that_its_schema_does_not_know() -> None:
    class Wide(Event, topic="wide", serializer=Avro(FIRST)):
        station: str
        celsius: float
        more: int = 0

    with pytest.raises(InvalidMessage, match="Wide cannot be written as application/avro"):
        eventkit.connect("memory").encode(Wide(station="a", celsius=1.0))


class Secret(Event, topic="secrets", key="name", serializer=Sealed(KEYS, current="new")):
    name: str
    text: str


def test_what_an_older_key_sealed_is_read_and_all_else_is_not() -> None:
    secret = Secret(name="a", text="the launch code")
    message = eventkit.connect("memory").encode(secret)
    assert message.body is not None
    assert b"launch" not in message.body
    older = Sealed(KEYS, current="old").encode(secret)
    assert decode(message._replace(body=older), Secret) == secret
    changed = message.body[:-1] + bytes([message.body[-1] ^ 1])
    renamed = message.body.replace(b"new", b"old", 1)
    elsewhere = Sealed({"lost": bytes(32)}, current="lost").encode(secret)
    for body, said in (
        (changed, "its seal is broken"),
        (renamed, "its seal is broken"),
        (message.body[:9], "its seal is broken"),
        (b"", "sealed with the key '', which is not known"),
        (elsewhere, "sealed with the key 'lost', which is not known"),
    ):
        with pytest.raises(UndecodableMessage, match=said):
            decode(message._replace(body=body), Secret)


def test_one_that_cannot_be_opened_is_a_dead_letter_until_its_key_is_back() -> None:
    keys = {"new": bytes(range(32)), "lost": bytes(32)}
    opened: list[str] = []
    poor, rich = Sealed({"new": keys["new"]}, current="new"), Sealed(keys, current="new")
    current: list[Sealed] = [poor]

    class Either:
        content_type = Sealed.content_type

        def encode(self, message: BaseModel, /) -> bytes:
            return Sealed(keys, current="lost").encode(message)

        def decode(self, body: bytes, as_: type[M], /) -> M:
            return current[0].decode(body, as_)

        def data(self, body: bytes, /) -> object:
            return current[0].data(body)

    class Letter(Event, topic="letters", serializer=Either()):
        text: str

    service = Service("reader")

    @service.handler
    async def read(event: Letter) -> None:
        opened.append(event.text)
        if event.text == "bad":
            raise GiveUp

    async def main() -> None:
        async with eventkit.connect("memory", namespace=fresh_namespace()) as bus, bus.run(service):
            await bus.publish(Letter(text="hello"))
            (letter,) = await listed(bus, "reader", 1)
            assert (letter.reason, letter.attempts) == ("undecodable", 1)
            assert letter.error_message is not None
            assert "hello" not in letter.error_message
            current[0] = rich
            await bus.dead_letters("reader").retry(all=True)
            await eventually(lambda: opened == ["hello"], "it is read after all")

    asyncio.run(main())


def test_msgpack_is_msgpack() -> None:
    body = Msgpack().encode(Weight(kilos=Decimal("1.5")))
    assert msgpack.unpackb(body) == {"kilos": "1.5"}

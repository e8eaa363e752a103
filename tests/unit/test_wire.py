"""The wire form: what goes out reads back equal, what is accepted, and what is refused with its reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import msgpack
import pytest
from pydantic import BaseModel, ConfigDict, Field

from eventkit import Command, Event, InvalidMessage, Topic, UndecodableMessage
from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.wire import JSON_SERIALIZER, Envelope, decode, encode, received, unwrap, version

NOW = datetime(2025, 1, 2, 3, 4, 5, 678901, UTC)
TOPIC = Address("topic", "orders")


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    count: int = 1


class Placed(Event, topic="orders", key="order"):
    order: str
    total: Decimal = Decimal("0.10")
    at: datetime = NOW
    day: date = date(2025, 1, 2)
    took: timedelta = timedelta(seconds=1.5)
    id: UUID = UUID(int=7)
    colour: Colour = Colour.RED
    kind: Literal["a", 1] = 1
    lines: tuple[Line, ...] = ()
    more: dict[str, list[int | None]] = Field(default_factory=dict)
    note: str | None = None


class Grown(Event, topic="orders", version=3):
    name: str
    amount: int
    unit: str


@Grown.upcast(from_version=1)
def _first(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "amount": data.pop("quantity")}


@Grown.upcast(from_version=2)
def _second(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "unit": "kg"}


class Ship(Command, service="shipping", key="order"):
    order: str | None = None


def message(body: bytes | None, headers: Mapping[str, str] | None = None, type: str = "Placed") -> Message:
    return Message(TOPIC, type, None, {h.ID: "id-1", h.TYPE: type, **(headers or {})}, body)


def test_what_goes_out_reads_back_equal() -> None:
    event = Placed(order="Nr. 7 ✓", lines=(Line(sku="ä\0\n\"'"), Line(sku="", count=-(2**63))), more={"": [None, 1]})
    encoded = encode(event, Envelope(source="shop"))
    assert decode(encoded, Placed) == event
    assert (encoded.address, encoded.type, encoded.key, encoded.due) == (TOPIC, "Placed", "Nr. 7 ✓", None)


def test_the_headers_are_a_cloudevent_in_binary_mode() -> None:
    about = Envelope(
        source="shop",
        id="id-1",
        time=NOW,
        correlation_id="chain",
        causation_id="cause",
        headers={"x-tenant": "eu"},
        due=NOW,
        expiry=NOW + timedelta(hours=1),
        reply_to="inbox.7",
    )
    assert encode(Placed(order="7"), about).headers == {
        "ce-specversion": "1.0",
        "ce-id": "id-1",
        "ce-source": "shop",
        "ce-type": "Placed",
        "ce-time": "2025-01-02T03:04:05.678901+00:00",
        "ce-dataversion": "1",
        "ce-subject": "7",
        "ce-partitionkey": "7",
        "ce-correlationid": "chain",
        "ce-causationid": "cause",
        "ce-expirytime": "2025-01-02T04:04:05.678901+00:00",
        "content-type": "application/json",
        "correlation_id": "chain",
        "message_id": "id-1",
        "reply_to": "inbox.7",
        "ek-due": "2025-01-02T03:04:05.678901+00:00",
        "x-tenant": "eu",
    }


def test_without_more_it_begins_a_chain() -> None:
    headers = encode(Ship(), Envelope(source="shop")).headers
    assert headers[h.CORRELATION] == headers[h.ID] == headers[h.MESSAGE_ID]
    assert UUID(headers[h.ID]).version == 7
    assert not headers.keys() & {h.CAUSATION, h.SUBJECT, h.PARTITION_KEY, h.DUE, h.EXPIRY, h.REPLY_TO}


def test_the_key_is_text_or_none() -> None:
    class Numbered(Event, topic="orders", key="number"):
        number: int

    assert encode(Numbered(number=7), Envelope(source="s")).key == "7"
    assert encode(Ship(order=""), Envelope(source="s")).key == ""
    assert encode(Ship(), Envelope(source="s")).key is None
    assert encode(Ship(order="x"), Envelope(source="s")).address == Address("inbox", "shipping")


def test_one_name_on_the_wire_where_there_are_aliases() -> None:
    class Aliased(Event, topic="orders"):
        model_config = ConfigDict(populate_by_name=True)
        order_id: str = Field(alias="orderId")

    encoded = encode(Aliased(order_id="7"), Envelope(source="s"))
    assert json.loads(encoded.body or b"") == {"orderId": "7"}
    assert decode(encoded, Aliased).order_id == "7"


def test_a_value_that_cannot_be_written_names_its_class() -> None:
    class Anything(Event, topic="orders"):
        value: Any

    for value in (object(), "\ud800", b"\xff"):
        with pytest.raises(InvalidMessage, match="Anything cannot be written as application/json"):
            encode(Anything(value=value), Envelope(source="s"))


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=utf-8",
        " application/json ;x=y",
        "application/vnd.acme.order+json",
        "application/vnd.acme+JSON; v=1",
    ],
)
def test_any_json_content_type_is_json(content_type: str | None) -> None:
    headers = {} if content_type is None else {h.CONTENT_TYPE: content_type}
    assert decode(message(b'{"order": "7"}', headers), Placed) == Placed(order="7")


def test_unknown_fields_are_ignored() -> None:
    assert decode(message(b'{"order": "7", "new": [1]}'), Placed) == Placed(order="7")


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"{not json", {}, r"Placed id-1 on topic:orders does not fit Placed: .*[Ii]nvalid JSON"),
        (b"", {}, "does not fit Placed: .*JSON"),
        (b"\xff\xfe", {}, "does not fit Placed: "),
        (b"null", {}, "does not fit Placed: "),
        (b"[]", {}, "does not fit Placed: "),
        (b"{}", {}, "does not fit Placed: order: Field required"),
        (b'{"order": 7, "total": "x"}', {}, "order: .*string.*; total: .*decimal"),
        (None, {}, r"has no body \(a tombstone\), so it is no Placed"),
        (b"<order/>", {h.CONTENT_TYPE: "text/xml"}, "content type 'text/xml' is neither JSON nor application/json"),
        (b"\x80", {h.CONTENT_TYPE: "application/msgpack"}, "content type 'application/msgpack' is neither JSON"),
    ],
)
def test_what_cannot_be_decoded_says_why(body: bytes | None, headers: dict[str, str], said: str) -> None:
    with pytest.raises(UndecodableMessage, match=said):
        decode(message(body, headers), Placed)


def test_an_error_shows_no_values_and_not_too_much() -> None:
    class Login(Event, topic="logins"):
        password: int
        a: int
        b: int
        c: int
        d: int
        e: int
        f: int

    with pytest.raises(UndecodableMessage, match=r"and 2 more$") as raised:
        decode(message(b'{"password": "hunter2"}'), Login)
    assert "hunter2" not in str(raised.value)


def test_old_versions_are_upcast_step_by_step() -> None:
    grown = Grown(name="flour", amount=5, unit="kg")
    assert decode(message(b'{"name": "flour", "quantity": 5}', type="Grown"), Grown) == grown  # says none: version 1
    assert decode(message(b'{"name": "flour", "amount": 5}', {h.VERSION: "2"}), Grown) == grown
    assert decode(message(b'{"name": "flour", "amount": 5, "unit": "kg"}', {h.VERSION: "3"}), Grown) == grown
    assert decode(encode(grown, Envelope(source="s")), Grown) == grown


@pytest.mark.parametrize(
    ("body", "said_version", "said"),
    [
        (b"{}", "4", "is version 4, newer than the 3 known here"),
        (b"[]", "1", "holds list, not an object, so it cannot be upcast"),
        (b"{", "1", "cannot be read as"),
        (b"{}", "1", "cannot be read as application/json: 'quantity'"),
        (b'{"name": "flour", "amount": "x"}', "2", "does not fit Grown: amount"),
    ],
)
def test_upcasting_that_fails_says_why(body: bytes, said_version: str, said: str) -> None:
    with pytest.raises(UndecodableMessage, match=said):
        decode(message(body, {h.VERSION: said_version}, "Grown"), Grown)


def test_a_newer_version_is_never_read_as_an_older_one() -> None:
    with pytest.raises(UndecodableMessage, match="is version 2, newer than the 1 known here"):
        decode(message(b'{"order": "7"}', {h.VERSION: "2"}), Placed)
    for said in ("1", "01", "", "v2", "1.5", "9" * 5_000):  # the last ones are no versions of ours
        assert decode(message(b'{"order": "7"}', {h.VERSION: said}), Placed) == Placed(order="7")


def test_versions_are_numbers_from_1() -> None:
    assert [version(message(b"", {h.VERSION: said})) for said in ("2", "", "x", "-1", "1.5")] == [2, 1, 1, 1, 1]
    assert version(message(b"")) == 1


class Msgpack:
    content_type = "application/msgpack"

    def encode(self, message: BaseModel, /) -> bytes:
        return bytes(msgpack.packb(message.model_dump(mode="json", by_alias=True)))

    def decode(self, body: bytes, as_: type[Any], /) -> Any:
        return as_.model_validate(msgpack.unpackb(body))

    def data(self, body: bytes, /) -> object:
        return msgpack.unpackb(body)


def test_another_serializer_for_all_or_for_one_class() -> None:
    class Packed(Event, topic="packed", serializer=Msgpack()):
        order: str

    for event, serializer in ((Placed(order="7"), Msgpack()), (Packed(order="7"), JSON_SERIALIZER)):
        encoded = encode(event, Envelope(source="s"), serializer)
        assert encoded.headers[h.CONTENT_TYPE] == "application/msgpack"
        assert msgpack.unpackb(encoded.body)["order"] == "7"
        assert decode(encoded, type(event), serializer) == event
    old = message(msgpack.packb({"name": "flour", "quantity": 5}), {h.CONTENT_TYPE: "application/msgpack"})
    assert decode(old, Grown, Msgpack()).amount == 5
    plain = message(b'{"order": "7"}', {h.CONTENT_TYPE: "application/json"})
    assert decode(plain, Packed) == Packed(order="7")  # JSON is always read


STRUCTURED = {h.CONTENT_TYPE: "application/cloudevents+json; charset=utf-8"}


def structured(**attributes: object) -> Message:
    event = {"specversion": "1.0", "id": "s-1", "source": "them", "type": "Placed", **attributes}
    return Message(TOPIC, "", "k", dict(STRUCTURED), json.dumps(event).encode())


def test_structured_mode_is_read_as_binary_mode() -> None:
    found = unwrap(structured(data={"order": "7"}, dataversion="1", traceparent="00-1"))
    assert (found.type, found.key, found.headers[h.ID], found.headers[h.SOURCE]) == ("Placed", "k", "s-1", "them")
    assert found.headers[h.CONTENT_TYPE] == "application/json"
    assert decode(found, Placed) == Placed(order="7")
    packed = base64.b64encode(b'{"order": "8"}').decode()
    assert decode(unwrap(structured(data_base64=packed)), Placed) == Placed(order="8")
    assert unwrap(structured()).body is None
    assert found.headers[h.TRACEPARENT] == "00-1"
    assert "ce-traceparent" not in found.headers
    hop = structured(data={}, traceparent="00-1", tracestate="a=1")
    hop = unwrap(hop._replace(headers={**hop.headers, h.TRACEPARENT: "00-2"}))
    assert (hop.headers[h.TRACEPARENT], hop.headers[h.TRACESTATE]) == ("00-2", "a=1")
    plain = message(b"{}")
    assert unwrap(plain) is plain


@pytest.mark.parametrize("body", [b"{", b"[]", b"[{}]", b"7", b"null", b"{}", b'{"id": "1"}', b"", None])
def test_structured_mode_that_is_none_is_undecodable(body: bytes | None) -> None:
    with pytest.raises(UndecodableMessage, match=r"says application/cloudevents\+json.* but is no CloudEvent in JSON"):
        unwrap(Message(TOPIC, "", None, dict(STRUCTURED), body))


def test_an_envelope_is_recognised_where_nothing_says_that_it_is_one() -> None:
    plain = structured(data={"order": "7"})._replace(headers={})
    assert decode(unwrap(plain), Placed) == Placed(order="7")
    assert unwrap(plain).type == "Placed"
    for headers in ({h.CONTENT_TYPE: "application/json"}, {h.CONTENT_TYPE: "text/plain"}):
        assert unwrap(plain._replace(headers=headers)).headers[h.ID] == "s-1"
    for body in (b'{"specversion": "1.0"}', b'{"a": "specversion", "id": "1"}', b'["specversion"]', b'{"specversion"'):
        other = plain._replace(body=body)
        assert unwrap(other) is other
    binary = plain._replace(headers={h.SPECVERSION: "1.0", h.ID: "1", h.TYPE: "Placed"})
    assert unwrap(binary) is binary, "its headers say what it is: this is its data"


def test_an_envelope_is_no_payload_though_its_type_is_json() -> None:
    said = structured(data={"order": "7"})
    with pytest.raises(UndecodableMessage, match="cloudevents"):
        decode(said._replace(type="Placed"), Placed)


@pytest.mark.parametrize("said", [5, None, [], {"a": 1}])
def test_structured_attributes_are_text_or_left_out(said: object) -> None:
    found = unwrap(structured(datacontenttype=said, odd=said, data={"order": "7"}))
    assert all(isinstance(value, str) for value in found.headers.values())
    assert found.headers.get("ce-odd") == h.text(said)


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, json.dumps({"id": "1", "type": "Placed", "odd": "\ud800"}).encode()], ids=["deep", "half"]
)
def test_structured_mode_that_cannot_be_copied_is_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableMessage, match="but is no CloudEvent in JSON"):
        unwrap(Message(TOPIC, "", None, dict(STRUCTURED), body))


def test_type_and_key_of_an_arrival_are_found_in_its_headers() -> None:
    headers = {h.TYPE: "Placed", h.PARTITION_KEY: "7"}
    assert received(TOPIC, headers, b"") == Message(TOPIC, "Placed", "7", headers, b"")
    assert received(TOPIC, headers, b"", "own").key == "own"
    assert received(TOPIC, {}, None) == Message(TOPIC, "", None, {}, None)


def test_a_physical_topic_goes_to_the_address() -> None:
    class Old(Event, topic=Topic("old", physical="legacy.orders")):
        pass

    assert encode(Old(), Envelope(source="s")).address == Address("topic", "old", "legacy.orders")

"""W: the border. What others put on the wire is read by one rule for each case; what we put there reads back equal."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, SecretStr

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.context import Context
from eventkit.contract.checks import Backend, Vacuous, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.receiving import put, raw, started
from eventkit.contract.samples import raises
from eventkit.copies import Reason
from eventkit.errors import CommandFailed, DeclarationError, GiveUp, InvalidMessage
from eventkit.messages import Command, Event, Topic
from eventkit.retry import Retry
from eventkit.service import Service

_NAME = "border.things"
_RETRY = Retry(attempts=2, first_delay=timedelta(milliseconds=20), jitter=0)


@runtime_checkable
class Foreign(Protocol):
    """A backend that can also publish as a plain client of its broker does, one that knows nothing of eventkit."""

    no_text: Mapping[str, object]
    """Headers that such a client may write, though their values are no text: whatever its broker allows."""

    def put(self, namespace: str, topic: str, body: bytes, headers: Mapping[str, object], /) -> None:
        """Publish to a topic of ours. It blocks; checks call it in a thread."""
        ...


class Thing(Event, topic=Topic(_NAME, default="Thing"), key="name"):
    """All of it has a default: whatever is taken for it by mistake is one."""

    name: str = "default"
    number: int = 0


class Base(BaseModel):
    a: int = 0


class Derived(Base):
    b: int = 0


class Measured(Event, topic="border.measures"):
    ratio: float = 0.0
    more: dict[str, list[float]] | None = None
    base: Base = Base()
    anything: Any = None


class Measure(Command[float], service="keeper"):
    ratio: float = 0.0


_RULE: Mapping[object, str | None] = {
    "text": "text",
    b"\xc3\xa9": "é",
    b"\xff": None,
    True: "true",
    2: "2",
    -7: "-7",
    1.5: "1.5",
    None: None,
    (1, 2): None,
}
"""What becomes of a header's value; None: it is left out."""


class Kept:
    """A service that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[Thing, dict[str, str], int]] = []
        self.service = Service("keeper", retry=_RETRY)

        @self.service.handler
        async def thing(event: Thing, context: Context) -> None:
            self.got.append((event, dict(context.delivery.message.headers), context.attempt))
            if event.name == "again" and context.attempt == 1:
                raise RuntimeError("once more")
            if event.name == "dead":
                raise GiveUp("no use")

    @property
    def names(self) -> list[str]:
        return [event.name for event, _, _ in self.got]


def _thing(name: str, content_type: str | None) -> Message:
    said = {} if content_type is None else {h.CONTENT_TYPE: content_type}
    body = json.dumps({"name": name, "number": 7}).encode()
    return raw(Address("topic", _NAME), body, name, type="Thing", headers=said)


@check("W1", "any JSON content type is read as JSON, and so is none at all; of any other a message is undecodable")
async def content_types(backend: Backend) -> None:
    namespace = fresh_namespace()
    kept = Kept()
    right = [
        *("application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "text/json"),
        *("application/vnd.acme.thing+json", "application/problem+JSON; a=b", "", None),
    ]
    wrong = ["text/plain", "application/msgpack", "application/octet-stream", "json", "application/cloudevents+json"]
    async with bus(backend, namespace) as b, b.run(kept.service), started(backend, namespace) as adapter:
        await put(adapter, *(_thing(f"wrong {said}", said) for said in wrong))
        await put(adapter, *(_thing(f"right {said}", said) for said in right))
        await eventually(lambda: len(kept.got) >= len(right), f"those of JSON: {kept.names}")
        letters = await dead_letters(backend, namespace, "keeper", len(wrong))
        await stays(lambda: len(kept.got) == len(right), "one more was taken for JSON", 0.1)
    assert sorted(kept.names) == sorted(f"right {said}" for said in right)
    assert all(event.number == 7 for event, _, _ in kept.got)
    assert {letter.headers[h.REASON] for letter in letters} == {Reason.UNDECODABLE}
    assert sorted(letter.key or "" for letter in letters) == sorted(f"wrong {said}" for said in wrong)
    for letter in letters:
        said = letter.headers[h.CONTENT_TYPE]
        assert said in letter.headers[h.ERROR_MESSAGE], f"it does not name the type: {letter.headers[h.ERROR_MESSAGE]}"


@check("W2", "a null body, an empty one, JSON's null, a list: none of them is taken for an event made of defaults")
async def bodies(backend: Backend) -> None:
    namespace = fresh_namespace()
    kept = Kept()
    topic = Address("topic", _NAME)
    wrong: dict[str, bytes | None] = {
        "tombstone": None,
        "empty": b"",
        "blank": b" ",
        "null": b"null",
        "list": b"[]",
        "text": b'""',
        "twice": b"{}{}",
        "bom": b"\xef\xbb\xbf{}",
    }
    async with bus(backend, namespace) as b, b.run(kept.service) as running:
        async with started(backend, namespace) as adapter:
            json_ = {h.CONTENT_TYPE: "application/json"}
            for name, body in wrong.items():
                await put(adapter, raw(topic, body, name, type="Thing", headers=json_))
                await put(adapter, raw(topic, body, name))  # of no type at all: the topic's default
            await put(adapter, raw(topic, b"{}", "fits", type="Thing", headers=json_))
            await eventually(lambda: kept.got, "one that fits")
            letters = await dead_letters(backend, namespace, "keeper", len(wrong))
            await stays(lambda: len(kept.got) == 1, f"taken for an event: {kept.got}", 0.1)
        assert running.counts["keeper"].skipped == len(wrong), "those of another type are skipped"
    assert [event for event, _, _ in kept.got] == [Thing()]
    assert {letter.headers[h.REASON] for letter in letters} == {Reason.UNDECODABLE}
    assert {letter.key: letter.body for letter in letters} == wrong, "the body is kept as it came"


@check(
    "W3", "headers that are no text become text by one rule, or are left out; no copy fails by them, no consumer stops"
)
async def headers_without_text(backend: Backend) -> None:
    if not isinstance(backend, Foreign):
        raise Vacuous("nobody but eventkit writes there, and a header of ours is text")
    namespace = fresh_namespace()
    kept = Kept()
    odd = backend.no_text
    assert {said: h.text(said) for said in _RULE} == _RULE
    assert odd, "a broker that takes text alone has no such headers: do not be Foreign"
    async with bus(backend, namespace) as b, b.run(kept.service):
        for name in ("once", "again", "dead"):
            body = json.dumps({"name": name}).encode()
            await asyncio.to_thread(backend.put, namespace, _NAME, body, {"x-text": "kept ✓", **odd})
        await eventually(lambda: len(kept.got) >= 4, f"each is handled, one of them twice: {kept.names}")
        (letter,) = await dead_letters(backend, namespace, "keeper", 1)
    expected = {name: said for name, value in odd.items() if (said := h.text(value)) is not None}
    expected["x-text"] = "kept ✓"
    arrivals = [(f"{event.name} {attempt}", headers) for event, headers, attempt in kept.got]
    assert sorted(name for name, _ in arrivals) == ["again 1", "again 2", "dead 1", "once 1"]
    for name, headers in [*arrivals, ("the dead letter", letter.headers)]:
        found = {name: headers[name] for name in (*odd, "x-text") if name in headers}
        assert found == expected, f"{name}: {found}, and not {expected}"


@check(
    "W4", "a CloudEvent in structured mode is read as what it holds, trace included, or is undecodable; never defaults"
)
async def envelopes(backend: Backend) -> None:
    namespace = fresh_namespace()
    kept = Kept()
    topic = Address("topic", _NAME)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    def envelope(name: str, content_type: str | None, **more: object) -> Message:
        event = {"specversion": "1.0", "id": f"id {name}", "source": "them", "type": "Thing", "traceparent": trace}
        body = json.dumps({**event, **({"data": {"name": name}} if "data_base64" not in more else {}), **more})
        return Message(topic, "", None, {} if content_type is None else {h.CONTENT_TYPE: content_type}, body.encode())

    ours = "application/cloudevents+json"
    right = {
        "structured": envelope("structured", ours),
        "parameters": envelope("parameters", "Application/CloudEvents+JSON; charset=utf-8"),
        "as json": envelope("as json", "application/json"),
        "unsaid": envelope("unsaid", None),
        "again": envelope("again", ours, traceparent=trace),
        "packed": envelope("packed", ours, data_base64="eyJuYW1lIjogInBhY2tlZCJ9"),
    }
    wrong = {
        "batch": _with_body(
            right["structured"], b"[" + (right["structured"].body or b"") + b"]", f"{ours[:-5]}-batch+json"
        ),
        "no json": _with_body(right["structured"], b"{", ours),
        "no data": envelope("x", ours, data=None),
        "no id": _with_body(right["structured"], b'{"specversion": "1.0", "type": "Thing"}', ours),
        "twice": raw(topic, right["structured"].body, type="Thing", headers={h.CONTENT_TYPE: ours}),
    }
    async with bus(backend, namespace) as b, b.run(kept.service), started(backend, namespace) as adapter:
        await put(adapter, *wrong.values(), *right.values())
        await eventually(lambda: len(kept.got) >= len(right) + 1, f"what is a CloudEvent: {kept.names}")
        letters = await dead_letters(backend, namespace, "keeper", len(wrong))
        await stays(lambda: len(kept.got) == len(right) + 1, f"taken for an event: {kept.names}", 0.1)
    assert sorted(kept.names) == sorted([*right, "again"])
    for event, headers, attempt in kept.got:
        assert headers[h.ID] == f"id {event.name}", headers
        assert headers[h.SOURCE] == "them"
        assert headers.get(h.TRACEPARENT) == trace, f"{event.name}, attempt {attempt}: the trace is lost"
    assert {letter.headers[h.REASON] for letter in letters} == {Reason.UNDECODABLE}


def _with_body(message: Message, body: bytes, content_type: str) -> Message:
    return message._replace(body=body, headers={h.CONTENT_TYPE: content_type})


@check(
    "W5", "what JSON would change is refused: when it is declared, else when it is written, and nothing of it is sent"
)
async def unfaithful(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("keeper", retry=_RETRY)
    got: list[Measured] = []
    when = datetime(2025, 1, 1, tzinfo=UTC)
    wrong: dict[str, Measured] = {
        "ratio": Measured(ratio=math.nan),
        "more": Measured(more={"a": [1.0, math.inf]}),
        "base": Measured(base=Derived(a=1, b=2)),
        "anything": Measured(anything=when),
    }

    @service.handler
    async def thing(event: Thing) -> Measured:
        return wrong[event.name]

    @service.handler
    async def measured(event: Measured) -> None:
        got.append(event)

    @service.handler
    async def measure(command: Measure) -> float:
        return math.nan

    fine = [Measured(ratio=1e-300, more={"": [0.1 + 0.2]}, base=Base(a=1), anything={"a": [1, None, "NaN"]})] * 2
    async with bus(backend, namespace) as b, b.run(service):
        for field, event in wrong.items():
            error = await raises(InvalidMessage, b.publish(event))
            assert f"Measured.{field}" in str(error), error
            await b.publish(Thing(name=field))
        await raises(InvalidMessage, b.send(Measure(ratio=math.inf)))
        failed = await raises(CommandFailed, b.request(Measure()))
        assert "read back" in failed.message, failed
        await b.publish_many(fine)
        letters = await dead_letters(backend, namespace, "keeper", len(wrong))
        await eventually(lambda: len(got) >= len(fine), "what JSON can say")
        await stays(lambda: got == fine, "something else came", 0.1)
    assert {letter.key: letter.headers[h.REASON] for letter in letters} == dict.fromkeys(wrong, Reason.UNSENDABLE)
    assert _declared(_secret) is None, "a class with a secret was let through"


def _secret() -> object:
    class Hiding(Event, topic="border.secrets"):
        password: SecretStr

    return Hiding


def _declared(declare: Callable[[], object]) -> object:
    """The class; None where it was refused."""
    try:
        return declare()
    except DeclarationError:
        return None


@check(
    "W6", "names of headers that are reserved, and what no broker carries, are refused at the call, and nothing is sent"
)
async def illegal_headers(backend: Backend) -> None:
    namespace = fresh_namespace()
    kept = Kept()
    wrong: list[dict[str, Any]] = [
        *({name: "x"} for name in ("ce-id", "ce_type", "CE-Source", "ek-attempt", "Nats-Msg-Id", "content-type")),
        *({name: "x"} for name in ("correlation_id", "message_id", "Reply_To", "", "a\nb", "a\r", "a\0", "\ud800")),
        *({"x-a": value} for value in ("a\nb", "a\r\nX: y", "a\0", "\udfff", 7, None, b"x")),
        dict[Any, Any]({7: "x"}),
    ]
    caught: list[int] = []

    @kept.service.handler
    async def measured(event: Measured, context: Context) -> None:
        for headers in wrong:
            try:
                context.publish(Thing(name="from a handler"), headers=headers)
            except InvalidMessage:
                caught.append(1)

    async with bus(backend, namespace) as b, b.run(kept.service):

        def calls(headers: dict[str, Any]) -> list[Awaitable[object]]:
            return [
                b.publish(Thing(), headers=headers),
                b.publish_many([Thing(), Thing()], headers=headers),
                b.send(Measure(), headers=headers),
                b.request(Measure(), headers=headers),
            ]

        for headers in wrong:
            for call in calls(headers):
                error = await raises(InvalidMessage, call)
                assert repr(next(iter(headers))) in str(error), f"it does not name the header: {error}"
            assert _refused(b, headers), f"carrying() takes {headers}"
        await b.publish(Measured())
        await eventually(lambda: len(caught) >= len(wrong), "in a handler, too")
        await b.publish(Thing(name="right"), headers={"x-a": "b"})
        await eventually(lambda: kept.got, "one with a name of its own")
        await stays(lambda: kept.names == ["right"], f"sent all the same: {kept.names}", 0.1)


def _refused(b: Any, headers: dict[str, Any]) -> bool:
    try:
        b.carrying(headers=headers)
    except InvalidMessage:
        return True
    return False

"""M: metadata."""

from __future__ import annotations

import random
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import cast

from pydantic import Field

from eventkit import copies
from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Group, Message, Move, Provision
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.receiving import contents, put, raw, receive, started
from eventkit.copies import Reason
from eventkit.errors import GiveUp
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import CallNext, Service

_RETRY = Retry(attempts=3, first_delay=timedelta(milliseconds=50), jitter=0)

ODD = {
    "x-plain": "a",
    "x-empty": "",
    "X-Case": "kept",
    "x-umläut-ß": "größer",
    "名前": "日本語 ﷽",
    "имя": "Жанна",
    "🎉": "👩‍👩‍👧 🇩🇪 \U0010fffd",
    "x with spaces": "  leading and trailing  ",
    "x:colon=a;b,c": "a:b=c;d,e",
    "x%41%zz": "100% %41 %zz %E4 %",
    'x"quoted"': "\"double\" 'single' \\back\\slash",
    "x/slash?query#hash@at": "<tag attr='&amp;'>",
    "x-tab": "a\tb",
    "x-controls": "\x01\x1b\x7f\x85\u2028\ufeff",
    "x-right-to-left": "\u202eabc שלום",
    "x-combining": "e\u0301 is not é",
    "x-json": '{"a": [1, null]}',
    "x-number": "007",
    "x-true": "true",
    "x-long": "ü" * 1_000,
    "1": "one",
}


class Noted(Event, topic="metadata.notes", key="name"):
    name: str
    tags: list[str] = Field(default_factory=list)


class Answered(Event, topic="metadata.answers"):
    name: str
    tags: list[str] = Field(default_factory=list)


class Act(Command, service="actor"):
    name: str


@check("M1", "any Unicode survives in header names and values, the empty one too, through retries and dead letters")
async def unicode_headers(backend: Backend) -> None:
    namespace = fresh_namespace()
    actor = Service("actor", retry=_RETRY)
    got: dict[str, list[dict[str, str]]] = {}

    def keep(what: str, context: Context) -> None:
        got.setdefault(what, []).append(context.headers)

    @actor.handler
    async def noted(event: Noted, context: Context) -> None:
        keep(event.name, context)
        if event.name == "dead":
            raise GiveUp("no use")
        if context.attempt < 3:
            raise RuntimeError("again")
        context.publish(Answered(name="answer"), headers=context.headers)
        context.send(Act(name="act"), headers=context.headers)

    @actor.handler
    async def answered(event: Answered, context: Context) -> None:
        keep(event.name, context)

    @actor.handler
    async def act(command: Act, context: Context) -> None:
        keep(command.name, context)

    async with bus(backend, namespace) as b, b.run(actor):
        await b.publish(Noted(name="retried"), headers=ODD)
        await b.publish(Noted(name="dead"), headers=ODD)
        await b.publish_many([Noted(name="dead")])
        await eventually(lambda: len(got.get("answer", ())) == len(got.get("act", ())) == 1, "the last ones arrive")
        letters = await dead_letters(backend, namespace, "actor", 2)
    for what, expected in {"retried": [ODD] * 3, "answer": [ODD], "act": [ODD], "dead": [ODD, {}]}.items():
        assert len(got[what]) == len(expected), f"{what}: {len(got[what])} arrivals"
        for headers, wanted in zip(got[what], expected, strict=True):
            wrong = {name: (wanted.get(name), headers.get(name)) for name in wanted.keys() ^ headers.keys()}
            wrong |= {name: (wanted[name], headers[name]) for name in wanted.keys() & headers.keys()}
            wrong = {name: pair for name, pair in wrong.items() if pair[0] != pair[1]}
            assert not wrong, f"{what}: sent and received differ: {wrong}"
    assert [h.user(letter.headers) for letter in letters] == [ODD, {}]


@check("M2", "binary and empty bodies come back byte for byte: from a topic, a retry, a dead letter")
async def any_body(backend: Backend) -> None:
    bodies = [b"", b"\0", b"\xff\xfe\0\x01", bytes(range(256)), b"\r\n\r\n", b"%41", b" ", b"null"]
    bodies.append(random.Random(7).randbytes(50_000))  # noqa: S311 not a secret
    topic, group = Address("topic", "metadata.bytes"), Group("reader", (Address("topic", "metadata.bytes"),))
    async with started(backend, fresh_namespace()) as adapter:
        await adapter.provision([group], Provision.CREATE)
        receiving = await receive(adapter, group)
        await put(adapter, *(raw(topic, body, "k") for body in bodies))
        await receiving.arrive(len(bodies))
        first = receiving.got.copy()
        _same(receiving.bodies, bodies, "from the topic")
        for delivery in first:
            receiving.settle(delivery, Move(_retry(delivery, group)))
        await receiving.arrive(2 * len(bodies))
        again = receiving.got[len(bodies) :]
        _same(sorted(delivery.message.body or b"" for delivery in again), sorted(bodies), "from the retry address")
        for delivery in again:
            assert delivery.message.headers[h.ATTEMPT] == "2"
            receiving.settle(delivery, Move(_dead(delivery, group)))
        dead: list[Delivery] = []
        for _ in range(500):
            dead = await contents(adapter, group.dead)
            if len(dead) >= len(bodies):
                break
        await receiving.consumer.stop(5.0)
        _same(sorted(delivery.message.body or b"" for delivery in dead), sorted(bodies), "from the dead letters")
        assert len(receiving.got) == 2 * len(bodies), "something came twice"
        assert not receiving.failed


def _same(got: Sequence[bytes | None], wanted: Sequence[bytes | None], where: str) -> None:
    """Told by their lengths: a test runner that draws the difference of large bodies takes minutes."""
    if list(got) != list(wanted):
        lengths = [None if body is None else len(body) for body in got]
        raise AssertionError(f"{where}: other bodies than were put, of {lengths} bytes")


def _retry(delivery: Delivery, group: Group) -> Message:
    return copies.retry(delivery, group, attempt=2, due=None, failed_at=datetime.now(UTC))


def _dead(delivery: Delivery, group: Group) -> Message:
    now = datetime.now(UTC)
    return copies.dead(delivery, group, reason=Reason.EXHAUSTED, error=None, attempt=2, failed_at=now)


@check("M3", "messages that come of one another share the correlation, and each names its cause and its source")
async def correlation_and_causation(backend: Backend) -> None:
    service, actor = Service("noter", retry=_RETRY), Service("actor")
    seen: dict[str, Context] = {}

    @service.handler
    async def noted(event: Noted, context: Context) -> Answered:
        if context.attempt == 1:
            raise RuntimeError("again")
        seen[f"noted {event.name}"] = context
        return Answered(name=event.name)

    @actor.handler
    async def answered(event: Answered, context: Context) -> None:
        seen[f"answered {event.name}"] = context
        context.send(Act(name=event.name))

    @actor.handler
    async def act(command: Act, context: Context) -> None:
        seen[f"act {command.name}"] = context

    async with bus(backend, fresh_namespace(), "origin") as b, b.run(service, actor):
        await b.publish(Noted(name="given"), id="note-1", correlation_id="chain-1")
        await b.publish(Noted(name="none"), id="note-2")
        await b.send(Act(name="alone"), correlation_id="chain-3")
        await eventually(lambda: len(seen) >= 7, "all arrive")
    for name, correlation in {"given": "chain-1", "none": "note-2"}.items():
        chain = [seen[f"{step} {name}"] for step in ("noted", "answered", "act")]
        assert [context.correlation_id for context in chain] == [correlation] * 3
        assert [context.causation_id for context in chain] == [None, chain[0].id, chain[1].id]
        assert [context.source for context in chain] == ["origin", "noter", "actor"]
        assert len({context.id for context in chain}) == 3
    assert [seen[f"noted {name}"].id for name in ("given", "none")] == ["note-1", "note-2"]
    alone = seen["act alone"]
    assert (alone.correlation_id, alone.causation_id, alone.source) == ("chain-3", None, "origin")


@check("M5", "what a handler changes in its message and headers shows in no retry, dead letter, or other group")
async def changes_do_not_leak(backend: Backend) -> None:
    namespace = fresh_namespace()
    given = {"x-tenant": "north", "x-empty": ""}
    got: list[tuple[dict[str, str], list[str], int]] = []
    elsewhere: list[dict[str, str]] = []

    async def meddling(delivery: Delivery, call_next: CallNext) -> object:
        headers = cast("MutableMapping[str, str]", delivery.message.headers)
        with suppress(TypeError, AttributeError):  # it may be refused: messages are frozen
            headers["x-from-middleware"] = "1"
        with suppress(TypeError, AttributeError):
            headers[h.ATTEMPT] = "9"
        return await call_next(delivery)

    service, other = Service("actor", retry=_RETRY, middleware=[meddling]), Service("other")

    @service.handler
    async def noted(event: Noted, context: Context) -> None:
        got.append((context.headers, event.tags.copy(), context.attempt))
        event.tags.append("changed")
        context.headers["x-from-handler"] = "1"
        context.headers.clear()
        headers = cast("MutableMapping[str, str]", context.delivery.message.headers)
        with suppress(TypeError, AttributeError):
            headers["x-from-handler"] = "2"
        with suppress(TypeError, AttributeError):
            del headers["x-tenant"]
        raise RuntimeError("again")

    @service.handler(retry=Retry(attempts=3, first_delay=timedelta(milliseconds=20), jitter=0, in_order=True))
    async def in_order(event: Answered, context: Context) -> None:
        got.append((context.headers, event.tags.copy(), context.attempt))
        event.tags.append("changed")
        context.headers["x-from-handler"] = "1"
        raise RuntimeError("again")

    @other.handler
    async def elsewhere_too(event: Noted, context: Context) -> None:
        elsewhere.append(context.headers)

    async with bus(backend, namespace) as b, b.run(service, other):
        await b.publish(Noted(name="a"), headers=given)
        await b.publish(Answered(name="b"), headers=given)
        letters = await dead_letters(backend, namespace, "actor", 2)
        await stays(lambda: len(got) == 6, "it came again", 0.1)
    assert sorted(got, key=lambda item: item[2]) == [(given, [], attempt) for attempt in (1, 1, 2, 2, 3, 3)]
    assert elsewhere == [given]
    assert [h.user(letter.headers) for letter in letters] == [given, given]


@check("M4", "traceparent and tracestate are on the message as received, retried, sent on, and as a dead letter")
async def trace_context(backend: Backend) -> None:
    namespace = fresh_namespace()
    service, listener = (
        Service("actor", retry=Retry(attempts=2, first_delay=timedelta(0), jitter=0)),
        Service("listener"),
    )
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=a,other=b"}
    seen: list[Mapping[str, str]] = []

    def of(headers: Mapping[str, str]) -> Mapping[str, str]:
        return {name: headers[name] for name in trace if name in headers}

    @service.handler
    async def act(event: Noted, context: Context) -> Answered:
        seen.append(of(context.headers))
        if event.name == "dies" or context.attempt == 1:
            raise RuntimeError("no")
        return Answered(name="on")

    @listener.handler
    async def told(event: Answered, context: Context) -> None:
        seen.append(of(context.headers))

    async with bus(backend, namespace) as b, b.run(service, listener):
        await b.publish(Noted(name="lives"), headers=trace)
        await eventually(lambda: len(seen) == 3, "received, retried and sent on")
        await b.publish(Noted(name="dies"), headers=trace)
        (letter,) = await dead_letters(backend, namespace, "actor", 1)
        assert seen == [trace] * 5, seen
        assert of(letter.headers) == trace
        await b.dead_letters("actor").retry(all=True)
        await eventually(lambda: len(seen) == 7, "tried again")
    assert seen == [trace] * 7, seen

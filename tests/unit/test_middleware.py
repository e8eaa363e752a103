"""Middleware: in which order it runs, what its errors do, what it may change; and what goes over outgoing messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

import pytest

from eventkit import (
    Batch,
    CallNext,
    Command,
    CommandRejected,
    Context,
    DeclarationError,
    Delivery,
    Depends,
    Event,
    GiveUp,
    Middleware,
    Outgoing,
    OutgoingMiddleware,
    Reason,
    Reject,
    Retry,
    Service,
    testing,
)
from eventkit.testing import Harness

TENANT = "x-tenant"
_RETRY = Retry(attempts=2, first_delay=timedelta(seconds=1), jitter=0)


class Placed(Event, topic="middleware.placed", key="order"):
    order: str


class Booked(Event, topic="middleware.booked"):
    order: str


class Refused(Event, topic="middleware.refused"):
    order: str


class Ask(Command[str], service="shop"):
    order: str


@dataclass
class Told:
    """What happened, in order."""

    lines: list[str] = field(default_factory=list)

    def say(self, name: str) -> Middleware:
        """A middleware that says when it is entered and left."""

        async def saying(delivery: Delivery, call_next: CallNext) -> object:
            self.lines.append(f"{name} in")
            try:
                return await call_next(delivery)
            except Exception as error:
                self.lines.append(f"{name} sees {type(error).__name__}")
                raise
            finally:
                self.lines.append(f"{name} out")

        return saying


def story(service: Service, *events: Event, headers: dict[str, str] | None = None) -> Harness:
    """All that comes of these, to its end."""

    async def main() -> Harness:
        async with testing.run(service) as t:
            for event in events:
                await t.publish(event, headers=headers)
            await t.idle()
            return t

    return asyncio.run(main())


def books(*middleware: Middleware, outgoing: tuple[OutgoingMiddleware, ...] = (), told: Told | None = None) -> Service:
    """A service that books what is placed, inside of these."""
    service = Service("shop", middleware=middleware, outgoing=outgoing, retry=_RETRY)

    @service.handler
    async def book(event: Placed) -> Booked:
        if told is not None:
            told.lines.append("handler")
        if event.order == "bad":
            raise ValueError("bad")
        return Booked(order=event.order)

    return service


# around the handler


def test_the_first_is_outermost_and_dependencies_are_around_all() -> None:
    told = Told()
    service = Service("shop", middleware=[told.say("outer"), told.say("inner")], retry=_RETRY)

    async def session() -> AsyncIterator[str]:
        told.lines.append("session up")
        yield "a session"
        told.lines.append("session down")

    @service.handler
    async def book(event: Placed, given: Annotated[str, Depends(session)]) -> Booked:
        told.lines.append("handler")
        return Booked(order=event.order)

    t = story(service, Placed(order="1"))
    around = ["outer in", "inner in", "handler", "inner out", "outer out"]
    assert told.lines == ["session up", *around, "session down"]
    assert t.published(Booked) == [Booked(order="1")]


def test_each_attempt_goes_through_all_and_its_error_passes_from_the_inside_out() -> None:
    told = Told()
    t = story(books(told.say("outer"), told.say("inner"), told=told), Placed(order="bad"))
    attempt = ["outer in", "inner in", "handler", "inner sees ValueError", "inner out"]
    attempt += ["outer sees ValueError", "outer out"]
    assert told.lines == attempt * 2
    assert [letter.reason for letter in t.dead_letters()] == [Reason.EXHAUSTED]


def test_what_it_returns_takes_the_place_of_the_result() -> None:
    async def instead(delivery: Delivery, call_next: CallNext) -> object:
        assert await call_next(delivery) == Booked(order="1")
        return [Booked(order="2"), Booked(order="3")]

    assert story(books(instead), Placed(order="1")).published(Booked) == [Booked(order="2"), Booked(order="3")]


def test_an_error_that_it_swallows_is_none() -> None:
    async def calm(delivery: Delivery, call_next: CallNext) -> object:
        try:
            return await call_next(delivery)
        except ValueError:
            return Booked(order="after all")

    t = story(books(calm), Placed(order="bad"))
    assert t.handled(Placed) == [Placed(order="bad")]
    assert t.published(Booked) == [Booked(order="after all")]


@pytest.mark.parametrize(
    ("raised", "reason", "attempts"), [(GiveUp("no"), Reason.GAVE_UP, 1), (KeyError("no"), Reason.EXHAUSTED, 2)]
)
def test_what_it_raises_is_the_failure_of_the_handler(raised: Exception, reason: Reason, attempts: int) -> None:
    async def raises(delivery: Delivery, call_next: CallNext) -> object:
        await call_next(delivery)
        raise raised

    t = story(books(raises), Placed(order="1"))
    (letter,) = t.dead_letters(Placed)
    assert (letter.reason, letter.attempts) == (reason, attempts)
    assert t.published(Booked) == [], "a failed attempt sends nothing"


def test_it_may_refuse_a_command() -> None:
    async def closed(delivery: Delivery, call_next: CallNext) -> object:
        raise Reject("we are closed", Refused(order="1"))

    service = Service("shop", middleware=[closed])

    @service.handler
    async def answer(command: Ask) -> str:
        raise AssertionError("it was to be refused before")

    async def main() -> None:
        async with testing.run(service) as t:
            with pytest.raises(CommandRejected, match="we are closed"):
                await t.request(Ask(order="1"))
            assert t.published(Refused) == [Refused(order="1")]

    asyncio.run(main())


def test_without_call_next_the_handler_does_not_run_and_the_message_is_finished() -> None:
    told = Told()

    async def skips(delivery: Delivery, call_next: CallNext) -> object:
        return None

    t = story(books(skips, told=told), Placed(order="1"))
    assert told.lines == []
    assert t.handled(Placed) == [Placed(order="1")]
    assert not t.dead_letters()


def test_call_next_twice_is_a_failure_that_says_so() -> None:
    told = Told()

    async def twice(delivery: Delivery, call_next: CallNext) -> object:
        await call_next(delivery)
        return await call_next(delivery)

    (letter,) = story(books(twice, told=told), Placed(order="1")).dead_letters()
    assert "called call_next() twice" in str(letter.error)
    assert told.lines == ["handler"] * 2, "once an attempt"


def test_headers_are_read_only_and_a_changed_delivery_is_seen_by_the_next_middleware_alone() -> None:
    seen: list[str] = []

    async def writes(delivery: Delivery, call_next: CallNext) -> object:
        with pytest.raises(TypeError):
            delivery.message.headers["x-who"] = "me"  # type: ignore[index]
        headers = {**delivery.message.headers, "x-who": "me"}
        return await call_next(delivery._replace(message=delivery.message._replace(headers=headers, body=b"{}")))

    async def reads(delivery: Delivery, call_next: CallNext) -> object:
        seen.append(delivery.message.headers["x-who"])
        return await call_next(delivery)

    service = Service("shop", middleware=[writes, reads])

    @service.handler
    async def book(event: Placed, context: Context) -> None:
        seen.append(f"{event.order} {context.headers}")

    story(service, Placed(order="1"), headers={"x-who": "you"})
    assert seen == ["me", "1 {'x-who': 'you'}"]


def test_context_variables_reach_the_handler_and_no_other_message() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []

    async def sets(delivery: Delivery, call_next: CallNext) -> object:
        if delivery.message.key == "1":
            who.set("one")
        return await call_next(delivery)

    service = Service("shop", middleware=[sets], concurrency=1)

    @service.handler
    def book(event: Placed) -> None:  # in a thread
        seen.append(f"{event.order} {who.get()}")

    story(service, Placed(order="1"), Placed(order="2"))
    assert seen == ["1 one", "2 nobody"]


def test_the_time_limit_of_an_attempt_is_around_it() -> None:
    async def slow(delivery: Delivery, call_next: CallNext) -> object:
        await asyncio.sleep(30)
        raise AssertionError("it was to be ended")

    service = Service("shop", middleware=[slow], timeout=timedelta(milliseconds=20), retry=Retry(attempts=1))

    @service.handler
    async def book(event: Placed) -> None: ...

    (letter,) = story(service, Placed(order="1")).dead_letters()
    assert isinstance(letter.error, TimeoutError)


def test_what_cannot_be_read_does_not_come_to_it() -> None:
    told = Told()

    class Broken(Event, topic="middleware.broken", type="Placed"):
        other: int

    service = Service("shop", middleware=[told.say("outer")])

    @service.handler
    async def broken(event: Broken) -> None: ...

    async def main() -> None:
        async with testing.run(service) as t:
            message = t._bus.encode(Broken(other=1))._replace(body=b"{")
            await t._bus.deliver([message])
            await t.idle()
            assert [letter.reason for letter in t.dead_letters()] == [Reason.UNDECODABLE]

    asyncio.run(main())
    assert told.lines == []


# over what goes out


def tagged(tag: str) -> OutgoingMiddleware:
    def tags(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
        trail = outgoing.headers.get("x-trail", "") + tag
        return outgoing._replace(headers={**outgoing.headers, "x-trail": trail})

    return tags


def sent_headers(t: Harness, cls: type[Event]) -> list[dict[str, str]]:
    wanted = [item for item in t._happened if item.what == "published" and isinstance(item.content, cls)]
    return [{name: value for name, value in item.message.headers.items() if name[:2] == "x-"} for item in wanted]


def test_each_function_gets_what_the_one_before_it_gave() -> None:
    t = story(books(outgoing=(tagged("a"), tagged("b"))), Placed(order="1"))
    assert sent_headers(t, Booked) == [{"x-trail": "ab"}]


def test_it_may_change_message_headers_and_delay_of_all_that_handlers_send() -> None:
    def changes(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
        assert isinstance(outgoing.message, Booked | Refused)
        message = outgoing.message.model_copy(update={"order": f"{outgoing.message.order}!"})
        return Outgoing(message, {TENANT: delivery.message.headers[TENANT], **outgoing.headers}, timedelta(hours=1))

    service = Service("shop", outgoing=[changes])
    heard: list[tuple[str, str]] = []
    listening = Service("listening")

    @service.handler
    async def book(event: Placed, context: Context) -> Booked:
        context.publish(Booked(order="collected"), headers={TENANT: "another"})
        return Booked(order="returned")

    @service.handler
    async def refuse(command: Ask) -> str:
        raise Reject("no", Refused(order="rejected"))

    @listening.handler
    async def listen(event: Booked | Refused, context: Context) -> None:
        heard.append((event.order, context.headers[TENANT]))

    async def main() -> timedelta:
        async with testing.run(service, listening) as t:
            began = t.now
            await t.publish(Placed(order="1"), headers={TENANT: "acme"})
            await t.send(Ask(order="1"), headers={TENANT: "acme"})
            await t.idle()
            return t.now - began

    assert asyncio.run(main()) >= timedelta(hours=1)
    assert sorted(heard) == [("collected!", "another"), ("rejected!", "acme"), ("returned!", "acme")]


def _raises(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
    raise LookupError("who is that?")


def _forgets(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
    return None  # type: ignore[return-value]


def _reserved(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
    return outgoing._replace(headers={"ce-id": "1"})


def _late(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
    return outgoing._replace(delay=timedelta(days=9))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (_raises, "_raises failed with Booked of .*book: LookupError: who is that"),
        (_forgets, "_forgets gave NoneType for Booked"),
        (_reserved, "'ce-id' is reserved"),
        (_late, "between zero and 24 hours"),
    ],
)
@pytest.mark.parametrize("batches", [False, True])
def test_one_that_fails_makes_the_message_unsendable(wrong: OutgoingMiddleware, said: str, batches: bool) -> None:
    service = books(outgoing=(wrong,))
    if batches:
        service = Service("shop", outgoing=[wrong])

        @service.handler(batch=Batch(size=2, wait=timedelta(milliseconds=5)))
        async def book(events: list[Placed]) -> list[Booked]:
            return [Booked(order=event.order) for event in events]

    t = story(service, Placed(order="1"))
    (letter,) = t.dead_letters(Placed)
    assert letter.reason is Reason.UNSENDABLE
    assert letter.attempts == 1
    assert re.search(said, str(letter.error))
    assert t.published(Booked) == []


def test_of_a_batch_each_message_has_its_own_delivery_and_the_middleware_the_first() -> None:
    around: list[str | None] = []

    async def once(delivery: Delivery, call_next: CallNext) -> object:
        around.append(delivery.message.key)
        return await call_next(delivery)

    def carried_on(outgoing: Outgoing, delivery: Delivery) -> Outgoing:
        return outgoing._replace(headers={TENANT: delivery.message.headers[TENANT], **outgoing.headers})

    service = Service("shop", middleware=[once], outgoing=[carried_on])

    @service.handler(batch=Batch(size=2, wait=timedelta(seconds=5)))
    async def book(events: list[Placed]) -> list[Booked]:
        return [Booked(order=event.order) for event in events]

    async def main() -> list[dict[str, str]]:
        async with testing.run(service) as t:
            await t.publish(Placed(order="1"), headers={TENANT: "acme"})
            await t.publish(Placed(order="2"), headers={TENANT: "duff"})
            await t.idle()
            return sent_headers(t, Booked)

    assert asyncio.run(main()) == [{TENANT: "acme"}, {TENANT: "duff"}]
    assert around == ["1"]


# at declaration


def test_what_could_not_work_is_refused_when_it_is_declared() -> None:
    def plain(delivery: Delivery, call_next: CallNext) -> object: ...

    async def waits(outgoing: Outgoing, delivery: Delivery) -> Outgoing: ...  # type: ignore[empty-body]

    wrong: list[tuple[Callable[[], Service], str]] = [
        (lambda: Service("shop", middleware=[plain]), "plain is no coroutine"),  # type: ignore[list-item]
        (lambda: Service("shop", outgoing=[waits]), "waits in outgoing= is a coroutine"),  # type: ignore[list-item]
    ]
    for declare, said in wrong:
        with pytest.raises(DeclarationError, match=said):
            declare()

"""Bad input: each case is a typed error, or a dead letter with its reason, that names the thing and the mend.

On the memory broker; the contract asks the same of real ones. Nothing is lost and no consumer dies of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

import eventkit
from eventkit import (
    AdapterNotFound,
    BrokerUnavailable,
    Bus,
    Closed,
    Command,
    Context,
    DeclarationError,
    Event,
    InvalidMessage,
    MessageTooLarge,
    NoOwner,
    PublishError,
    Retry,
    Service,
    SettingsError,
    Topic,
    testing,
)
from eventkit import headers as h
from eventkit.adapter import Address, Connection, Limits, Message
from eventkit.memory import MemoryAdapter, Store
from eventkit.testing import Harness

T = TypeVar("T")


class Placed(Event, topic="bad-orders", key="order"):
    order: str
    total: int = 0


class Anything(Event, topic="bad-orders"):
    value: Any


class Ship(Command, service="shipping"):
    order: str


class Parcel(BaseModel):
    order: str


def run(main: Awaitable[T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(10):
            return await main

    return asyncio.run(limited())


def memory(**arguments: Any) -> MemoryAdapter:
    return MemoryAdapter(Connection(url=None, namespace="", client="test"), store=Store(), **arguments)


# what the environment says


def test_an_unknown_broker() -> None:
    with pytest.raises(AdapterNotFound, match=r"no broker 'rabit'; did you mean 'rabbit'\? \(installed: .*memory.*\)"):
        eventkit.connect("rabit")


def test_a_mistyped_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTKIT_BROKKER", "kafka")
    with pytest.raises(
        SettingsError, match=r"EVENTKIT_BROKKER is no setting of eventkit; did you mean EVENTKIT_BROKER\?"
    ):
        eventkit.connect()


def test_a_url_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages would stay in memory, where nobody looks for them."""
    for name in ("EVENTKIT_BROKER", "EVENTKIT_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match=r"a URL is given, but no broker: say which it is, such as EVENTKIT_BROKER"):
        eventkit.connect(url="redis://localhost:6379")
    monkeypatch.setenv("EVENTKIT_URL", "redis://localhost:6379")
    with pytest.raises(SettingsError, match="EVENTKIT_URL is given, but no broker"):
        eventkit.connect()
    assert eventkit.connect("memory").broker == "memory", "who says memory means it"


# what the code declares


def test_a_number_where_a_time_is_to_be() -> None:
    """It could be seconds or milliseconds."""

    async def publishes() -> None:
        async with Bus(memory(), source="test") as bus:
            await bus.publish(Placed(order="1"), delay=5)  # type: ignore[arg-type]

    async def asks() -> None:
        async with Bus(memory(), source="test") as bus:
            await bus.request(Ship(order="1"), timeout=5)  # type: ignore[arg-type]

    async def handles(event: Placed) -> None: ...

    wrong: dict[str, Callable[[], object]] = {
        "delay=5": lambda: run(publishes()),
        "request(): timeout=5": lambda: run(asks()),
        "Service('late'): timeout=5": lambda: Service("late", timeout=5),  # type: ignore[arg-type]
        "Service('late'): stop_timeout=5": lambda: Service("late", stop_timeout=5),  # type: ignore[arg-type]
        "handles: timeout=5": lambda: Service("late").handler(timeout=5)(handles),  # type: ignore[call-overload]
    }
    for said, mistake in wrong.items():
        with pytest.raises(DeclarationError) as caught:
            mistake()
        assert f"{said}: it is a timedelta, such as timedelta(seconds=5)" in str(caught.value)


def test_what_a_handler_takes_is_said_by_its_annotation() -> None:
    with pytest.raises(DeclarationError, match=r"handler\('orders'\): what it takes is said by the annotation"):
        Service("shop").handler("orders")  # type: ignore[call-overload]


def test_a_model_that_is_no_message() -> None:
    async def handles(event: Parcel) -> None: ...

    with pytest.raises(DeclarationError, match=r"annotated Parcel, and Parcel is no message: derive it from eventkit"):
        Service("shop").handler(handles)  # type: ignore[arg-type]


def test_a_return_annotation_of_what_nobody_can_publish() -> None:
    def text(event: Placed) -> str: ...
    def numbers(event: Placed) -> list[int] | None: ...
    def mapping(event: Placed) -> dict[str, Any]: ...
    def model(command: Ship) -> Placed | Parcel: ...
    def event(event: Placed) -> Placed | list[Ship] | tuple[Placed, Ship] | None: ...
    def unsaid(event: Placed) -> Any: ...
    def nothing(event: Placed) -> None: ...
    def any_event(event: Placed) -> list[Event | Command]: ...

    with pytest.raises(DeclarationError, match=r"or say that it is the reply: class Ship\(Command\[Parcel\], ...\)"):
        Service("shipping").handler(model)
    for function, named in ((text, "str"), (numbers, "int"), (mapping, "dict"), (model, "Parcel")):
        with pytest.raises(DeclarationError, match=f"returns {named}: what a handler returns is published, so it is"):
            Service("shipping").handler(function)
    for function in (event, unsaid, nothing, any_event):
        Service("shipping").handler(function)


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError(111, "Connection refused"), TimeoutError(), RuntimeError("WRONGPASS invalid username")],
)
def test_an_unreachable_address_and_a_wrong_password(error: Exception) -> None:
    class Away(MemoryAdapter):
        async def start(self, timeout: float, /) -> Limits:
            raise error

    async def main() -> None:
        bus = Bus(Away(Connection(url=None, namespace="", client="t"), store=Store()), source="t")
        said = rf"cannot connect to memory within 10 s \({type(error).__name__}: .*EVENTKIT_URL and the credentials"
        with pytest.raises(BrokerUnavailable, match=said) as raised:
            async with bus:
                pass
        assert raised.value.__cause__ is error
        with pytest.raises(Closed, match="this bus is not open: use it inside `async with"):
            await bus.publish(Placed(order="7"))

    run(main())


# what a publisher does


def test_the_wrong_verb() -> None:
    async def main() -> None:
        async with Bus(memory(), source="t") as bus:
            verbs: Any = bus  # so that type checkers, which refuse all of this, let it pass
            for refused, said in (
                (verbs.publish(Ship(order="7")), r"Ship is a command: .*takes events; send\(\) or request\(\) it"),
                (verbs.publish_many([Ship(order="7")]), r"Ship is a command: publish\(\) takes events"),
                (verbs.send(Placed(order="7")), r"Placed is an event: send\(\) takes commands; publish\(\) it"),
                (verbs.request(Placed(order="7")), r"Placed is an event: request\(\) takes commands; publish\(\) it"),
                (verbs.publish({"order": "7"}), r"takes an instance of an Event or Command class, not dict"),
                (verbs.publish(Placed), r"publish\(\) takes a message, not its class: make one, Placed\(\.\.\.\)"),
            ):
                with pytest.raises(DeclarationError, match=said):
                    await refused

    run(main())


def test_a_command_without_an_owner() -> None:
    async def main() -> None:
        async with Bus(memory(), source="t") as bus:
            with pytest.raises(
                NoOwner, match=r"the service 'shipping' has no inbox .*: start it once, or check .*service="
            ) as e:
                await bus.send(Ship(order="7"))
            assert [(f.message, f.unknown) for f in e.value.failures] == [(Ship(order="7"), False)]
            with pytest.raises(NoOwner):
                await bus.request(Ship(order="7"))

    run(main())


def test_values_delays_and_headers_that_cannot_be_sent() -> None:
    async def main() -> None:
        async with Bus(memory(), source="t") as bus:
            with pytest.raises(InvalidMessage, match=r"Anything cannot be written as application/json: .*object"):
                await bus.publish(Anything(value=object()))
            with pytest.raises(PublishError, match=r"number 1: .*Anything cannot be written") as many:
                await bus.publish_many([Anything(value=1), Anything(value=object()), Anything(value=2)])
            assert [(failure.index, failure.unknown) for failure in many.value.failures] == [(1, False)]
            with pytest.raises(InvalidMessage, match="header 'ce-id' is reserved"):
                await bus.publish(Placed(order="7"), headers={"ce-id": "x"})
            for delay in (timedelta(seconds=-1), timedelta(hours=25)):
                with pytest.raises(DeclarationError, match=r"delay=.*: it lies between zero and 24 hours"):
                    await bus.publish(Placed(order="7"), delay=delay)
            with pytest.raises(DeclarationError, match=r"request\(timeout=0:00:00\): it must be longer than nothing"):
                await bus.request(Ship(order="7"), timeout=timedelta(0))

            class Lost(Event):
                pass

            with pytest.raises(DeclarationError, match=r"Lost says no destination: declare it as class Lost"):
                await bus.publish(Lost())
            await bus.publish(Placed(order="still usable"))

    run(main())


def test_too_large_a_message() -> None:
    async def main() -> None:
        async with Bus(memory(), source="t") as bus:
            large = Anything(value="x" * 1_100_000)
            said = (
                r"Anything .* is 1,100,\d+ bytes on the wire, the broker takes 1,048,576: send a reference to the data"
            )
            with pytest.raises(MessageTooLarge, match=said) as one:
                await bus.publish(large)
            assert one.value.failures[0].message is large
            with pytest.raises(
                PublishError, match=r"1 of 3 events were not confirmed by memory; .*number 1: .*TooLarge"
            ) as many:
                await bus.publish_many([Placed(order="1"), large, Placed(order="2")])
            assert [(failure.index, failure.unknown) for failure in many.value.failures] == [(1, False)]

    run(main())


def test_an_error_of_the_broker_says_what_is_known() -> None:
    class Failing(MemoryAdapter):
        async def publish(self, messages: Any, /) -> list[Exception | None]:
            return [OSError("connection lost")] * len(messages)

    async def main() -> None:
        bus = Bus(Failing(Connection(url=None, namespace="", client="t"), store=Store()), source="t")
        async with bus:
            said = r"Placed id-1 was not confirmed by memory \(OSError: connection lost\); .* again with the same id"
            with pytest.raises(PublishError, match=said) as raised:
                await bus.publish(Placed(order="7"), id="id-1")
            assert raised.value.failures[0].unknown
            assert isinstance(raised.value.__cause__, OSError)

    run(main())


# what arrives


async def arrive(
    t: Harness, body: bytes | None, headers: Mapping[str, str] | None = None, type: str = "Placed", key: str = "k"
) -> None:
    """A message as a stranger puts it on the topic."""
    given = {h.ID: "id-1", h.SOURCE: "them", h.TYPE: type} if headers is None else headers
    await t._bus.deliver([Message(Address("topic", "bad-orders"), given.get(h.TYPE, ""), key, given, body)])


def service() -> tuple[Service, list[str]]:
    made, seen = Service("shipping", retry=Retry(attempts=3)), list[str]()

    @made.handler
    async def placed(event: Placed) -> None:
        seen.append(event.order)

    @made.handler
    async def ship(command: Ship) -> None:
        seen.append(command.order)

    return made, seen


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"{no json", None, "Placed id-1 on topic:bad-orders does not fit Placed: body: Invalid JSON"),
        (b"\x00\xff", None, "does not fit Placed: body: Invalid JSON"),
        (b"", None, "does not fit Placed: body: Invalid JSON"),
        (b"[1]", None, "does not fit Placed: body: Input should be an object"),
        (b'{"total": 1}', None, "does not fit Placed: order: Field required"),
        (b'{"order": "7", "total": "many"}', None, "does not fit Placed: total: Input should be a valid integer"),
        (None, None, r"has no body \(a tombstone\), so it is no Placed"),
        (b"<x/>", {h.ID: "i", h.TYPE: "Placed", h.CONTENT_TYPE: "text/xml"}, "content type 'text/xml' is neither JSON"),
        (b"{}", {h.CONTENT_TYPE: "application/cloudevents+json"}, "but is no CloudEvent in JSON: .*id and type"),
    ],
)
def test_what_cannot_be_decoded_is_a_dead_letter_and_the_next_is_handled(
    body: bytes | None, headers: dict[str, str] | None, said: str
) -> None:
    made, seen = service()

    async def main() -> None:
        async with testing.run(made) as t:
            await arrive(t, body, headers)
            await t.publish(Placed(order="next", total=1))
            await t.idle()
            (letter,) = t.dead_letters()
            assert (letter.reason, letter.attempts, letter.group) == ("undecodable", 1, "shipping")
            assert letter.message.body == body
            with pytest.raises(AssertionError, match=said):
                raise AssertionError(letter.message.headers[h.ERROR_MESSAGE])

    run(main())
    assert seen == ["next"]


def test_an_unknown_type_on_a_topic_is_skipped() -> None:
    made, seen = service()

    async def main() -> None:
        async with testing.run(made) as t:
            await arrive(t, b"{}", type="com.acme.unheard-of")
            await arrive(t, b'{"order": "7"}', headers={})  # foreign: no type, and its topic has no default
            await t.publish(Placed(order="next"))
            await t.idle()
            assert "shipping: skipped: no handler: " in t.story()
            assert not t.dead_letters()

    run(main())
    assert seen == ["next"]


def test_an_unknown_command_is_kept_for_an_hour_and_then_a_dead_letter() -> None:
    made, seen = service()

    async def main() -> None:
        async with testing.run(made) as t:
            before = t.now
            unknown = t._bus.encode(Ship(order="7"), id="c-1")
            unknown = unknown._replace(type="Unship", headers={**unknown.headers, h.TYPE: "Unship"})
            newer = t._bus.encode(Ship(order="8"), id="c-2")
            newer = newer._replace(headers={**newer.headers, h.VERSION: "2"})
            await t._bus.deliver([unknown, newer])
            await t.send(Ship(order="next"))
            await t.idle()
            assert timedelta(minutes=59) < t.now - before < timedelta(minutes=61)
            letters = {letter.message.headers[h.ID]: letter for letter in t.dead_letters()}
            assert {letter.reason for letter in letters.values()} == {"unhandled"}
            assert str(letters["c-1"].error) == "no handler of shipping takes Unship version 1"
            assert str(letters["c-2"].error) == "no handler of shipping takes Ship version 2"
            assert {letter.attempts for letter in letters.values()} == {1}  # waiting is no attempt

    run(main())
    assert seen == ["next"]


def test_foreign_messages_without_any_headers_are_read_where_the_topic_has_a_default() -> None:
    topic = Topic("bad-legacy", physical="legacy.orders")

    class Order(Event, topic=topic):
        order: str

    object.__setattr__(topic, "default", Order)  # the class needs the topic, and the topic the class
    made = Service("shipping", retry=Retry(attempts=2))
    seen: list[tuple[str, int, str, bool]] = []

    @made.handler
    async def order(event: Order, context: Context) -> None:
        seen.append((event.order, context.attempt, context.source, context.id == context.correlation_id))
        if context.attempt == 1:
            raise ValueError("again")

    async def main() -> None:
        async with testing.run(made) as t:
            address = Address("topic", "bad-legacy", "legacy.orders")
            await t._bus.deliver([Message(address, "", None, {}, b'{"order": "7"}')])
            await t._bus.deliver([Message(address, "", None, {}, b"no json")])
            await t.idle()
            (letter,) = t.dead_letters()
            assert letter.reason == "undecodable"
            assert letter.message.headers[h.ID].startswith("topic:bad-legacy@")
            assert letter.message.headers[h.ORIGIN] == "topic:bad-legacy|legacy.orders"

    run(main())
    assert seen == [("7", 1, "", True), ("7", 2, "", True)]


# what a handler does


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("text", "returned str: a handler returns an event, a command, a list of them, or None"),
        ([Placed(order="1"), 7], "returned int: a handler returns an event"),
        (Anything(value="x" * 1_100_000), "Anything .* bytes on the wire, the broker takes"),
        (Anything(value=object()), "returned a message that cannot be sent: Anything cannot be written"),
        (Ship(order="7"), "the service 'shipping' has no inbox"),
    ],
)
def test_an_outgoing_message_that_can_never_be_sent_is_a_dead_letter(returned: object, said: str) -> None:
    made = Service("listening")
    calls: list[str] = []

    @made.handler
    async def placed(event: Placed) -> Any:
        calls.append(event.order)
        return returned if event.order == "bad" else None

    async def main() -> None:
        async with testing.run(made) as t:
            await t.publish(Placed(order="bad"))
            await t.publish(Placed(order="next"))
            await t.idle()
            (letter,) = t.dead_letters()
            assert (letter.reason, letter.attempts) == ("unsendable", 1)
            with pytest.raises(AssertionError, match=said):
                raise AssertionError(letter.message.headers[h.ERROR_MESSAGE])

    run(main())
    assert calls == ["bad", "next"]


def test_an_exception_without_readable_text_is_still_a_failure() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Huge(Exception):
        pass

    made = Service("listening", retry=Retry(attempts=2))

    @made.handler
    async def placed(event: Placed) -> None:
        if event.order == "mute":
            raise Mute
        raise Huge("x" * 100_000) if event.order == "huge" else OSError("no such file: \udcff")

    async def main() -> None:
        async with testing.run(made) as t:
            await t.publish(Placed(order="mute"))
            await t.publish(Placed(order="huge"))
            await t.publish(Placed(order="half"))
            await t.idle()
            letters = {letter.message.key: letter.message.headers for letter in t.dead_letters()}
            assert letters["mute"][h.ERROR_MESSAGE] == "(its text cannot be made: RuntimeError)"
            assert letters["huge"][h.ERROR_MESSAGE].endswith("x [cut]")
            assert letters["half"][h.ERROR_MESSAGE] == r"no such file: \udcff"
            assert all(len(value) < 5_000 for headers in letters.values() for value in headers.values())

    run(main())

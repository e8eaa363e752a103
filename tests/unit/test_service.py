"""Services: what may be declared, and what a handler gets and gives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import pytest
from pydantic import BaseModel

from eventkit import (
    Bus,
    CallNext,
    CapabilityNotSupported,
    Command,
    CommandRejected,
    Context,
    DeclarationError,
    Delivery,
    Depends,
    Event,
    Reject,
    Retry,
    Router,
    Service,
    Topic,
    testing,
)
from eventkit.adapter import Address, Connection, Group
from eventkit.memory import MemoryAdapter, Store
from eventkit.messages import Undeclared

T = TypeVar("T")

request_id: ContextVar[str] = ContextVar("request_id", default="none")


class Quote(BaseModel):
    price: int


class Placed(Event, topic="sales", key="order"):
    order: str


class Cancelled(Event, topic="sales", key="order"):
    order: str


class Booked(Event, topic="parcels"):
    order: str
    how: str = ""


class Ship(Command, service="shipping"):
    order: str


class Ask(Command[Quote], service="shipping"):
    postcode: str


class Pay(Command, service="payments"):
    pass


def run(main: Awaitable[T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(10):
            return await main

    return asyncio.run(limited())


# what cannot work is refused, where it is declared


def refused(declare: Callable[[Service], object], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        declare(Service("shipping"))


def test_two_handlers_for_a_type_in_one_group() -> None:
    service = Service("shipping")

    @service.handler
    async def first(event: Placed) -> None: ...

    @service.handler(group="audit")
    async def audited(event: Placed) -> None: ...

    with pytest.raises(DeclarationError, match=r"second: Placed already has a handler here, .*first; .*group='\.\.\.'"):

        @service.handler
        async def second(event: Placed | Cancelled) -> None: ...

    with pytest.raises(DeclarationError, match=r"third: Placed already has a handler here, .*audited"):

        @service.handler(group="audit")
        async def third(event: Placed) -> None: ...

    assert len(service.handlers) == 2


def test_the_same_wire_name_twice_is_the_same_type() -> None:
    class One(Event, topic="twice", type="Twice"):  # not Placed, whose wire name others here look up
        pass

    class Other(Event, topic="twice", type="Twice"):
        pass

    class Elsewhere(Event, topic="archive", type="Twice"):
        pass

    service = Service("shipping")

    @service.handler
    async def first(event: One) -> None: ...

    @service.handler
    async def elsewhere(event: Elsewhere) -> None: ...

    with pytest.raises(DeclarationError, match="Other already has a handler here"):

        @service.handler
        async def second(event: Other) -> None: ...


def test_a_command_of_another_service() -> None:
    async def pay(command: Pay) -> None: ...

    refused(lambda s: s.handler(pay), "pay: Pay belongs to the service 'payments', not to 'shipping'")


def test_group_on_a_command() -> None:
    async def ship(command: Ship) -> None: ...

    refused(lambda s: s.handler(group="audit")(ship), "ship: group= is for events; a command has one handler")


def test_a_group_with_an_illegal_name() -> None:
    async def placed(event: Placed) -> None: ...

    refused(lambda s: s.handler(group="my audit")(placed), "placed: group: 'my audit' is no name")


def test_a_reply_that_is_not_the_commands() -> None:
    async def ask(command: Ask) -> str:
        return ""

    async def nothing(command: Ask) -> None: ...

    async def maybe(command: Ask) -> Quote | None: ...

    refused(lambda s: s.handler(ask), "ask: Ask promises a reply of Quote, but the handler returns str")
    refused(lambda s: s.handler(nothing), "nothing: Ask promises a reply of Quote, but the handler returns None")
    refused(lambda s: s.handler(maybe), r"Ask promises a reply of Quote, but the handler returns Quote \| None")


def test_handles_compares_the_command_too() -> None:
    async def ship(command: Ship) -> Quote:
        return Quote(price=1)

    refused(lambda s: s.handles(Ask)(ship), "ship: declared to handle Ask, but its parameter says Ship")


def test_a_first_parameter_that_is_no_message() -> None:
    async def text(event: str) -> None: ...

    async def bare(event) -> None: ...  # type: ignore[no-untyped-def]

    async def nothing() -> None: ...

    async def keyword(*, event: Placed) -> None: ...

    async def mixed(message: Placed | Ship) -> None: ...

    async def optional(event: Placed | None) -> None: ...

    refused(lambda s: s.handler(text), "text: its first parameter 'event' is annotated str; annotate it with")  # type: ignore[type-var]
    refused(lambda s: s.handler(bare), "bare: its first parameter 'event' is annotated nothing")
    refused(lambda s: s.handler(nothing), "nothing: a handler's first parameter is its message")  # type: ignore[arg-type]
    refused(lambda s: s.handler(keyword), "keyword: a handler's first parameter is its message")  # type: ignore[arg-type]
    refused(lambda s: s.handler(mixed), "mixed: handles events and commands at once")
    refused(lambda s: s.handler(optional), "optional: its first parameter 'event' is annotated")  # type: ignore[type-var]


def test_an_annotation_that_cannot_be_found() -> None:
    async def unknown(event: NoSuchClass) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    refused(lambda s: s.handler(unknown), "unknown: cannot read its annotations: name 'NoSuchClass'.* at run time")


def test_parameters_that_nothing_can_be_given_to() -> None:
    async def bare(event: Placed, more) -> None: ...  # type: ignore[no-untyped-def]

    async def typed(event: Placed, database: dict[str, str]) -> None: ...

    refused(lambda s: s.handler(bare), "bare: parameter 'more' has no annotation")
    refused(
        lambda s: s.handler(typed), "typed: nothing can be given to parameter 'database': .* 'shipping' yields nothing"
    )


def test_all_of_a_topic_needs_its_name() -> None:
    async def everything(event: Event) -> None: ...

    async def placed(event: Placed) -> None: ...

    async def mixed(event: Event | Placed) -> None: ...

    refused(lambda s: s.handler(everything), r'everything: .* say which: handler\(topic="orders"\) and Event alone')
    refused(lambda s: s.handler(topic="sales")(mixed), "mixed: .*Event alone")
    refused(
        lambda s: s.handler(topic="sales")(placed), "placed: topic= goes with an annotation of Event itself; Placed"
    )
    refused(lambda s: s.handler(topic="my orders")(everything), "'my orders' is no name")


def test_a_message_class_without_a_destination() -> None:
    class Lost(Event):
        pass

    with pytest.raises(DeclarationError, match="Lost says no destination"):

        @Service("shipping").handler
        async def lost(event: Lost) -> None: ...


def test_a_time_limit_of_nothing() -> None:
    async def placed(event: Placed) -> None: ...

    refused(lambda s: s.handler(timeout=timedelta(0))(placed), "placed: timeout=0:00:00 must be longer than nothing")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("my service", {}, r"Service\('my service'\): 'my service' is no name"),
        ("shipping.inbox", {}, "ends in a word that eventkit keeps"),
        ("shipping", {"concurrency": 0}, r"Service\('shipping'\): concurrency=0; 1 is the least"),
        ("shipping", {"start": "latest"}, r"Service\('shipping'\): start='latest'; it is 'now' or 'earliest'"),
    ],
)
def test_a_service_that_cannot_be(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        Service(name, **arguments)


def memory(store: Store | None = None) -> MemoryAdapter:
    return MemoryAdapter(Connection(url=None, namespace="", client="test"), store=store or Store())


def test_a_lifespan_that_cannot_run() -> None:
    @asynccontextmanager
    async def asks(service: object) -> AsyncIterator[None]:
        yield

    async def bare() -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def fine(size: int = 1) -> AsyncIterator[None]:
        yield

    Service("shipping", lifespan=fine)
    for lifespan, said in (
        (asks, "is called without arguments"),
        (bare, "decorate it with @contextlib.asynccontextmanager"),
        (fine(), "give the function itself"),
    ):
        with pytest.raises(DeclarationError, match=said):
            Service("shipping", lifespan=lifespan)  # type: ignore[arg-type]  # that is the point


def test_what_cannot_run_is_refused_at_start() -> None:
    class Forgetful(MemoryAdapter):
        capabilities = MemoryAdapter.capabilities.__class__(
            **{
                **{name: getattr(MemoryAdapter.capabilities, name) for name in MemoryAdapter.capabilities.__slots__},
                "start_earliest": False,
            }
        )

    async def placed(event: Placed) -> None: ...

    def service(name: str = "shipping", **arguments: Any) -> Service:
        made = Service(name, **arguments)
        made.handler(placed)
        return made

    async def main() -> None:
        async with Bus(Forgetful(Connection(url=None, namespace="", client="t"), store=Store()), source="t") as bus:
            with pytest.raises(DeclarationError, match=r"run\(\) needs a service"):
                bus.run()
            with pytest.raises(DeclarationError, match="service 'empty' has no handlers: nothing would ever run"):
                bus.run(Service("empty"))
            with pytest.raises(DeclarationError, match="two services are named 'shipping'"):
                bus.run(service(), service())
            audit = Service("shipping")
            audit.handler(group="audit")(placed)
            with pytest.raises(DeclarationError, match=r"and 'shipping\.audit' both make the group"):
                bus.run(audit, service("shipping.audit"))
            with pytest.raises(CapabilityNotSupported, match=r"Service\('shipping', start='earliest'\): memory keeps"):
                bus.run(service(start="earliest"))

    run(main())


# declaring is pure, and says what a service listens to


def test_groups_and_their_sources() -> None:
    service = Service("shipping", start="earliest")

    @service.handler
    async def orders(event: Placed | Cancelled) -> None: ...

    @service.handler
    async def ship(command: Ship) -> None: ...

    @service.handler
    async def ask(command: Ask) -> Quote:
        return Quote(price=1)

    @service.handler(group="audit", topic=Topic("sales", physical="legacy"))
    async def audit(event: Event) -> None: ...

    found = {name: group for name, (group, _) in service.groups().items()}
    assert found == {
        "shipping": Group("shipping", (Address("topic", "sales"), Address("inbox", "shipping")), "earliest"),
        "shipping.audit": Group("shipping.audit", (Address("topic", "sales", "legacy"),), "earliest"),
    }
    assert found["shipping"].dead == Address("dead", "shipping")
    assert repr(service) == "Service('shipping', 4 handlers)"


def test_a_decorated_function_is_still_the_function() -> None:
    service = Service("shipping")

    async def placed(event: Placed) -> Booked:
        return Booked(order=event.order)

    assert service.handler(placed) is placed
    assert asyncio.run(placed(Placed(order="7"))) == Booked(order="7")


def test_routers_are_included() -> None:
    router, service, other = Router(), Service("shipping"), Service("other")

    @router.handler
    async def placed(event: Placed) -> Booked:
        return Booked(order=event.order)

    @router.handler(group="audit", topic="sales")
    async def audit(event: Event) -> None: ...

    service.include(router)
    other.include(router)
    assert set(service.groups()) == {"shipping", "shipping.audit"}
    assert set(other.groups()) == {"other", "other.audit"}
    with pytest.raises(DeclarationError, match="Placed already has a handler here"):

        @service.handler
        async def again(event: Placed) -> None: ...

    commands = Router()

    @commands.handler
    async def ship(command: Ship) -> None: ...

    service.include(commands)
    with pytest.raises(DeclarationError, match="ship: Ship belongs to the service 'shipping', not to 'other'"):
        other.include(commands)

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.idle()
            assert t.published(Booked) == [Booked(order="7")]

    run(main())


def test_annotations_are_found_in_functions_and_on_objects_and_methods() -> None:
    class Local(Event, topic="local"):
        pass

    class CallableObject:
        async def __call__(self, event: Local) -> None:
            seen.append("object")

    class Holder:
        async def method(self, event: Local) -> None:
            seen.append("method")

    seen: list[str] = []
    services = [Service("one"), Service("two"), Service("three")]
    services[0].handler(CallableObject())
    services[1].handler(Holder().method)

    @services[2].handler
    async def local(event: Local) -> None:
        seen.append("function")

    async def main() -> None:
        async with testing.run(*services) as t:
            await t.publish(Local())
            await t.idle()

    run(main())
    assert sorted(seen) == ["function", "method", "object"]


# what a handler gets, and what it gives


def test_unions_and_all_of_a_topic() -> None:
    class Unheard(Event, topic="sales", type="orders.unheard"):
        note: str

    service = Service("shipping")
    seen: list[object] = []

    @service.handler
    async def either(event: Placed | Cancelled) -> None:
        seen.append(event)

    @service.handler(group="audit", topic="sales")
    async def audit(event: Event, context: Context) -> None:
        seen.append((type(event), context.type, event.model_dump()))

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="1"))
            await t.publish(Cancelled(order="2"))
            await t.publish(Unheard(note="x"))
            foreign = t._bus.encode(Placed(order="3"))
            foreign = foreign._replace(type="Foreign", headers={**foreign.headers, "ce-type": "Foreign"})
            await t._bus.deliver([foreign])
            await t.idle()

    run(main())
    assert [event for event in seen if isinstance(event, Event)] == [Placed(order="1"), Cancelled(order="2")]
    expected: list[object] = [
        (Placed, "Placed", {"order": "1"}),
        (Cancelled, "Cancelled", {"order": "2"}),
        (Unheard, "orders.unheard", {"note": "x"}),
        (Undeclared, "Foreign", {"order": "3"}),
    ]
    assert [item for item in seen if isinstance(item, tuple)] == expected


def test_context_says_all_about_the_message() -> None:
    service = Service("shipping", retry=Retry(attempts=2))
    seen: list[tuple[Any, ...]] = []

    @service.handler
    async def placed(event: Placed, about: Context) -> None:
        seen.append(
            (
                *(about.attempt, about.service, about.group, about.key, about.type, about.source, about.headers),
                *(about.correlation_id == about.id, about.causation_id, about.deadline),
            )
        )
        if about.attempt == 1:
            raise ValueError

    @service.handler(group="audit")
    async def audited(event: Placed, context: Context) -> None:
        seen.append((context.attempt, context.service, context.group))

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"), headers={"x": "y"})
            await t.idle()

    run(main())
    same = ("shipping", "shipping", "7", "Placed", "test", {"x": "y"}, True, None, None)
    assert sorted(seen, key=len) == [(1, "shipping", "shipping.audit"), (1, *same), (2, *same)]


def test_what_handlers_return_and_collect_goes_out() -> None:
    service = Service("shipping")

    @service.handler
    async def placed(event: Placed, context: Context) -> list[Event | Command]:
        context.publish(Booked(order=event.order, how="collected"), headers={"x": "1"}, delay=timedelta(minutes=5))
        context.send(Ship(order=event.order))
        return [Booked(order=event.order, how="returned"), Ship(order="returned")]

    @service.handler
    async def cancelled(event: Cancelled) -> tuple[Booked, ...]:
        return ()

    @service.handler
    async def ship(command: Ship, context: Context) -> Booked:
        with pytest.raises(DeclarationError, match=r"publish\(\) takes an Event, not Ship"):
            context.publish(command)  # type: ignore[arg-type]
        with pytest.raises(DeclarationError, match=r"send\(\) takes a Command, not Booked"):
            context.send(Booked(order="x"))  # type: ignore[arg-type]
        return Booked(order=command.order, how="shipped")

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.publish(Cancelled(order="7"))
            await t.idle()
            assert t.published(Booked) == [
                Booked(order="7", how="collected"),
                Booked(order="7", how="returned"),
                Booked(order="7", how="shipped"),
                Booked(order="returned", how="shipped"),
            ]
            assert t.sent(Ship) == [Ship(order="7"), Ship(order="returned")]
            assert not t.dead_letters()

    run(main())


def test_plain_functions_run_in_threads_and_see_the_context_variables() -> None:
    async def set_id(delivery: Delivery, call_next: CallNext) -> object:
        request_id.set(delivery.message.headers["x-id"])
        return await call_next(delivery)

    service = Service("shipping", middleware=[set_id], concurrency=4)
    together = threading.Barrier(4, timeout=5)
    seen: list[tuple[str, str, bool, str]] = []

    @service.handler
    def placed(event: Placed, context: Context) -> Booked:
        together.wait()
        thread = threading.current_thread()
        seen.append((event.order, request_id.get(), thread.daemon, thread.name))
        request_id.set("leaked")
        context.publish(Booked(order=event.order, how="collected"))
        return Booked(order=event.order, how="returned")

    @service.handler
    def cancelled(event: Cancelled) -> None:
        raise StopIteration

    async def main() -> None:
        async with testing.run(service) as t:
            for number in range(8):
                await t.publish(Placed(order=f"{number}"), headers={"x-id": f"id {number}"})
            await t.publish(Cancelled(order="x"), headers={"x-id": ""})
            await t.idle()
            assert len(t.published(Booked)) == 16
            assert len(t.dead_letters(Cancelled)) == 1

    run(main())
    assert sorted(item[:3] for item in seen) == [(f"{n}", f"id {n}", True) for n in range(8)]
    assert threading.main_thread().name not in {item[3] for item in seen}
    assert all(item[3].startswith("shipping handler") for item in seen)


def test_dependencies_are_solved_once_a_message_and_torn_down_before_messages_leave() -> None:
    steps: list[str] = []

    class Session:
        async def commit(self) -> None:
            steps.append("commit")

    async def session() -> AsyncIterator[Session]:
        steps.append("open")
        made = Session()
        try:
            yield made
            await made.commit()
        except ValueError:
            steps.append("roll back")
            raise
        finally:
            steps.append("close")

    def order_of(context: Context) -> str:
        return f"key {context.key}"

    async def user(s: Annotated[Session, Depends(session)], order: str = Depends(order_of)) -> str:
        return f"user of {order}, {isinstance(s, Session)}"

    service = Service("shipping", retry=Retry(attempts=1))

    @service.handler
    async def placed(
        event: Placed, context: Context, name: Annotated[str, Depends(user)], s: Annotated[Session, Depends(session)]
    ) -> Booked:
        steps.append(name)
        if event.order == "bad":
            raise ValueError
        return Booked(order=event.order)

    @service.handler
    async def booked(event: Booked) -> None:
        steps.append("the message left")

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.idle()
            assert steps == ["open", "user of key 7, True", "commit", "close", "the message left"]
            steps.clear()
            await t.publish(Placed(order="bad"))
            await t.idle()
            assert steps == ["open", "user of key bad, True", "roll back", "close"]
            assert [letter.reason for letter in t.dead_letters()] == ["exhausted"]

    run(main())


def test_a_failing_teardown_fails_the_attempt_and_nothing_leaves() -> None:
    def failing() -> Any:
        yield 1
        raise RuntimeError("commit failed")

    service = Service("shipping", retry=Retry(attempts=2))

    @service.handler
    async def placed(event: Placed, one: Annotated[int, Depends(failing)]) -> Booked:
        return Booked(order=event.order)

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.idle()
            assert t.published(Booked) == []
            (letter,) = t.dead_letters()
            assert (str(letter.error), letter.attempts) == ("commit failed", 2)

    run(main())


class Pool:
    """What a lifespan yields."""

    open = False


def test_the_lifespan_is_around_everything_and_handlers_can_ask_for_what_it_yields() -> None:
    pool = Pool()
    seen: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Pool]:
        pool.open = True
        try:
            yield pool
        finally:
            pool.open = False
            seen.append(("closed", pool.open))

    service = Service("shipping", lifespan=lifespan)

    @service.handler
    async def placed(event: Placed, given: Pool, context: Context) -> None:
        seen.append((event.order, given is pool and pool.open))

    @service.handler
    def in_thread(event: Cancelled, given: Pool) -> None:
        seen.append((event.order, given is pool and pool.open))

    async def wrong(event: Booked, given: Quote) -> None: ...

    with pytest.raises(DeclarationError, match=r"nothing can be given to parameter 'given': .*yields .*Pool"):
        service.handler(wrong)

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="1"))
            await t.publish(Cancelled(order="2"))
            await t.idle()

    run(main())
    assert sorted(seen[:2]) == [("1", True), ("2", True)]
    assert seen[2:] == [("closed", False)]


def test_a_lifespan_that_fails_stops_the_start_and_ends_the_others() -> None:
    ended: list[str] = []

    def service(name: str, fails: bool) -> Service:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            if fails:
                raise OSError("no database")
            yield
            ended.append(name)

        made = Service(name, lifespan=lifespan)

        @made.handler
        async def placed(event: Placed) -> None: ...

        return made

    async def main() -> None:
        with pytest.raises(OSError, match="no database"):
            async with testing.run(service("first", False), service("second", True)):
                pass
        assert ended == ["first"]
        assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}  # type: ignore[union-attr]

    run(main())


def test_a_consumer_that_cannot_be_stopped_does_not_keep_the_lifespan_open() -> None:
    ended: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        yield "value"
        ended.append("lifespan")

    class Stuck(MemoryAdapter):
        async def consume(self, group: Group, *given: Any, **named: Any) -> Any:
            consumer = await super().consume(group, *given, **named)
            stop = consumer.stop

            async def fail(timeout: float) -> None:
                await stop(timeout)
                raise OSError("gone")

            if group.name == "shipping":
                setattr(consumer, "stop", fail)  # noqa: B010 type checkers refuse the plain form
            return consumer

    service = Service("shipping", lifespan=lifespan)
    begun = asyncio.Event()

    @service.handler
    async def book(event: Placed) -> None: ...

    @service.handler(group="audit")
    async def audit(event: Placed) -> None:
        begun.set()
        await asyncio.sleep(0.2)
        ended.append("handler")

    async def main() -> None:
        adapter = Stuck(Connection(url=None, namespace="", client="t"), store=Store())
        async with Bus(adapter, source="t") as bus:
            with pytest.raises(OSError, match="gone"):
                async with bus.run(service):
                    await bus.publish(Placed(order="1"))
                    await begun.wait()

    asyncio.run(main())
    assert ended == ["handler", "lifespan"], "of a group that stops as it should"


def test_middleware_goes_around_each_call_the_first_outermost() -> None:
    steps: list[str] = []

    def named(name: str) -> Any:
        async def middleware(delivery: Delivery, call_next: CallNext) -> object:
            steps.append(f"{name} in {delivery.message.type}")
            try:
                return await call_next(delivery)
            finally:
                steps.append(f"{name} out")

        return middleware

    async def replaces(delivery: Delivery, call_next: CallNext) -> object:
        result = await call_next(delivery)
        return Booked(order="replaced") if isinstance(result, Booked) else result

    service = Service("shipping", middleware=[named("a"), replaces, named("b")])

    @service.handler
    async def placed(event: Placed) -> Booked:
        steps.append("handler")
        return Booked(order=event.order)

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.idle()
            assert t.published(Booked) == [Booked(order="replaced")]

    run(main())
    assert steps == ["a in Placed", "b in Placed", "handler", "b out", "a out"]


def test_middleware_sees_and_makes_failures() -> None:
    async def swallows(delivery: Delivery, call_next: CallNext) -> object:
        try:
            return await call_next(delivery)
        except ValueError:
            return None

    async def fails(delivery: Delivery, call_next: CallNext) -> object:
        raise PermissionError("not you")

    for middleware, letters in ((swallows, []), (fails, ["PermissionError: not you"])):
        service = Service("shipping", middleware=[middleware], retry=Retry(attempts=1))

        @service.handler
        async def placed(event: Placed) -> None:
            raise ValueError

        async def main(service: Service = service, letters: list[str] = letters) -> None:
            async with testing.run(service) as t:
                await t.publish(Placed(order="7"))
                await t.idle()
                assert [f"{type(d.error).__name__}: {d.error}" for d in t.dead_letters()] == letters

        run(main())


def test_a_time_limit_fails_the_attempt() -> None:
    service = Service("shipping", timeout=timedelta(seconds=30), retry=Retry(attempts=1))

    @service.handler(timeout=timedelta(milliseconds=20))
    async def placed(event: Placed) -> None:
        await asyncio.sleep(5)

    @service.handler
    async def cancelled(event: Cancelled) -> None:
        raise TimeoutError("its own")

    async def main() -> None:
        async with testing.run(service) as t:
            await t.publish(Placed(order="7"))
            await t.publish(Cancelled(order="8"))
            await t.idle()
            said = {letter.type: str(letter.error) for letter in t.dead_letters()}
            assert "placed ran longer than its limit of 0.02 s" in said["Placed"]
            assert said["Cancelled"] == "its own"

    run(main())


def test_reject_carries_its_messages_and_is_no_outcome_of_an_event() -> None:
    service = Service("shipping")

    @service.handler
    async def ask(command: Ask) -> Quote:
        raise Reject("too far", Booked(order="never"))

    @service.handler
    async def placed(event: Placed) -> None:
        raise Reject("events are facts")

    async def main() -> None:
        async with testing.run(service) as t:
            with pytest.raises(CommandRejected, match="too far"):
                await t.request(Ask(postcode="1"))
            await t.publish(Placed(order="7"))
            await t.idle()
            assert t.rejected(Ask) == ["too far"]
            assert t.published(Booked) == [Booked(order="never")]
            (letter,) = t.dead_letters()
            assert letter.reason == "gave-up"
            assert "only commands can be refused" in str(letter.error)

    run(main())


def test_replies_are_values_of_the_promised_type() -> None:
    class Sum(Command[int], service="shipping"):
        numbers: list[int]

    class Both(Command, service="shipping"):
        pass

    class Wrong(Command[Quote], service="shipping"):
        pass

    service = Service("shipping", retry=Retry(attempts=1))

    @service.handles(Ask)
    async def ask(command: Ask) -> Quote:
        return Quote(price=len(command.postcode))

    @service.handler
    def add(command: Sum) -> int:
        return sum(command.numbers)

    @service.handler
    async def both(command: Both) -> Booked:
        return Booked(order="of a command without a reply")

    @service.handler
    async def wrong(command: Wrong):  # type: ignore[no-untyped-def]
        return "no quote"

    async def main() -> None:
        async with testing.run(service) as t:
            assert await t.request(Ask(postcode="123")) == Quote(price=3)
            assert await t.request(Sum(numbers=[1, 2, 3])) == 6
            assert await t.request(Both()) is None  # type: ignore[func-returns-value]
            assert t.published(Booked) == [Booked(order="of a command without a reply")]
            with pytest.raises(Exception, match=r"wrong returned str, which is no .*Quote"):
                await t.request(Wrong())

    run(main())

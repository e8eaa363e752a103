"""R: routing, and C: what a group starts with."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from eventkit import (
    Bus,
    Command,
    Context,
    DeclarationError,
    Event,
    NoOwner,
    Retry,
    Service,
)
from eventkit.adapter import Group
from eventkit.clock import SystemClock
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import contents, started
from eventkit.contract.samples import Counted, Ship, raises


class Quote(Command[int], service="shipping"):
    """A command with a reply."""

    weight: int


class Pack(Command, service="shipping"):
    """A command that older replicas of its service do not know."""

    order: str


class StockChanged(Event, topic="stock", type="Changed"):
    """Its wire name is another's, too."""

    count: int


class PriceChanged(Event, topic="stock.price", type="Changed"):
    """On a topic whose name begins like the other's."""

    count: int


class Noise(Event, topic="counts", key="key"):
    """Of a type that the service does not handle, on a topic that it reads."""

    key: str
    number: int


@check("R1", "a command reaches one handler, once, and nobody but its owner; an event may have no subscriber")
async def one_handler(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[tuple[str, str]] = []

    def replica(name: str) -> Service:
        service = Service("shipping")

        @service.handler
        async def ship(command: Ship) -> None:
            got.append((name, command.order))

        return service

    bystander = Service("counting")

    @bystander.handler
    async def counts(event: Counted) -> None:
        got.append(("bystander", str(event.number)))

    async with bus(backend, namespace) as one, bus(backend, namespace) as two:
        await one.publish(Counted(number=1))  # nobody is there yet
        async with one.run(replica("one"), bystander), two.run(replica("two")):
            for number in range(60):
                await two.send(Ship(order=str(number)))
            await eventually(lambda: len(got) >= 60, "all are handled")
            await stays(lambda: len(got) == 60, "and no more", 0.2)
    assert Counter(order for _, order in got) == Counter(map(str, range(60)))
    assert {name for name, _ in got} <= {"one", "two"}


@check("R3", "a command whose service has no inbox raises NoOwner; one whose owner is merely down does not")
async def no_owner(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[str] = []
    without_commands, owner = Service("shipping"), Service("shipping")

    @without_commands.handler
    async def counts(event: Counted) -> None:
        raise AssertionError("nothing was published")

    @owner.handler
    async def ship(command: Ship) -> None:
        got.append(command.order)

    async with bus(backend, namespace) as one:
        for _ in range(2):
            error = await raises(NoOwner, one.send(Ship(order="lost")))
            assert "shipping" in str(error), error
            assert [failure.unknown for failure in error.failures] == [False]
        await raises(NoOwner, one.request(Quote(weight=1), timeout=timedelta(seconds=10)))
        async with one.run(without_commands):
            await raises(NoOwner, one.send(Ship(order="lost")))
        async with bus(backend, namespace) as two, two.run(owner):
            await one.send(Ship(order="1"))
            await eventually(lambda: got, "the owner gets it, by a sender that had not found it before")
        await one.send(Ship(order="2"))
        async with bus(backend, namespace) as two, two.run(owner):
            await eventually(lambda: len(got) >= 2, "what was sent while it was down")
            await stays(lambda: len(got) == 2, "and nothing that had no owner", 0.1)
    assert got == ["1", "2"]


@check("R4", "the wrong verb is refused: commands are not published, events are not sent or requested")
async def wrong_verb(backend: Backend) -> None:
    namespace = fresh_namespace()
    refused: list[str] = []
    got: list[str] = []
    service = Service("shipping")
    event: Any = Counted(number=1)
    command: Any = Ship(order="1")

    @service.handler
    async def ship(command: Ship, context: Context) -> None:
        got.append(command.order)
        for verb, wrong in _WRONG_VERBS:
            refused.append(_refused(functools.partial(getattr(context, verb), wrong)))

    @service.handler
    async def counts(event: Counted) -> None:
        got.append(str(event.number))

    async with bus(backend, namespace) as one, one.run(service):
        for wrong in (one.publish(command), one.publish_many([command]), one.send(event), one.request(event)):
            error = await raises(DeclarationError, wrong)
            assert "Ship" in str(error) or "Counted" in str(error), error
        await one.send(Ship(order="right"))
        await eventually(lambda: len(refused) >= 2, "in a handler too")
        await stays(lambda: got == ["right"], "nothing of it was sent", 0.1)


_WRONG_VERBS = (("publish", Ship(order="wrong")), ("send", Counted(number=-1)))


@check("R5", "a second handler of a type in one group is refused; another group, of events, may have one")
async def second_handler(backend: Backend) -> None:
    service = Service("shipping")

    async def first(event: Counted | Noise) -> None: ...
    async def second(event: Noise) -> None: ...
    async def ship(command: Ship) -> None: ...
    async def ship_too(command: Ship) -> None: ...

    service.handler(first)
    service.handler(ship)
    for message in (_refused(lambda: service.handler(second)), _refused(lambda: service.handler(ship_too))):
        assert ("Noise" in message) or ("Ship" in message), message
    service.handler(group="audit")(second)
    assert "group" in _refused(lambda: service.handler(group="audit")(ship_too))
    assert "shipping" in _refused(lambda: Service("billing").handler(ship))
    async with bus(backend, fresh_namespace()) as one:
        other = Service("shipping")
        other.handler(ship)
        assert "shipping" in _refused(lambda: one.run(service, other))


@check("R6", "topics do not mix, also where names of topics or of types are alike")
async def topics_apart(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: dict[str, list[int]] = defaultdict(list)
    stock, price, both = Service("stock"), Service("price"), Service("both")

    async def stock_changed(event: StockChanged, context: Context) -> None:
        got[f"{context.group}: stock"].append(event.count)

    async def price_changed(event: PriceChanged, context: Context) -> None:
        got[f"{context.group}: price"].append(event.count)

    stock.handler(stock_changed)
    price.handler(price_changed)
    both.handler(stock_changed)
    both.handler(price_changed)
    async with bus(backend, namespace) as one, one.run(stock, price, both):
        await one.publish_many([kind(count=n + add) for n in range(50) for kind, add in _CHANGES])
        await eventually(lambda: sum(map(len, got.values())) >= 200, "fifty of each, twice")
        await stays(lambda: sum(map(len, got.values())) == 200, "and no more", 0.1)
    first, second = list(range(50)), list(range(100, 150))
    assert {name: sorted(counts) for name, counts in got.items()} == {
        "stock: stock": first,
        "both: stock": first,
        "price: price": second,
        "both: price": second,
    }


_CHANGES: tuple[tuple[type[StockChanged | PriceChanged], int], ...] = ((StockChanged, 0), (PriceChanged, 100))


class Behind(SystemClock):
    """A clock that is late by almost as long as an unknown command waits, so that the check need not wait for that."""

    def now(self) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=29.8)


@check(
    "R7", "types that a group does not handle are skipped on a topic; on an inbox they are kept for a replica that does"
)
async def unhandled_types(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[str] = []
    new, old = Service("shipping"), Service("shipping")

    async def ship(command: Ship) -> None:
        got.append(f"ship {command.order}")

    async def counts(event: Counted) -> None:
        got.append(f"count {event.number}")

    for service in (old, new):
        service.handler(ship)
        service.handler(counts)

    @new.handler(retry=Retry(attempts=3, first_delay=timedelta(milliseconds=300), jitter=0))
    async def pack(command: Pack, context: Context) -> None:
        got.append(f"pack {command.order} attempt {context.attempt}")
        if command.order == "2" and context.attempt == 1:
            raise RuntimeError("once more")

    group = Group("shipping", ())
    async with bus(backend, namespace) as sender:
        async with Bus(backend.adapter(namespace), source="old", clock=Behind()) as older, older.run(old) as running:
            for number in range(20):
                await sender.publish(Noise(number=number, key=f"k{number % 3}"))
                await sender.publish(Counted(number=number, key=f"k{number % 3}"))
            await sender.send(Pack(order="1"))
            await sender.send(Ship(order="1"))
            await eventually(lambda: len(got) >= 21, "what the old replica handles, behind what it does not")
            await eventually(lambda: running.counts["shipping"].skipped >= 20, "events of unhandled types are skipped")
            await stays(lambda: len(got) == 21, "the unknown command waits", 0.3)
            assert running.counts["shipping"].skipped == 20
        async with bus(backend, namespace) as newer, newer.run(new):
            await eventually(lambda: len(got) >= 22, "a replica that knows the command gets it")
            await stays(lambda: len(got) == 22, "once", 0.3)
            await sender.send(Pack(order="2"))
            await eventually(lambda: len(got) >= 23, "another one fails")
        async with Bus(backend.adapter(namespace), source="old", clock=Behind()) as older, older.run(old):
            await stays(lambda: len(got) == 23, "its next attempt waits, too", 0.7)
        async with bus(backend, namespace) as newer, newer.run(new):
            await eventually(lambda: len(got) >= 24, "and comes to a replica that knows it")
    packs = ["pack 1 attempt 1", "pack 2 attempt 1", "pack 2 attempt 2"]
    assert Counter(got) == Counter(["ship 1", *packs, *(f"count {number}" for number in range(20))])
    async with started(backend, namespace) as adapter:
        assert await contents(adapter, group.dead) == [], "none of it is a dead letter"


def _refused(declaring: Any) -> str:
    try:
        declaring()
    except DeclarationError as error:
        return str(error)
    raise AssertionError("it was not refused")

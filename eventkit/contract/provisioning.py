"""R9, R10, R13: names and what is made on the broker; C1: where a new group begins; C3: what validating can find."""

from __future__ import annotations

from collections import Counter
from types import new_class
from typing import Any

from eventkit import (
    Bus,
    CapabilityNotSupported,
    Command,
    Event,
    NoOwner,
    NotProvisioned,
    Provision,
    PublishError,
    Service,
)
from eventkit.adapter import DONE, Address, Group, Start
from eventkit.contract.checks import Backend, Refused, Vacuous, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import put, raw, receive, started
from eventkit.contract.samples import Counted, Ship, counted, raises
from eventkit.wire import new_id


class Named(Event, key="key"):
    """Says where it was published."""

    said: str
    key: str = "k"


TOPICS = (
    "orders",
    *(f"orders{mark}eu" for mark in (".", "-", "_", "")),
    *("Orders.eu", "orders.eu.1", "orders.eu-1", "orders-eu.1", "a--b", "a__b", "a_-b", "a-.b"),
    *(f"{'x' * 200}{last}" for last in ("", "-a", "-b", ".a")),
)
SERVICES = ("s.eu", "s-eu", "s_eu", f"{'y' * 180}.1", f"{'y' * 180}.2")


@check("R9", "each legal name works, long or with signs that a broker takes for something; none is taken for another")
async def legal_names(backend: Backend) -> None:
    namespace = f"{fresh_namespace()}.test-env_1"
    got: list[tuple[str, str]] = []
    events = {
        topic: new_class(f"On{at}", (Named,), {"topic": topic, "type": "Named"}) for at, topic in enumerate(TOPICS)
    }
    commands = {name: new_class(f"To{at}", (Command,), {"service": name}) for at, name in enumerate(SERVICES)}
    services = {name: Service(name) for name in SERVICES}

    def listen(name: str, kind: type[Any], said: str) -> None:
        async def named(message: Any) -> None:
            got.append((name, message.said if isinstance(message, Named) else said))

        named.__annotations__["message"] = kind
        services[name].handler(named)

    expected: Counter[tuple[str, str]] = Counter()
    for name in SERVICES:  # one reads all topics, each other one only two of them; each has an inbox
        for topic in TOPICS if name == "s.eu" else ("orders.eu", TOPICS[-1]):
            listen(name, events[topic], topic)
            expected[name, topic] += 1
        listen(name, commands[name], f"inbox of {name}")
        expected[name, f"inbox of {name}"] += 1
    async with bus(backend, namespace) as one, one.run(*services.values()) as running:
        await one.publish_many([events[topic](said=topic) for topic in TOPICS])
        for name in SERVICES:
            await one.send(commands[name]())
        await eventually(lambda: len(got) >= expected.total(), "each for each that reads it")
        await stays(lambda: len(got) == expected.total(), "and no more", 0.2)
        skipped = {name: counts.skipped for name, counts in running.counts.items() if counts.skipped}
    assert not skipped, f"read from a topic that is none of theirs: {skipped}"
    assert Counter(got) == expected


@check("C1", "a new group starts with the earliest where the broker can; where not, asking for it is refused at start")
async def earliest(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: dict[str, list[int]] = {"earliest": [], "now": []}

    def service(start: Start) -> Service:
        made = Service(start, start=start)

        @made.handler
        async def counts(event: Counted) -> None:
            got[start].append(event.number)

        return made

    can = backend.adapter(namespace).capabilities.start_earliest
    async with bus(backend, namespace) as one:
        await one.publish_many(counted(range(100), keys=7))
        if not can:
            error = await raises(CapabilityNotSupported, _enter(one, service("earliest")))
            assert "earliest" in str(error), error
            assert one.broker in str(error), f"it does not name the broker: {error}"
            raise Refused("start='earliest': the broker keeps nothing for a group that does not exist")
        async with one.run(service("earliest"), service("now")):
            await one.publish_many(counted(range(100, 110)))
            await eventually(lambda: len(got["earliest"]) >= 110 and len(got["now"]) >= 10, "old and new ones")
            await stays(lambda: len(got["earliest"]) == 110 and len(got["now"]) == 10, "each once", 0.2)
        async with one.run(service("earliest")):
            await one.publish(Counted(number=110))
            await eventually(lambda: len(got["earliest"]) >= 111, "one more")
            await stays(lambda: len(got["earliest"]) == 111, "a group that exists goes on where it was", 0.2)
    assert sorted(got["earliest"]) == list(range(111))
    assert sorted(got["now"]) == list(range(100, 110))


@check("R10", "what is missing is created, or named and refused, or not asked for: create, validate, assume")
async def provisioning(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[object] = []
    service = Service("shipping")

    @service.handler
    async def ship(command: Ship) -> None:
        got.append(command)

    @service.handler
    async def counts(event: Counted) -> None:
        got.append(event)

    def strict(how: Provision) -> Bus:
        return Bus(backend.adapter(namespace), source="contract", provision=how)

    async def run(on: Bus) -> None:
        wanted = len(got) + 2
        async with on.run(service):
            await on.publish(Counted(number=wanted))
            await on.send(Ship(order=str(wanted)))
            await eventually(lambda: len(got) >= wanted, "an event and a command")

    async with strict(Provision.VALIDATE) as validating:
        error = await raises(NotProvisioned, _enter(validating, service))
        for name in ("shipping", "counts"):
            assert name in str(error), f"it does not name {name}: {error}"
        unsent = await raises(PublishError, validating.publish(Counted(number=0)))
        assert isinstance(unsent.__cause__, NotProvisioned), repr(unsent.__cause__)
        await raises(NoOwner, validating.send(Ship(order="0")))
        async with strict(Provision.ASSUME) as assuming:
            await raises(Exception, _enter(assuming, service))
            await raises(PublishError, assuming.publish(Counted(number=0)))
        await raises(NotProvisioned, _enter(validating, service))  # neither of them has made anything
        async with bus(backend, namespace) as creating:
            await run(creating)
        await run(validating)
    async with strict(Provision.ASSUME) as assuming:
        await run(assuming)
    assert len(got) == 6


@check(
    "R13", "a physical name is taken as it is: the same channel for every namespace, and deliveries carry its address"
)
async def physical_names(backend: Backend) -> None:
    legacy = Address("topic", "legacy", f"legacy-{new_id()}")
    own = Address("topic", "legacy")
    group = Group("reading", (legacy, own))
    async with started(backend, fresh_namespace()) as one, started(backend, fresh_namespace()) as other:
        for adapter in (one, other):
            await adapter.provision([group], Provision.CREATE)
            await adapter.provision([legacy], Provision.VALIDATE)
        first, second = [await receive(adapter, group, settle_with=DONE) for adapter in (one, other)]
        await put(one, raw(legacy, b"for both", "k"))
        await put(one, raw(own, b"for one", "k"))
        await eventually(lambda: len(first.got) >= 2 and second.got, "the foreign one comes to both")
        await stays(lambda: (len(first.got), len(second.got)) == (2, 1), "one came to another namespace", 0.3)
        assert {(found.message.address, found.message.body) for found in first.got} == {
            (legacy, b"for both"),
            (own, b"for one"),
        }
        assert [found.message.address for found in second.got] == [legacy]


@check("C3", "validate finds a group that is not subscribed to one of its topics, where the broker can tell")
async def subscriptions_are_validated(backend: Backend) -> None:
    one, other, inbox = Address("topic", "one"), Address("topic", "other"), Address("inbox", "shipping")
    group, wider = Group("shipping", (one,)), Group("shipping", (one, other))
    async with started(backend, fresh_namespace()) as adapter:
        await adapter.provision([group, other], Provision.CREATE)
        for how in (Provision.CREATE, Provision.VALIDATE):
            error = await raises(NotProvisioned, adapter.provision([inbox], how))
            assert "shipping" in str(error), f"it does not say whose inbox is missing: {error}"
        await adapter.provision([group, other], Provision.VALIDATE)
        if not adapter.capabilities.validates_subscriptions:
            await adapter.provision([wider], Provision.VALIDATE)  # both are there, and nobody can say more
            raise Vacuous("the broker does not say what a group is subscribed to")
        error = await raises(NotProvisioned, adapter.provision([wider], Provision.VALIDATE))
        assert "shipping" in str(error), f"it does not name the group: {error}"
        assert "other" in str(error), f"it does not name the topic: {error}"
        await adapter.provision([wider], Provision.CREATE)
        await adapter.provision([wider], Provision.VALIDATE)


async def _enter(on: Bus, service: Service) -> None:
    async with on.run(service):
        pass

"""D: delivery."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from eventkit import Command, Context, Event, MessageTooLarge, PublishError, Service
from eventkit.adapter import DONE, RELEASE, Address, Delivery, Group, Move, Provision
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import Receiving, contents, put, raw, receive, started
from eventkit.contract.samples import Counted, Ordered, Ship, a_moment, counted, raises, unusual_order


@check("D1", "what a handler gets is what was published: the content, its key, its headers and who sent it")
async def round_trip(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[tuple[Event | Command, Context]] = []
    service = Service("shipping")

    @service.handler
    async def ordered(event: Ordered, context: Context) -> None:
        got.append((event, context))

    @service.handler
    async def ship(command: Ship, context: Context) -> None:
        got.append((command, context))

    event = unusual_order()
    headers = {"tenant": "eu-1", "X-Empty": "", "city": "Zürich 東京", "quoted": '50% "off", a=b; c'}
    async with bus(backend, namespace, "shop") as sender, sender.run(service):
        await sender.publish(event, headers=headers, id="order-1", correlation_id="chain-1")
        await sender.send(Ship(order="x", gifts=3), headers=headers)
        await eventually(lambda: len(got) >= 2, "the event and the command arrive")
        await stays(lambda: len(got) == 2, "and no more", 0.1)
    (received, context), (command, other) = sorted(got, key=lambda pair: isinstance(pair[0], Command))
    assert received == event
    assert (context.id, context.correlation_id, context.causation_id) == ("order-1", "chain-1", None)
    assert (context.type, context.key, context.source) == ("Ordered", "Auftrag №1 ✓", "shop")
    assert context.headers == headers
    assert context.attempt == 1
    assert command == Ship(order="x", gifts=3)
    assert (other.type, other.key, other.source, other.correlation_id) == ("Ship", None, "shop", other.id)
    assert other.headers == headers


@check("D2", "publish returns when the broker has the message, or raises; of many, each is answered")
async def confirmed_or_raised(backend: Backend) -> None:
    namespace = fresh_namespace()
    topic = Address("topic", "counts")
    group = Group("counting", (topic,))
    adapter = backend.adapter(namespace)
    limits = await adapter.start(15.0)
    try:
        await adapter.provision([group, topic], Provision.CREATE)
        messages = [raw(topic, b"%d" % number, f"k{number % 7}") for number in range(300)]
        messages[100] = raw(topic, bytes(limits.message_bytes + 1), "k1")
        messages[200] = raw(Address("inbox", "nobody"), b"200")
        answers = list(await adapter.publish(messages))
        assert len(answers) == 300, f"{len(answers)} answers to 300 messages"
        refused = {place: answer for place, answer in enumerate(answers) if answer is not None}
        assert set(refused) == {100, 200}, f"not confirmed: {refused}"
        assert isinstance(refused[100], MessageTooLarge), repr(refused[100])
        assert list(await adapter.publish([])) == []
    finally:
        await adapter.stop(5.0)
    async with bus(backend, namespace) as sender:  # its process ends before anybody reads
        await sender.publish(Counted(number=300, key="k1"))
        large = Counted(number=-1, padding="x" * (limits.message_bytes + 1))
        error = await raises(PublishError, sender.publish(large))
        assert [failure.unknown for failure in error.failures] == [False], error.failures
    async with started(backend, namespace) as adapter:
        received = await receive(adapter, group, settle_with=DONE)
        await received.arrive(299)
        await stays(lambda: len(received.got) == 299, "nothing that was refused arrives", 0.2)
        expected = Counter(b"%d" % number for number in range(300) if number not in (100, 200))
        bodies = Counter(delivery.message.body or b"" for delivery in received.got if delivery.message.type == "Raw")
        assert bodies == expected, f"missing {expected - bodies}, too many {bodies - expected}"


@check("D3", "what is published while a group's consumers are down is delivered when one comes")
async def while_down(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[str] = []
    service = Service("shipping")

    @service.handler
    async def counts(event: Counted) -> None:
        got.append(f"event {event.number}")

    @service.handler
    async def ship(command: Ship) -> None:
        got.append(f"command {command.order}")

    async with bus(backend, namespace) as sender:
        async with bus(backend, namespace) as first, first.run(service):
            await sender.publish(Counted(number=0, key="k"))
            await eventually(lambda: got, "the event that was published while it runs")
        await sender.publish_many(counted(range(1, 101)))
        for number in range(10):
            await sender.send(Ship(order=str(number)))
    assert got == ["event 0"]
    async with bus(backend, namespace) as second, second.run(service):
        await eventually(lambda: len(got) >= 111, "all that was published meanwhile")
        await stays(lambda: len(got) == 111, "and each once", 0.2)
    async with bus(backend, namespace) as third, third.run(service):
        await third.publish(Counted(number=101, key="k"))
        await eventually(lambda: len(got) >= 112, "one more")
        await stays(lambda: len(got) == 112, "what waited at the start is settled, too", 0.2)
    expected = Counter([f"event {number}" for number in range(102)] + [f"command {number}" for number in range(10)])
    assert Counter(got) == expected


@check("D5", "what is settled is not delivered again after a graceful stop")
async def settled_stays_settled(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[int] = []
    service = Service("counting", concurrency=16)

    @service.handler
    async def counts(event: Counted, context: Context) -> None:
        await a_moment(0.004)
        assert context.attempt == 1
        got.append(event.number)

    async with bus(backend, namespace) as sender:
        for run in range(2):  # the second stop comes in the middle of work: what runs is finished, the rest given back
            async with bus(backend, namespace) as one, one.run(service):
                await sender.publish_many(counted(range(run * 200, run * 200 + 200)))
                await eventually(lambda run=run: len(got) >= 200 - run + run * 60, f"enough in run {run}")  # type: ignore[misc]
            before = len(got)
            await stays(lambda before=before: len(got) == before, "a stopped service handles nothing", 0.05)  # type: ignore[misc]
        async with bus(backend, namespace) as last, last.run(service):
            await sender.publish(Counted(number=400, key="k"))
            await eventually(lambda: len(got) >= 401, "all are handled in the end")
            await stays(lambda: len(got) == 401, "nothing is delivered again", 0.3)
    assert Counter(got) == Counter(range(401)), "each exactly once"
    await _settled_at_the_last_moment(backend)


async def _settled_at_the_last_moment(backend: Backend) -> None:
    """By one that has not taken over yet all that it is given: nothing is waited for but its settlements."""

    class Busy(Receiving):
        async def deliveries(self, batch: Sequence[Delivery], /) -> None:
            await super().deliveries(batch)
            await asyncio.Event().wait()

    group = Group("stopped", (Address("topic", "stopped"),))
    async with started(backend, fresh_namespace()) as adapter:
        await adapter.provision([group], Provision.CREATE)
        busy = Busy()
        busy.consumer = await adapter.consume(group, busy, in_flight=100)
        await put(adapter, *(raw(group.sources[0], b"%d" % number, "k") for number in range(30)))
        await eventually(lambda: busy.got, "some arrive")
        settled = list(busy.open)
        for at, delivery in enumerate(settled):
            busy.settle(delivery, DONE if at % 3 else Move(delivery.message._replace(address=group.dead)))
        await busy.consumer.stop(5.0)
        assert len(await contents(adapter, group.dead)) == len(settled[::3]), "not all copies are there"
        after = await receive(adapter, group, settle_with=DONE)
        await after.arrive(30 - len(settled))
        await stays(lambda: len(after.got) == 30 - len(settled), "what was settled before the stop came again", 0.3)
        assert not busy.failed


@check("D6", "a handler that is cancelled, since a stop ran out of time, has settled nothing: another replica gets it")
async def cancelled_is_not_settled(backend: Backend) -> None:
    namespace = fresh_namespace()
    done: list[int] = []
    cancelled: list[int] = []

    def replica(hangs: bool) -> Service:
        service = Service("counting", stop_timeout=timedelta(milliseconds=50))

        @service.handler
        async def counts(event: Counted, context: Context) -> None:
            assert context.attempt == 1, "to be cancelled by a stop is no attempt"
            if hangs and event.number >= 100:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(event.number)
                    raise
            done.append(event.number)

        return service

    async with bus(backend, namespace) as sender:
        async with bus(backend, namespace) as one, one.run(replica(hangs=True)) as running:
            await sender.publish_many(counted(range(100)))
            await eventually(lambda: len(done) >= 100, "the first hundred")
            await sender.publish_many([Counted(number=100 + number, key=f"k{number}") for number in range(10)])
            await eventually(lambda: running.at_work >= 10, "the next ten hang")
            await stays(lambda: len(done) == 100, "and go on to hang", 0.05)
        assert sorted(cancelled) == list(range(100, 110)), "all ten were cancelled by the stop"
        async with bus(backend, namespace) as two, two.run(replica(hangs=False)):
            await eventually(lambda: len(done) >= 110, "another replica gets those that were cancelled")
            await stays(lambda: len(done) == 110, "and nothing else", 0.2)
    assert Counter(done) == Counter(range(110))


@check("D7", "a healthy run delivers each message exactly once, while replicas join and leave")
async def exactly_n(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: list[int] = []
    attempts: set[int] = set()
    total, enough = 0, False
    service = Service("counting", concurrency=8)

    @service.handler
    async def counts(event: Counted, context: Context) -> None:
        await a_moment(0.003)
        attempts.add(context.attempt)
        got.append(event.number)

    async def publish() -> None:
        nonlocal total
        while not enough:
            await sender.publish_many(counted(range(total, total + 50)))
            total += 50
            await eventually(lambda: len(got) >= total - 150, "the replicas keep up")  # noqa: B023
            await asyncio.sleep(0.03)

    async def more() -> None:
        seen = len(got) + 150
        await eventually(lambda: len(got) >= seen, "there is always something to do")

    async with bus(backend, namespace) as sender, bus(backend, namespace) as stays_on, stays_on.run(service):
        publishing = asyncio.ensure_future(publish())
        try:
            await more()
            for _ in range(2):
                async with bus(backend, namespace) as joins, joins.run(service):
                    await more()
            await more()
        finally:
            enough = True
            await publishing
        await eventually(lambda: len(got) >= total, "all")
        await stays(lambda: len(got) == total, "and no more", 0.3)
    assert Counter(got) == Counter(range(total))
    assert attempts == {1}


@check("D8", "replicas of a service share its work")
async def shared_work(backend: Backend) -> None:
    namespace = fresh_namespace()
    total = 3_000
    got: dict[str, list[int]] = {"one": [], "two": []}

    def replica(name: str) -> Service:
        service = Service("counting", concurrency=16)

        @service.handler
        async def counts(event: Counted) -> None:
            await asyncio.sleep(0.002)
            got[name].append(event.number)

        return service

    async with (
        bus(backend, namespace) as one,
        bus(backend, namespace) as two,
        one.run(replica("one")),
        two.run(replica("two")),
    ):
        await one.publish_many(counted(range(total), keys=500))
        await eventually(lambda: sum(map(len, got.values())) >= total, "all are handled")
        await stays(lambda: sum(map(len, got.values())) == total, "and no more", 0.1)
    assert Counter(got["one"] + got["two"]) == Counter(range(total))
    assert min(map(len, got.values())) >= total / 20, f"handled by each: {[len(numbers) for numbers in got.values()]}"


@check("D9", "each service, and each group of a service, gets every event")
async def every_group(backend: Backend) -> None:
    namespace = fresh_namespace()
    got: dict[str, list[int]] = {"shipping": [], "shipping.audit": [], "billing": []}
    shipping, billing = Service("shipping"), Service("billing")

    async def counts(event: Counted, context: Context) -> None:
        got[context.group].append(event.number)

    shipping.handler(counts)
    shipping.handler(group="audit")(counts)
    billing.handler(counts)
    async with bus(backend, namespace) as one, one.run(shipping, billing):
        await one.publish_many(counted(range(100)))
        await eventually(lambda: sum(map(len, got.values())) >= 300, "a hundred for each of three groups")
        await stays(lambda: sum(map(len, got.values())) == 300, "and no more", 0.1)
    assert {name: sorted(numbers) for name, numbers in got.items()} == {name: list(range(100)) for name in got}


@check("D10", "to settle a delivery twice does nothing: it is not lost, not delivered again, not moved twice")
async def settled_twice(backend: Backend) -> None:
    namespace = fresh_namespace()
    group = Group("counting", (Address("topic", "counts"),))
    async with started(backend, namespace) as adapter:
        await adapter.provision([group], Provision.CREATE)
        receiving = await receive(adapter, group)
        await put(adapter, *(raw(Address("topic", "counts"), b"%d" % number, f"k{number}") for number in range(12)))
        await receiving.arrive(12)
        first = {int(delivery.message.body or b""): delivery for delivery in receiving.got}
        assert len(first) == 12
        letters = {at: first[at].message._replace(address=group.dead) for at in (6, 7, 8)}
        for at in (0, 1, 2):
            receiving.settle(first[at])
            receiving.settle(first[at])
        for at in (3, 4, 5):
            receiving.settle(first[at])
            receiving.settle(first[at], RELEASE)
        for at in (6, 7):
            receiving.settle(first[at], Move(letters[at]))
            receiving.settle(first[at], Move(letters[at]))
        receiving.settle(first[8], Move(letters[8]))
        receiving.settle(first[8], RELEASE)
        await _dead(backend, namespace, group, 3)
        receiving.settle_all([first[at] for at in range(9)])  # and once more, when all that is long done
        await stays(lambda: len(receiving.got) == 12, "nothing that is settled is delivered again", 0.2)
        assert receiving.failed == []
        await receiving.consumer.stop(5.0)
    async with started(backend, namespace) as adapter:
        second = await receive(adapter, group)
        await second.arrive(3)
        await stays(lambda: len(second.got) == 3, "only what was not settled comes again", 0.2)
        assert sorted(second.bodies, key=str) == [b"10", b"11", b"9"]
        assert {delivery.position for delivery in second.got} == {first[at].position for at in (9, 10, 11)}
        second.settle_all(second.got[:2])
        second.settle(second.got[2], RELEASE)
        await second.arrive(4)
        second.consumer.settle(second.got[2], DONE)  # the arrival that was given back, while a later one is open
        await stays(lambda: len(second.got) == 4, "given back once", 0.1)
    async with started(backend, namespace) as adapter:
        third = await receive(adapter, group, settle_with=DONE)
        await third.arrive(1)
        await stays(lambda: len(third.got) == 1, "and nothing else", 0.1)
        assert third.bodies == [second.got[2].message.body]
    await _dead(backend, namespace, group, 3)


async def _dead(backend: Backend, namespace: str, group: Group, count: int) -> None:
    """So many dead letters there are, each another one."""
    async with started(backend, namespace) as adapter:
        found: list[bytes | None] = []

        async def look() -> None:
            while len(found) < count:
                found[:] = [delivery.message.body for delivery in await contents(adapter, group.dead)]

        await asyncio.wait_for(look(), 10.0)
        assert len(found) == len(set(found)) == count, found

"""Q: requests, and where a group begins."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from eventkit import headers as h
from eventkit.adapter import DONE, Adapter, Address, Group, Provision
from eventkit.context import Context
from eventkit.contract.checks import Backend, breakable, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.receiving import Receiving, put, raw, receive, started
from eventkit.contract.samples import raises
from eventkit.errors import CommandFailed, CommandRejected, GiveUp, PublishError, Reject, RequestTimeout
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service
from eventkit.wire import new_id

_SOON = timedelta(milliseconds=400)
_BEGUN = timedelta(seconds=1.5)
"""Long enough for a handler to have begun by then, also on a busy machine."""
BACK = 20.0
"""Seconds until all is well again after a broker has come back."""


class Quote(BaseModel):
    number: int
    note: str | None = None


class Ask(Command[Quote], service="answering", key="how"):
    number: int
    how: str = ""


class Happened(Event, topic="requests.happened"):
    number: int


@check("Q1", "concurrent requests each get their own reply, rejection or failure; too late is nobody's reply")
async def requests(backend: Backend) -> None:
    namespace = fresh_namespace()
    retry = Retry(attempts=3, first_delay=timedelta(milliseconds=50), jitter=0)
    service = Service("answering", concurrency=20, retry=retry, stop_timeout=timedelta(seconds=2))
    attempts: Counter[tuple[str, int]] = Counter()
    late = asyncio.Event()

    @service.handler
    async def ask(command: Ask, context: Context) -> Quote:
        attempts[command.how, command.number] += 1
        match command.how:
            case "rejected":
                raise Reject(f"not number {command.number}")
            case "gives up":
                raise GiveUp(f"no use with {command.number}")
            case "fails":
                raise LookupError(f"no {command.number}")
            case "third time" if context.attempt < 3:
                raise RuntimeError("again")
            case "late":
                assert context.deadline is not None
                await late.wait()
            case _:
                await asyncio.sleep(random.random() / 100)  # noqa: S311 no secret: the replies come in another order
        return Quote(number=command.number, note=command.how or None)

    async with bus(backend, namespace, "asker") as asker, bus(backend, namespace, "other") as other:
        async with bus(backend, namespace) as b, b.run(service) as running:
            asked = [asker.request(Ask(number=n)) for n in range(50)]
            asked += [other.request(Ask(number=n, how="other")) for n in range(50)]
            replies = await asyncio.gather(*asked)
            assert replies[:50] == [Quote(number=n) for n in range(50)]
            assert replies[50:] == [Quote(number=n, note="other") for n in range(50)]

            rejected, failed, gave_up, third = await asyncio.gather(
                raises(CommandRejected, asker.request(Ask(number=1, how="rejected"))),
                raises(CommandFailed, asker.request(Ask(number=2, how="fails"))),
                raises(CommandFailed, asker.request(Ask(number=3, how="gives up"))),
                asker.request(Ask(number=4, how="third time")),
            )
            assert rejected.reason == "not number 1"
            assert (failed.type, failed.message) == ("LookupError", "no 2")
            assert (gave_up.type, gave_up.message) == ("GiveUp", "no use with 3")
            assert third == Quote(number=4, note="third time")

            began = time.monotonic()
            await raises(RequestTimeout, asker.request(Ask(number=5, how="late"), timeout=_BEGUN))
            assert 1.45 < time.monotonic() - began < 5.0
            assert attempts["late", 5] == 1, "it was not started"
            late.set()
            await eventually(lambda: running.counts["answering"].handled == 102, "the late one is handled")
            assert await asker.request(Ask(number=106)) == Quote(number=106), "the late reply went to another request"

        await raises(RequestTimeout, asker.request(Ask(number=7, how="expired"), timeout=_SOON))
        async with bus(backend, namespace) as b, b.run(service) as running:
            assert await asker.request(Ask(number=8, how="expired")) == Quote(number=8, note="expired")
            await eventually(lambda: running.counts["answering"].expired == 1, "the expired one is dropped")
            await stays(lambda: attempts["expired", 7] == 0, "it was started though nobody waits for it", 0.1)
    expected = {("", n): 1 for n in range(50)} | {("other", n): 1 for n in range(50)}
    expected |= {("rejected", 1): 1, ("fails", 2): 3, ("gives up", 3): 1, ("third time", 4): 3}
    expected |= {("late", 5): 1, ("", 106): 1, ("expired", 8): 1}
    assert attempts == expected, f"tried otherwise: {attempts}"
    assert await dead_letters(backend, namespace, "answering", 0) == [], "a request leaves no dead letter"


@check("Q3", "a request ends in time while its broker is away, health says that no reply is read, and both heal")
async def replies_come_back(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    service = Service("answering", stop_timeout=timedelta(seconds=2))

    @service.handler
    async def ask(command: Ask) -> Quote:
        return Quote(number=command.number)

    async def answered(number: int) -> bool:
        try:
            return await asker.request(Ask(number=number), timeout=timedelta(seconds=1)) == Quote(number=number)
        except (RequestTimeout, PublishError):
            return False

    async with bus(faults, namespace, "asker") as asker, bus(faults, namespace) as b, b.run(service):
        assert await asker.request(Ask(number=0)) == Quote(number=0)  # the first one may have to make where replies go
        old_enough = time.monotonic() + 2.0  # what a broker made this second need not outlive its crash
        while time.monotonic() < old_enough:
            assert await answered(1)
            await asyncio.sleep(0.05)
        pending = asyncio.gather(*(answered(number) for number in range(10, 20)))
        await asyncio.to_thread(faults.kill)
        try:
            began = time.monotonic()
            await pending  # whatever comes of them, they end
            assert not await answered(2), "answered by a broker that is gone"
            took = time.monotonic() - began
            assert took < 2 * 1.0 + 1.5, f"their time was up after 1 s each, and they ended after {took:.1f} s"
            await eventually(lambda: not asker.health().ok, "health is red while no reply can be read", BACK)
        finally:
            await asyncio.to_thread(faults.start)
        await eventually(lambda: asker.health().ok, "health is green again", BACK)
        ends = time.monotonic() + BACK
        while not await answered(3):
            assert time.monotonic() < ends, f"no request is answered {BACK:g} s after the broker came back"


@check("Q4", "a reply address belongs to who listens there: nobody else gets what is sent there, and nothing is kept")
async def replies_are_not_kept(backend: Backend) -> None:
    namespace = fresh_namespace()
    mine, other = (Address("reply", f"asker.{name}") for name in (new_id(), new_id()))
    async with started(backend, namespace) as asking, started(backend, namespace) as answering:
        first = await receive(asking, Group(mine.name, (mine,)))
        beside = await receive(asking, Group(other.name, (other,)))
        inbox = Address("inbox", "answering")
        questions = await _questions(answering, inbox)
        for number, address in enumerate((mine, mine, other)):
            await put(asking, raw(inbox, b"%d" % number, headers={h.REPLY_TO: address.name}))
        await questions.arrive(3)
        to = [Address("reply", delivery.message.headers[h.REPLY_TO]) for delivery in questions.got]
        await put(answering, *(raw(address, b"to %d" % number) for number, address in enumerate(to)))
        await eventually(lambda: len(first.got) >= 2 and beside.got, "each gets its own")
        first.settle_all(first.got[:1])
        await first.consumer.flush(5.0)
        assert (sorted(first.bodies, key=str), beside.bodies) == ([b"to 0", b"to 1"], [b"to 2"])
        assert {delivery.message.address for delivery in first.got} == {mine}
        await first.consumer.stop(5.0)
        await answering.publish([raw(to[0], b"too late")])  # whether that is an error each broker sees in its own way
        again = await receive(asking, Group(mine.name, (mine,)))
        await stays(lambda: not again.got and len(beside.got) == 1, "a reply was kept, or came to somebody else", 0.5)
        assert not first.failed


async def _questions(answering: Adapter, inbox: Address) -> Receiving:
    group = Group(inbox.name, (inbox,))
    await answering.provision([group], Provision.CREATE)
    return await receive(answering, group, settle_with=DONE)


@check("Q2", "a new group begins with the moment it was provisioned: nothing before, and all after")
async def fresh_group_starts_now(backend: Backend) -> None:
    namespace = fresh_namespace()
    service, late = Service("early"), Service("late")
    seen: dict[str, list[int]] = {"early": [], "late": []}

    @service.handler
    async def early(event: Happened) -> None:
        seen["early"].append(event.number)

    @late.handler
    async def lately(event: Happened) -> None:
        seen["late"].append(event.number)

    def groups(of: Service) -> list[Any]:
        return [group for group, _ in of.groups().values()]

    async with bus(backend, namespace) as b, started(backend, namespace) as adapter:
        await adapter.provision(groups(service), Provision.CREATE)  # the topic, too, is new
        await b.publish_many([Happened(number=n) for n in range(10)])
        await adapter.provision(groups(late), Provision.CREATE)
        await b.publish_many([Happened(number=n) for n in range(10, 20)])
        await adapter.provision([*groups(service), *groups(late)], Provision.CREATE)  # as a second replica does
        await b.publish_many([Happened(number=n) for n in range(20, 30)])
        async with b.run(service, late):
            await eventually(lambda: len(seen["early"]) >= 30 and len(seen["late"]) >= 20, f"all after: {seen}")
            await stays(lambda: len(seen["early"]) == 30 and len(seen["late"]) == 20, "more than that", 0.2)
        await b.publish(Happened(number=30))
        async with b.run(service, late):
            await eventually(lambda: len(seen["early"]) >= 31 and len(seen["late"]) >= 21, "an old group goes on")
            await stays(lambda: len(seen["early"]) == 31 and len(seen["late"]) == 21, "something came again", 0.2)
    assert sorted(seen["early"]) == list(range(31))
    assert sorted(seen["late"]) == list(range(10, 31))

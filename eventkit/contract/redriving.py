"""F, continued: dead letters that people retry, discard and look at."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from functools import partial

from eventkit.bus import Bus
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import listed
from eventkit.contract.refusing import Refusing
from eventkit.contract.samples import raises
from eventkit.copies import Reason
from eventkit.dead_letters import REDRIVES
from eventkit.errors import DeadLetterError, GiveUp, NoDeadLetter, NotProvisioned, RetriedTooOften
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service


class Parcel(Event, topic="redriven.parcels", key="name"):
    name: str


class Weigh(Command, service="worker"):
    number: int


def _was_tried(attempts: list[int], times: int) -> bool:
    return len(attempts) == times


@check(
    "F12", "a retried dead letter reaches its own group alone, as attempt 1, and not for ever; listing changes nothing"
)
async def retried_by_its_own_group(backend: Backend) -> None:
    namespace = fresh_namespace()
    worker, other = Service("worker", retry=Retry(attempts=1)), Service("other")
    works = False
    tried: dict[str, list[int]] = defaultdict(list)
    elsewhere: Counter[str] = Counter()

    @worker.handler
    async def parcel(event: Parcel, context: Context) -> None:
        tried[event.name].append(context.attempt)
        if not works:
            raise RuntimeError("not yet")

    @worker.handler(retry=Retry(attempts=2, first_delay=timedelta(0)))
    async def weigh(command: Weigh, context: Context) -> None:
        tried[f"weigh {command.number}"].append(context.attempt)
        if not works:
            raise GiveUp("not yet") if context.attempt == 2 else RuntimeError("not yet")

    @other.handler
    async def theirs(event: Parcel) -> None:
        elsewhere[event.name] += 1

    async with bus(backend, namespace) as b:
        letters = b.dead_letters("worker")
        await raises(NotProvisioned, b.dead_letters("nobody").show("x"))
        async with b.run(worker, other):
            for number in range(4):
                await b.publish(Parcel(name=f"parcel {number}"), id=f"p{number}")
                await listed(b, "worker", number + 1)
            await b.send(Weigh(number=1), id="w1")
            before = await listed(b, "worker", 5)
            assert [letter.id for letter in before] == ["p0", "p1", "p2", "p3", "w1"], "not oldest first"

            for _ in range(100):
                again = [letter async for letter in letters.list()]
                assert [(one.message, one.delivery.position) for one in again] == [
                    (one.message, one.delivery.position) for one in before
                ], "a list has changed them"
            assert (await b.adapter.measure(worker.groups()["worker"][0])).dead in (5, None)

            assert [one.id async for one in letters.list(type=Weigh)] == ["w1"]
            assert [one.id async for one in letters.list(reason=Reason.GAVE_UP)] == ["w1"]
            assert [one.id async for one in letters.list(since=before[2].last_failure)] == ["p2", "p3", "w1"]
            assert [one.id async for one in letters.list("p3", "p1")] == ["p1", "p3"]
            assert (await letters.show("p2")).read(Parcel) == Parcel(name="parcel 2")
            await raises(NoDeadLetter, letters.show("none"))

            for count in range(1, REDRIVES + 1):  # it fails again, and is a dead letter again
                assert await letters.retry("p0") == 1
                await eventually(partial(_was_tried, tried["parcel 0"], count + 1), "it is tried again")
                await listed(b, "worker", 5)
                back = await letters.show("p0")
                assert (back.redriven, back.attempts, back.reason) == (count, 1, Reason.EXHAUSTED)
                assert back.first_failure == back.last_failure, "the failures before its retry do not count"
            error = await raises(DeadLetterError, letters.retry("p0", "p1", "none"))
            assert error.done == 1
            assert {failure.id: type(failure.error) for failure in error.failures} == {
                "p0": RetriedTooOften,
                "none": NoDeadLetter,
            }
            await eventually(lambda: len(tried["parcel 1"]) == 2, "the one that may be is tried again")
            await listed(b, "worker", 5)

        assert await letters.discard("p3") == 1
        assert await letters.retry("p0", force=True) == 1  # nobody runs: it waits
        works = True
        async with b.run(worker, other):
            assert await letters.retry(all=True) == 3
            await eventually(lambda: len(tried["parcel 2"]) == 2 and len(tried["weigh 1"]) == 3, "all are tried again")
            await eventually(lambda: len(tried["parcel 0"]) == REDRIVES + 2, "and the one that waited")
            await b.publish(Parcel(name="afterwards"))
            await eventually(lambda: elsewhere["afterwards"], "the other group goes on")
            await stays(lambda: set(elsewhere.values()) == {1}, f"another group got a retry: {elsewhere}", 0.3)
            await listed(b, "worker", 0)
    assert {name: (len(attempts), set(attempts)) for name, attempts in tried.items()} == {
        "parcel 0": (REDRIVES + 2, {1}),
        "parcel 1": (3, {1}),
        "parcel 2": (2, {1}),
        "parcel 3": (1, {1}),
        "weigh 1": (3, {1, 2}),
        "afterwards": (1, {1}),
    }
    assert tried["weigh 1"] == [1, 2, 1], "its retry went on where the attempts had ended"


@check("F18", "a retry that is interrupted between copy and removal loses nothing; nor does one that is refused")
async def interrupted_retry(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker", retry=Retry(attempts=1))
    works = False
    handled: Counter[str] = Counter()

    @service.handler
    async def parcel(event: Parcel) -> None:
        if not works:
            raise RuntimeError("not yet")
        handled[event.name] += 1

    broken = Refusing(backend.adapter(namespace))
    names = [f"parcel {n}" for n in range(5)]
    async with Bus(broken.adapter, source="contract") as b, b.run(service):
        await b.publish_many([Parcel(name=name) for name in names])
        await listed(b, "worker", 5)
        works = True
        letters = b.dead_letters("worker")

        broken.refuses = lambda address: address.kind == "retry"
        error = await raises(DeadLetterError, letters.retry(all=True))
        assert (error.done, len(error.failures)) == (0, 5)
        await listed(b, "worker", 5)
        await stays(lambda: not handled, "what was refused was handled", 0.2)
        broken.refuses = lambda address: False

        broken.refuses_removal = True
        error = await raises(DeadLetterError, letters.retry(all=True))
        assert (error.done, len(error.failures)) == (0, 5)
        await eventually(lambda: handled.keys() == set(names), "their copies are handled")
        await listed(b, "worker", 5)
        await raises(DeadLetterError, letters.discard(all=True))
        await listed(b, "worker", 5)
        broken.refuses_removal = False

        assert await letters.retry(all=True) == 5
        await listed(b, "worker", 0)
        await stays(lambda: max(handled.values()) <= 2, f"more than a duplicate: {handled}", 0.3)
    assert handled.keys() == set(names)

"""D4, D11, D12, L10, L16: processes that die, take long, or stand still."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from eventkit.adapter import Address, Backlog, Group
from eventkit.contract.checks import (
    Backend,
    Faults,
    Vacuous,
    breakable,
    bus,
    check,
    eventually,
    fresh_namespace,
    stays,
)
from eventkit.contract.letters import dead_letters
from eventkit.contract.processes import Replica, replica
from eventkit.contract.receiving import started
from eventkit.contract.work import Job, Task, worker

_LONG = 24.0
"""Seconds that a process may be silent where that is to be long: longer than it is by default on any broker where it is
short."""
_ENOUGH = 3
"""Messages for one replica to hold when it is ended."""


@check("D4", "a process that is killed with -9 while it handles messages loses none of them")
async def killed(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    told: list[str] = []
    events, commands, later = range(200), range(200, 240), range(240, 290)
    async with bus(faults, namespace) as sender:
        async with replica(faults, namespace) as first:
            tasks = [Task(number=n, key=f"k{n % 20}", waits=n % 20 > 14, fails=n % 9 == 0) for n in events]
            await sender.publish_many(tasks)
            await asyncio.gather(*(sender.send(Job(number=n, waits=n % 2 == 0, fails=n % 5 == 0)) for n in commands))
            await eventually(
                lambda: len(first.numbers("ended")) > 80 and len(first.numbers("began") - first.numbers("ended")) > 10,
                "the replica is in the middle of its work",
            )
            await first.kill()
            ended = first.numbers("ended")
        await sender.publish_many([Task(number=n, key=f"k{n % 20}") for n in later])
        go_on = asyncio.Event()
        go_on.set()
        expected = {*events, *commands, *later}

        def handled() -> set[int]:
            return ended | {int(line.split()[1]) for line in told if line.startswith("ended")}

        async with bus(faults, namespace) as second, second.run(worker(told.append, go_on)):
            within = faults.lease * 2 + 15.0
            await eventually(lambda: handled() >= expected, "another replica handles what was left", within)
    assert ended < expected, "it was killed too late"
    again = Counter(line for line in told if line.startswith("began"))
    assert again.total() <= 2 * len(expected), f"far more than what was unsettled came again: {again.total()}"
    assert await dead_letters(faults, namespace, "worker", 0) == []


@check("D11", "a message stays with its handler however long that takes: no other replica gets it, and it settles")
async def long_handler(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    told: list[str] = []
    go_on = asyncio.Event()
    service = worker(told.append, go_on)

    def began() -> int:
        return sum(line.startswith("began") for line in told)

    async with bus(faults, namespace) as one, bus(faults, namespace) as two:
        async with one.run(service), two.run(service):
            await one.publish_many([Task(number=n, key=f"k{n}", waits=True) for n in range(4)])
            await one.send(Job(number=4, waits=True))
            await eventually(lambda: began() == 5, "all five run")
            for turn in range(3):  # others pass by meanwhile
                await one.publish_many([Task(number=n, key=f"k{n}x") for n in range(10 * turn + 10, 10 * turn + 20)])
                await stays(lambda: began() <= 5 + 10 * (turn + 1), "one came twice", faults.lease * 0.7)  # noqa: B023
            go_on.set()
            await eventually(lambda: Counter(told)["ended 4"] == 1 and began() == 35, "all end")
        async with one.run(service):
            await one.publish(Task(number=99))
            await eventually(lambda: "ended 99" in told, "one more")
            await stays(lambda: began() == 36, "what took long was settled all the same", 0.3)
    assert set(Counter(told).values()) == {1}, Counter(told).most_common(3)


@check(
    "D12",
    "what a replica holds that is killed, or not heard of, goes to another within the time that is set for that; and "
    "not long before, as long as it may still live",
)
async def taken_over(backend: Backend) -> None:
    faults = await breakable(backend)
    patient = faults.with_lease(_LONG)
    if patient is None:
        raise Vacuous("how long a process may be silent cannot be set")

    async def soon() -> None:
        async with _gone(faults, Replica.kill) as (held, elsewhere):
            within = faults.lease * 2 + 15.0
            await eventually(lambda: elsewhere() >= held, "another replica has what a killed one held", within)

    async def later() -> None:
        async with _gone(patient, Replica.pause) as (held, elsewhere):
            await stays(
                lambda: not elsewhere() & held,
                f"another replica has what one held that was silent for less than half of {_LONG:g} s",
                _LONG / 2,
            )

    await asyncio.gather(soon(), later())


@asynccontextmanager
async def _gone(
    faults: Faults, end: Callable[[Replica], Awaitable[None]]
) -> AsyncIterator[tuple[set[int], Callable[[], set[int]]]]:
    """Of two replicas one was ended like this. What it held, and what the other one has begun by now."""
    namespace = fresh_namespace()
    told: list[str] = []
    go_on = asyncio.Event()

    def elsewhere() -> set[int]:
        return {int(line.split()[1]) for line in told if line.startswith("began")}

    # whose own adapter publishes may hear of it first
    async with (
        bus(faults, namespace) as sender,
        bus(faults, namespace) as other,
        other.run(worker(told.append, go_on)),
    ):
        async with replica(faults, namespace) as first:
            for number in range(_ENOUGH * 10):
                await sender.publish(Task(number=number, key=f"k{number}", waits=True))
                await eventually(lambda: number in first.numbers("began") | elsewhere(), "one of them has it")  # noqa: B023
                if len(first.numbers("began")) >= _ENOUGH:
                    break
            await end(first)
            held = first.numbers("began")
            assert held, "the other one got all"
            yield held, elsewhere
        go_on.set()


@check(
    "L16", "what a process held that was killed is counted all the time: in flight as long as it may live, then ready"
)
async def counted(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    group = Group("worker", (Address("topic", "tasks"), Address("inbox", "worker")))
    held = 5
    told: list[str] = []
    go_on = asyncio.Event()
    go_on.set()
    within = faults.lease * 2 + 15.0
    async with bus(faults, namespace) as sender, started(faults, namespace) as aside:
        seen: list[Backlog] = []

        async def look() -> Backlog:
            seen.append(await aside.measure(group))
            return seen[-1]

        async with replica(faults, namespace) as first:
            await sender.publish_many([Task(number=n, key=f"k{n}", waits=True) for n in range(held - 2)])
            await asyncio.gather(*(sender.send(Job(number=n, waits=True)) for n in (held - 2, held - 1)))
            await eventually(lambda: len(first.numbers("began")) == held, "it has all in hand")
            await look()
            await first.kill()
        ends = asyncio.get_running_loop().time() + within
        while (last := await look()).consumers or last.ready != held or last.in_flight:
            assert asyncio.get_running_loop().time() < ends, f"what nobody reads is not all ready: {last}"
            await asyncio.sleep(0.1)
        for backlog in seen:
            if backlog.ready is not None and backlog.in_flight is not None:
                assert backlog.ready + backlog.in_flight >= held, f"some of what it held was not counted: {backlog}"
        async with bus(faults, namespace) as second, second.run(worker(told.append, go_on)):
            await eventually(lambda: Counter(told).keys() >= {f"ended {n}" for n in range(held)}, "all end", within)
            ends = asyncio.get_running_loop().time() + within
            while (last := await look()).ready or last.in_flight:
                assert asyncio.get_running_loop().time() < ends, f"what was handled is still counted: {last}"
                await asyncio.sleep(0.1)


@check("L10", "a replica that stood still while its messages went to another settles nothing when it goes on")
async def stood_still(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    told: list[str] = []
    ends, fails, meanwhile = {0, 2, 8}, {1, 3, 9}, {4, 5, 6, 7}
    held, rest = ends | fails, faults.lease / 2
    within = faults.lease * 2 + 15.0

    def results() -> Counter[str]:
        return Counter(line for line in told if not line.startswith("began"))

    async with bus(faults, namespace) as sender:
        async with replica(faults, namespace) as first:
            at_once = [Task(number=n, key=f"k{n}", waits=True, fails=n in fails) for n in (0, 1)]
            # when these end, the first has had the time to look after what it takes for its own
            later = [Task(number=n, key=f"k{n}", waits=True, fails=n in fails, seconds=rest) for n in (8, 9)]
            await sender.publish_many([*at_once, *later])
            await asyncio.gather(*(sender.send(Job(number=n, waits=True, fails=n in fails)) for n in (2, 3)))
            await eventually(lambda: first.numbers("began") == held, "the first replica has them")
            await first.pause()
            # some of these may have been on their way to the first
            await sender.publish_many([Task(number=n, key=f"k{n}", waits=True) for n in meanwhile])
            async with replica(faults, namespace) as second:
                await eventually(lambda: second.numbers("began") >= held | meanwhile, "the second gets them", within)
                first.go_on()
                first.resume()
                await eventually(
                    lambda: ends <= first.numbers("ended") and fails <= first.numbers("failed"),
                    "the first goes on, and ends what is no longer its own",
                )
                await stays(lambda: not second.numbers("ended"), "the second still has them", 1.0)
                await first.kill()
        go_on = asyncio.Event()
        go_on.set()
        async with bus(faults, namespace) as third, third.run(worker(told.append, go_on)):
            await sender.publish(Task(number=99))
            wanted = Counter(f"ended {n}" for n in (*held, *meanwhile, 99))
            wanted.update(f"failed {n}" for n in fails)  # the failure of the first moved nothing
            with suppress(AssertionError):
                await eventually(lambda: wanted <= results(), "all ended", within)
            assert wanted <= results(), f"of what the second had when it died, a third did not get {wanted - results()}"
            with suppress(AssertionError):
                await stays(lambda: results() == wanted, "it comes once", 0.3)
            # where the broker cannot refuse a copy, one may come of what failed before the first knew
            more = results() - wanted
            assert set(more) <= {f"ended {n}" for n in fails}, f"came twice: {more}"
    assert await dead_letters(faults, namespace, "worker", 0) == []

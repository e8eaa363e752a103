"""F13, F21: a message that kills its process, and those that are only there when it does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.context import Context
from eventkit.contract.checks import Backend, breakable, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.processes import Replica, replica
from eventkit.contract.receiving import contents, started
from eventkit.contract.work import QUARANTINE, Task, worker
from eventkit.copies import Reason
from eventkit.messages import Event
from eventkit.service import Service
from eventkit.suspects import FIRST, LEAST_ALONE

_KILLER = 1_000
_PASSING = 3_000
_WITHIN = 100.0
"""Seconds: a dozen processes start one after another, each when the broker has missed the one before."""


class Load(Event, topic="quarantine.loads", key="name"):
    name: str


@check("F13", "a message that kills its process again and again is quarantined; those that were there with it are not")
async def quarantined(backend: Backend) -> None:
    faults = await breakable(backend)
    namespace = fresh_namespace()
    innocents = set(range(40))
    passing: set[int] = set()
    lives: list[Replica] = []
    ends = time.monotonic() + _WITHIN

    def ended() -> set[int]:
        return {number for life in lives for number in life.numbers("ended")}

    async with started(faults, namespace) as adapter, bus(faults, namespace) as sender:

        async def letters() -> list[Message]:
            return [found.message for found in await contents(adapter, Address("dead", "worker"))]

        async with sender.run(worker(lambda _: None, asyncio.Event(), QUARANTINE)):
            pass  # the group exists from here on
        others = [Task(number=n, key=f"k{n}", seconds=0.05) for n in sorted(innocents)]
        await sender.publish_many([*others[:10], Task(number=_KILLER, key="k", kills=True), *others[10:]])
        while True:
            async with replica(faults, namespace, may_die=True, quarantine_after=QUARANTINE) as life:
                lives.append(life)
                while not life.dead and not (ended() >= innocents and await letters()):
                    # others come all the time, so that there is something to run beside it
                    fresh = range(_PASSING + len(passing), _PASSING + len(passing) + 2)
                    await sender.publish_many([Task(number=n, key=f"p{n}", seconds=0.1) for n in fresh])
                    passing.update(fresh)
                    assert time.monotonic() < ends, (
                        f"after {len(lives)} processes: {len(ended() & innocents)} of {len(innocents)} handled, "
                        f"dead letters: {[(m.key, m.headers[h.REASON]) for m in await letters()]}"
                    )
                    await asyncio.sleep(0.05)
                if not life.dead:
                    await sender.publish(Task(number=2_000, key="k"))
                    within = ends - time.monotonic()
                    await eventually(
                        lambda: ended() >= {2_000, *passing}, "the service goes on with all others", within
                    )
                    break
        found = await letters()
    died = [life for life in lives if life.dead and _KILLER in life.numbers("began")]
    said = [(letter.key, letter.headers[h.REASON], letter.headers[h.ATTEMPT]) for letter in found]
    assert said == [("k", Reason.QUARANTINED, "1")], f"given up on: {said}"
    # an adapter that counts by itself may learn of the first death too late, at the source and at the retry address
    assert FIRST + QUARANTINE <= len(died) <= FIRST + QUARANTINE + 2, f"{len(died)} processes died of it"
    for life in died[-LEAST_ALONE:]:
        beside = life.numbers("began") - life.numbers("ended")
        assert beside == {_KILLER}, f"it did not run alone: {sorted(beside)}"


@check("F21", "deploys quarantine nothing: what each stop gives back is handled in the end, on attempt 1")
async def deploys_quarantine_nothing(backend: Backend) -> None:
    namespace = fresh_namespace()
    handled: Counter[str] = Counter()
    attempts: set[int] = set()
    side_by_side = 0
    at_work: set[str] = set()

    def release(*, hangs: bool) -> tuple[Service, asyncio.Event]:
        service = Service("loader", stop_timeout=timedelta(milliseconds=50), quarantine_after=4)
        begun = asyncio.Event()

        @service.handler
        async def load(event: Load, context: Context) -> None:
            nonlocal side_by_side
            begun.set()
            if hangs:
                await asyncio.Event().wait()
            attempts.add(context.attempt)
            at_work.add(event.name)
            await asyncio.sleep(0.01)
            side_by_side = max(side_by_side, len(at_work))
            at_work.discard(event.name)
            handled[event.name] += 1

        return service, begun

    names = [f"load {n}" for n in range(5)]
    async with bus(backend, namespace) as b:
        service, _ = release(hangs=False)
        async with b.run(service):
            pass  # the group exists from here on
        await b.publish_many([Load(name=name) for name in names])
        for turn in range(8):
            service, begun = release(hangs=True)
            async with b.run(service):
                await eventually(begun.is_set, f"deploy {turn} has it in hand")
        service, _ = release(hangs=False)
        async with b.run(service):
            await eventually(lambda: len(handled) == len(names), f"all are handled in the end: {handled}")
            await b.publish_many([Load(name=f"more {n}") for n in range(20)])
            await eventually(lambda: len(handled) == len(names) + 20, "and others with them")
            await stays(lambda: handled.total() == len(names) + 20, "one came twice", 0.2)
    assert attempts == {1}
    assert side_by_side > 1, "the others run side by side again"
    assert await dead_letters(backend, namespace, "loader", 0) == []

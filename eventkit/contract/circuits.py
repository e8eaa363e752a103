"""F14: a handler that rests while all that it tries fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from eventkit.circuit import Circuit
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.messages import Event
from eventkit.retry import Retry
from eventkit.service import Service

_FAILURES = 5
_SECOND = timedelta(seconds=1)
_MANY = 1_500
"""More than a replica holds at once."""


class Charge(Event, topic="circuit.charges"):
    number: int


class Note(Event, topic="circuit.charges"):
    number: int


@check("F14", "a circuit opens when all fails: messages wait untried, no attempt is used, a probe lets them go on")
async def circuit_opens(backend: Backend) -> None:
    namespace = fresh_namespace()
    retry = Retry(attempts=3, first_delay=timedelta(0), jitter=0)
    service = Service("charger", concurrency=8, retry=retry)
    away = True
    tried: Counter[int] = Counter()
    charged: dict[int, int] = {}
    noted: set[int] = set()
    enough = asyncio.Event()  # or the first alone might use up its attempts before others have come

    @service.handler(circuit=Circuit(failures=_FAILURES, within=timedelta(seconds=30), pause=0.3 * _SECOND))
    async def charge(event: Charge, context: Context) -> None:
        tried[event.number] += 1
        if len(tried) >= _FAILURES:
            enough.set()
        await enough.wait()
        await asyncio.sleep(0.001)
        if away:
            raise ConnectionError("the bank is away")
        charged[event.number] = context.attempt

    @service.handler
    async def note(event: Note) -> None:
        noted.add(event.number)

    async with bus(backend, namespace) as b:
        async with b.run(service) as running:
            await b.publish_many([Charge(number=number) for number in range(_MANY)])
            await eventually(lambda: running.health().circuits, "health says that it is open")
            assert running.health().ok, "an open circuit is no reason to restart the service"
            (name, said), *_ = running.health().circuits.items()
            assert "charge" in name, name
            assert said.startswith("open since"), said
            await b.publish_many([Note(number=number) for number in range(50)])
            await eventually(lambda: len(noted) == 50, "another handler of the group goes on")
            before = tried.total()
            await stays(lambda: tried.total() <= before + 5, "tried in spite of the open circuit", 1.0)
            await eventually(lambda: tried.total() > before, "probes are tried")
            assert running.counts["charger"].dead == 0
        # what waits survives a restart, as untried as before
        used = tried.total()
        assert used < 100, f"{used} attempts while nothing could succeed"
        async with b.run(service) as running:
            await eventually(lambda: running.health().circuits, "it opens in the next process, too")
            away = False
            within = 20.0  # some were put off, to leave room for the other handler
            await eventually(lambda: len(charged) == _MANY, f"all go on: {len(charged)}", within)
            assert not running.health().circuits
    assert await dead_letters(backend, namespace, "charger", 0) == []
    second = sum(attempt > 1 for attempt in charged.values())
    assert second <= 2 * _FAILURES + 2, f"{second} of {_MANY} had used an attempt"

"""F2, F20: which attempt it is, and when the next one comes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from datetime import timedelta
from itertools import pairwise

from eventkit import headers as h
from eventkit.bus import Bus
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.copies import Reason
from eventkit.errors import RetryLater
from eventkit.messages import Event
from eventkit.retry import Retry
from eventkit.service import Service

_NOW = timedelta(0)


class Step(Event, topic="attempts.steps", key="name"):
    name: str


@check("F2", "the attempt count survives restarts and goes on in another replica; what is given back untried is none")
async def count_survives(backend: Backend) -> None:
    namespace = fresh_namespace()
    tried: dict[str, list[int]] = defaultdict(list)
    most = 6

    def replica(*, holds: bool = True) -> tuple[Service, asyncio.Event]:
        """It fails once, and then holds on to what comes, that attempt or another message, until it is stopped."""
        service = Service("stepper", concurrency=1, stop_timeout=timedelta(milliseconds=50))
        failed = asyncio.Event()

        @service.handler(retry=Retry(attempts=most, first_delay=_NOW, jitter=0))
        async def step(event: Step, context: Context) -> None:
            if holds and failed.is_set():
                await asyncio.Event().wait()
            tried[event.name].append(context.attempt)
            failed.set()
            raise RuntimeError("as often as it comes")

        return service, failed

    async with bus(backend, namespace) as one, bus(backend, namespace) as two:
        service, _ = replica()
        async with one.run(service):
            pass  # the group exists from here on
        await one.publish_many([Step(name="a"), Step(name="b")])
        for turn in range(2 * (most - 1)):
            service, failed = replica()
            on: Bus = (one, two)[turn % 2]
            async with on.run(service):
                await eventually(failed.is_set, f"replica {turn} tries one of them")
        service, _ = replica(holds=False)
        async with one.run(service):
            letters = await dead_letters(backend, namespace, "stepper", 2)
    assert tried == {name: list(range(1, most + 1)) for name in ("a", "b")}
    assert {letter.headers[h.ATTEMPT] for letter in letters} == {str(most)}


@check("F20", "a handler that names the delay of its next attempt is tried then, whatever its policy; it counts")
async def named_delay(backend: Backend) -> None:
    namespace = fresh_namespace()
    hour = timedelta(hours=1)
    service = Service("stepper", retry=Retry(attempts=3, first_delay=hour, max_delay=hour))
    times: dict[str, list[float]] = defaultdict(list)

    @service.handler
    async def step(event: Step, context: Context) -> None:
        times[event.name].append(time.monotonic())
        if event.name == "once" and context.attempt == 2:
            return
        raise RetryLater(timedelta(milliseconds=400), "too many requests")

    async with bus(backend, namespace) as b, b.run(service) as running:
        await b.publish_many([Step(name="once"), Step(name="always")])
        await eventually(lambda: running.counts["stepper"].handled, "it is tried again soon, not in an hour")
        (letter,) = await dead_letters(backend, namespace, "stepper", 1)
        await stays(lambda: sum(map(len, times.values())) == 5, "tried too often", 0.1)
    assert (letter.key, letter.headers[h.ATTEMPT], letter.headers[h.REASON]) == ("always", "3", Reason.EXHAUSTED)
    assert "too many requests" in letter.headers[h.ERROR_MESSAGE]
    waited = [later - sooner for found in times.values() for sooner, later in pairwise(found)]
    assert min(waited) > 0.39, f"earlier than it said: {waited}"
    assert max(waited) < 3.0, f"far later than it said: {waited}"

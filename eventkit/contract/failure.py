"""F: failure."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from datetime import timedelta
from statistics import median

from eventkit import headers as h
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.copies import Reason
from eventkit.errors import GiveUp, Reject
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service

_HOUR = timedelta(hours=1)
_HALF = timedelta(milliseconds=500)
_SOON = timedelta(milliseconds=50)


class Job(Event, topic="failure.jobs", key="name"):
    name: str
    number: int = 0


class Slow(Event, topic="failure.jobs", key="name"):
    """Its handler waits half a second before it tries again."""

    name: str


class Now(Event, topic="failure.jobs", key="name"):
    """Its handler tries again at once."""

    name: str


class Said(Event, topic="failure.said"):
    text: str


class Work(Command, service="worker"):
    number: int


def _retry(attempts: int) -> Retry:
    return Retry(attempts=attempts, first_delay=_SOON, jitter=0)


@check("F1", "a message whose handler failed comes again, the same message, its attempt one higher")
async def attempt_counts_up(backend: Backend) -> None:
    service = Service("worker", retry=_retry(5))
    seen: list[tuple[Job, int, str, str | None, dict[str, str]]] = []
    elsewhere: list[int] = []

    @service.handler
    async def job(event: Job, context: Context) -> None:
        seen.append((event, context.attempt, context.id, context.key, context.headers))
        if context.attempt < 4:
            raise RuntimeError("not yet")

    @service.handler(group="audit")
    async def audit(event: Job, context: Context) -> None:
        elsewhere.append(context.attempt)
        if context.attempt < 2:
            raise RuntimeError("not yet")

    async with bus(backend, fresh_namespace()) as b, b.run(service) as running:
        await b.publish(Job(name="a", number=7), id="job-7", headers={"x-tenant": "north"})
        await eventually(lambda: running.counts["worker"].handled, "the fourth attempt succeeds")
        await eventually(lambda: running.counts["worker.audit"].handled, "so does the second, in another group")
        await stays(lambda: len(seen) == 4, "it came again after it had succeeded", 0.2)
        counts = running.counts["worker"]
    assert seen == [(Job(name="a", number=7), n, "job-7", "a", {"x-tenant": "north"}) for n in (1, 2, 3, 4)]
    assert (counts.retried, counts.handled, counts.dead) == (3, 1, 0)
    assert elsewhere == [1, 2], f"a group got another's retries: {elsewhere}"


@check("F3", "a message that goes on failing is tried exactly as often as its policy says, then it is a dead letter")
async def exact_attempts(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker", retry=_retry(3))
    tried: dict[str, list[int]] = defaultdict(list)

    @service.handler
    async def job(event: Job, context: Context) -> None:
        tried[event.name].append(context.attempt)
        raise LookupError(f"no {event.name}")

    @service.handler(retry=Retry(attempts=1))
    async def never_again(event: Slow, context: Context) -> None:
        tried[event.name].append(context.attempt)
        raise RuntimeError

    @service.handler(retry=Retry(attempts=7, first_delay=timedelta(0), jitter=0))
    def often(event: Now, context: Context) -> None:
        tried[event.name].append(context.attempt)
        raise RuntimeError

    async with bus(backend, namespace) as b, b.run(service):
        await b.publish_many([Job(name=f"job {n}") for n in range(20)])
        await b.publish_many([Slow(name="once"), Now(name="often")])
        letters = await dead_letters(backend, namespace, "worker", 22)
        attempts = {name: list(range(1, 4)) for name in (f"job {n}" for n in range(20))}
        attempts |= {"once": [1], "often": list(range(1, 8))}
        await stays(lambda: tried == attempts, f"other attempts than {attempts}: {tried}", 0.3)
    said = {letter.key: (letter.headers[h.ATTEMPT], letter.headers[h.REASON]) for letter in letters}
    assert said == {name: (str(len(numbers)), Reason.EXHAUSTED) for name, numbers in attempts.items()}
    assert {letter.headers[h.ERROR_TYPE] for letter in letters if letter.type == "Job"} == {"LookupError"}


@check("F4", "a retry waits as long as it says and blocks nobody; so does a delayed publish; no delay is none")
async def delays_block_nobody(backend: Backend) -> None:
    parked = 2_000
    service = Service("worker", concurrency=64, retry=Retry(attempts=2, first_delay=_HOUR, max_delay=_HOUR, jitter=0))
    fine: list[int] = []
    failed: Counter[str] = Counter()
    times: dict[str, list[float]] = defaultdict(list)

    @service.handler
    async def job(event: Job) -> None:
        if event.number < 0:
            failed[event.name] += 1
            raise RuntimeError("in an hour, perhaps")
        fine.append(event.number)

    @service.handler(retry=Retry(attempts=2, first_delay=_HALF, jitter=0))
    async def slow(event: Slow, context: Context) -> None:
        times[event.name].append(time.monotonic())
        if context.attempt == 1 and event.name.startswith("retried"):
            raise RuntimeError("in half a second")

    @service.handler(retry=Retry(attempts=2, first_delay=timedelta(0), jitter=0))
    async def now(event: Now, context: Context) -> None:
        times[event.name].append(time.monotonic())
        if context.attempt == 1:
            raise RuntimeError("at once")

    async with bus(backend, fresh_namespace()) as b, b.run(service) as running:
        await b.publish_many([Job(name=f"hour {n}", number=-1) for n in range(parked)])
        await b.publish_many([Job(name=f"fine {n}", number=n) for n in range(100)])
        await eventually(lambda: len(fine) >= 100, "100 healthy messages come through behind 2,000 that wait")
        # where this machine held us up past the lease, what was in hand comes later
        await eventually(lambda: len(failed) >= parked and not running.at_work, "all 2,000 are off the topic")
        assert sorted(fine) == list(range(100))
        assert set(failed.values()) == {1}

        slow_ones, quick_ones = ([f"{what} {n}" for n in range(5)] for what in ("retried", "now"))
        await asyncio.gather(*(b.publish(Slow(name=name)) for name in slow_ones))
        published = time.monotonic()
        await b.publish(Slow(name="later"), delay=_HALF)
        await b.publish(Slow(name="zero"), delay=timedelta(0))
        await eventually(lambda: times["later"] and times["zero"], "the published ones come")
        await eventually(lambda: all(len(times[name]) > 1 for name in slow_ones), "the failed ones come again")
        await asyncio.gather(*(b.publish(Now(name=name)) for name in quick_ones))
        await eventually(lambda: all(len(times[name]) > 1 for name in quick_ones), "these, too")
        await stays(lambda: sum(map(len, times.values())) == 22, "one came twice", 0.1)
        assert set(failed.values()) == {1}, "an hour is not over"
    late = [times[name][1] - times[name][0] for name in slow_ones] + [times["later"][0] - published]
    assert min(late) > 0.49, f"earlier than half a second: {late}"
    assert max(late) < 2.5, f"far later than half a second: {late}"
    at_once = [times[name][1] - times[name][0] for name in quick_ones]
    assert median(at_once) < 0.3, f"not at once: {at_once}"
    assert times["zero"][0] - published < 1.0


@check("F6", "a dead letter is written once, and its original is finished: it never comes again")
async def dead_letter_once(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker", retry=_retry(2))
    calls: Counter[str] = Counter()

    @service.handler
    async def job(event: Job) -> None:
        calls[event.name] += 1
        if event.number:
            raise RuntimeError("never")

    @service.handler
    async def work(command: Work) -> None:
        calls[f"work {command.number}"] += 1
        raise GiveUp("of no use")

    async with bus(backend, namespace) as b, bus(backend, namespace, "elsewhere") as other:
        async with b.run(service):
            for number in range(5):
                # an id is its source's own, and what else it stands for there
                await b.publish(Job(name=f"bad {number}", number=1), id=f"id-{number}")
                await other.publish(Job(name=f"other {number}", number=1), id=f"id-{number}")
                await b.send(Work(number=number), id=f"id-{number}")
                await b.publish(Job(name=f"good {number}"))
            await dead_letters(backend, namespace, "worker", 15)
        async with b.run(service):
            await b.publish(Job(name="afterwards"))
            await eventually(lambda: calls["afterwards"], "the service works again after its restart")
            await stays(lambda: calls.total() == 31, f"finished messages came again: {calls}", 0.3)
            letters = await dead_letters(backend, namespace, "worker", 15)
    said = Counter((letter.headers[h.ID], letter.headers[h.SOURCE], letter.headers[h.ORIGIN]) for letter in letters)
    mine = [("contract", "topic:failure.jobs"), ("elsewhere", "topic:failure.jobs"), ("contract", "inbox:worker")]
    assert said == Counter((f"id-{n}", source, origin) for n in range(5) for source, origin in mine), said
    assert calls == {
        **{f"bad {n}": 2 for n in range(5)},
        **{f"other {n}": 2 for n in range(5)},
        **{f"work {n}": 1 for n in range(5)},
        **{f"good {n}": 1 for n in range(5)},
        "afterwards": 1,
    }


class Hopeless(ValueError):
    """Of a class that is never tried again."""


@check("F8", "GiveUp, and an exception that the policy never retries, make a dead letter on attempt 1")
async def not_retryable(backend: Backend) -> None:
    namespace = fresh_namespace()
    retry = Retry(attempts=3, first_delay=_SOON, jitter=0, never=(ValueError,))
    service = Service("worker", retry=retry)
    tried: Counter[str] = Counter()
    raised = {"gives up": GiveUp("no use"), "never": ValueError("no"), "subclass": Hopeless("no"), "again": KeyError()}

    @service.handler
    async def job(event: Job) -> None:
        tried[event.name] += 1
        raise raised[event.name]

    async with bus(backend, namespace) as b, b.run(service):
        await b.publish_many([Job(name=name) for name in raised])
        letters = await dead_letters(backend, namespace, "worker", 4)
        await stays(lambda: tried.total() == 6, f"tried otherwise: {tried}", 0.2)
    assert tried == {"gives up": 1, "never": 1, "subclass": 1, "again": 3}
    assert {letter.key: (letter.headers[h.ATTEMPT], letter.headers[h.REASON]) for letter in letters} == {
        "gives up": ("1", Reason.GAVE_UP),
        "never": ("1", Reason.GAVE_UP),
        "subclass": ("1", Reason.GAVE_UP),
        "again": ("3", Reason.EXHAUSTED),
    }


@check("F9", "a message that cannot be decoded is a dead letter, body untouched, and its consumer goes on")
async def undecodable(backend: Backend) -> None:
    namespace = fresh_namespace()
    service = Service("worker")
    seen: list[int] = []

    @service.handler
    async def job(event: Job) -> None:
        seen.append(event.number)

    broken: dict[str, bytes | None] = {
        "no json": b"{not json",
        "no utf-8": b"\xff\xfe\x00",
        "other json": b"[1, 2]",
        "wrong field": json.dumps({"name": "k", "number": "many"}).encode(),
        "empty": b"",
        "tombstone": None,
    }
    async with bus(backend, namespace) as b, b.run(service) as running:
        for number, (name, body) in enumerate(broken.items()):
            raw = b.encode(Job(name="k"), id=name)._replace(body=body)
            await b.deliver([raw])
            await b.publish(Job(name="k", number=number))
        foreign = b.encode(Job(name="k"), id="content type")
        foreign = foreign._replace(headers={**foreign.headers, h.CONTENT_TYPE: "image/png"})
        await b.deliver([foreign])
        await b.publish(Job(name="k", number=100))
        await eventually(lambda: 100 in seen, "the consumer goes on")
        letters = await dead_letters(backend, namespace, "worker", 7)
        assert running.health().ok
        assert running.counts["worker"].retried == 0
    assert seen == [*range(6), 100]
    found = {letter.headers[h.ID]: letter for letter in letters}
    assert found.keys() == broken.keys() | {"content type"}
    assert {(letter.headers[h.REASON], letter.headers[h.ATTEMPT]) for letter in letters} == {(Reason.UNDECODABLE, "1")}
    assert {name: found[name].body or b"" for name in broken} == {name: body or b"" for name, body in broken.items()}
    assert "number" in found["wrong field"].headers[h.ERROR_MESSAGE]
    assert "image/png" in found["content type"].headers[h.ERROR_MESSAGE]


@check("F15", "a handler that fails emits nothing; what it sent goes out once, when it succeeds")
async def failing_emits_nothing(backend: Backend) -> None:
    namespace = fresh_namespace()
    service, listener = Service("worker", retry=_retry(3)), Service("listener")
    heard: Counter[str] = Counter()

    @service.handler
    async def job(event: Job, context: Context) -> Said | None:
        context.publish(Said(text=f"{event.name}, attempt {context.attempt}"))
        if context.attempt <= event.number:
            raise RuntimeError("after it spoke")
        return Said(text=f"{event.name} done")

    @service.handler
    def in_a_thread(event: Slow, context: Context) -> None:
        context.publish(Said(text=f"{event.name}, attempt {context.attempt}"))
        raise RuntimeError("after it spoke")

    @listener.handler
    async def hear(event: Said) -> None:
        heard[event.text] += 1

    async with bus(backend, namespace) as b, b.run(service, listener) as running:
        await b.publish_many([Job(name="good"), Job(name="third", number=2), Job(name="never", number=9)])
        await b.publish(Slow(name="thread"))
        await dead_letters(backend, namespace, "worker", 2)
        await eventually(lambda: running.counts["worker"].handled == 2, "two succeed")
        expected = {"good, attempt 1": 1, "good done": 1, "third, attempt 3": 1, "third done": 1}
        await eventually(lambda: heard.total() >= 4, f"what the successful attempts sent: {heard}")
        await stays(lambda: heard == expected, f"a failed attempt spoke: {heard}", 0.3)


@check("F17", "Reject is an outcome: no retry, no dead letter; the messages it carries go out, once")
async def reject_is_an_outcome(backend: Backend) -> None:
    namespace = fresh_namespace()
    service, listener = Service("worker", retry=_retry(3)), Service("listener")
    calls: Counter[int] = Counter()
    heard: Counter[str] = Counter()

    @service.handler
    async def work(command: Work, context: Context) -> None:
        calls[command.number] += 1
        if command.number % 2:
            context.publish(Said(text="collected by an attempt that did not succeed"))
            raise Reject("odd", Said(text=f"refused {command.number}"), Said(text=f"sorry for {command.number}"))
        context.publish(Said(text=f"did {command.number}"))

    @listener.handler
    async def hear(event: Said) -> None:
        heard[event.text] += 1

    async with bus(backend, namespace) as b:
        async with b.run(service, listener) as running:
            await asyncio.gather(*(b.send(Work(number=n)) for n in range(10)))
            await eventually(lambda: heard.total() >= 15, "what was done and what was refused is told")
            counts = running.counts["worker"]
        assert (counts.handled, counts.rejected, counts.retried, counts.dead) == (5, 5, 0, 0)
        async with b.run(service, listener):
            await b.send(Work(number=10))
            await eventually(lambda: heard["did 10"], "the service works again after its restart")
            await stays(lambda: calls.total() == 11, f"a rejected command came again: {calls}", 0.3)
    assert heard == {
        **{f"refused {n}": 1 for n in range(1, 10, 2)},
        **{f"sorry for {n}": 1 for n in range(1, 10, 2)},
        **{f"did {n}": 1 for n in range(0, 11, 2)},
    }
    assert await dead_letters(backend, namespace, "worker", 0) == []

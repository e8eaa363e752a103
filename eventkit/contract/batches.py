"""B: batches."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from datetime import timedelta

from eventkit import headers as h
from eventkit.batches import Batch
from eventkit.context import Context
from eventkit.contract.checks import Backend, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.letters import dead_letters
from eventkit.contract.samples import a_moment
from eventkit.copies import Reason
from eventkit.errors import CommandFailed, CommandRejected, GiveUp, PartialFailure, Reject
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service

AT_ONCE = Retry(attempts=3, first_delay=timedelta(0), jitter=0)
SHORT = timedelta(milliseconds=100)


class Read(Event, topic="meters", key="meter"):
    """A reading of a meter."""

    number: int
    meter: str | None = None


class Reset(Event, topic="meters", key="meter"):
    """Another type on the same topic: it shares the order of its key."""

    number: int
    meter: str


class Stored(Event, topic="stored", key="meter"):
    number: int
    meter: str | None


class Check(Command[int], service="meters", key="meter"):
    number: int
    meter: str


@check("B1", "a batch holds no more than its size, waits no longer than it says, and nothing is handled twice")
async def size_and_wait(backend: Backend) -> None:
    namespace = fresh_namespace()
    batches: list[list[int]] = []
    service = Service("storing", concurrency=4)

    @service.handler(batch=Batch(size=40, wait=SHORT))
    async def store(events: list[Read]) -> None:
        batches.append([event.number for event in events])

    async with bus(backend, namespace) as b, b.run(service) as running:
        await b.publish_many([Read(number=number, meter=f"m{number % 7}") for number in range(500)])
        await b.publish_many([Read(number=number) for number in range(500, 1_000)])
        await eventually(lambda: sum(map(len, batches)) >= 1_000, "all are handled")
        await b.publish(Read(number=1_000))
        await eventually(lambda: batches[-1] == [1_000], "a lone one does not wait for others for ever")
        await eventually(lambda: running.counts["storing"].handled == 1_001, "each counts")
        await stays(lambda: sum(map(len, batches)) == 1_001, "none comes twice", 0.2)
    assert sorted(number for batch in batches for number in batch) == list(range(1_001))
    assert max(map(len, batches)) == 40, f"the largest batch held {max(map(len, batches))}"
    for meter in range(7):
        mine = [number for batch in batches for number in batch if number < 500 and number % 7 == meter]
        assert mine == sorted(mine), f"out of order: {mine}"


@check("B2", "only the messages that a PartialFailure names fail, each with its own attempts; the others are settled")
async def partial_failure(backend: Backend) -> None:
    namespace = fresh_namespace()
    tried: dict[int, list[int]] = defaultdict(list)
    service = Service("storing", retry=AT_ONCE)

    @service.handler(batch=Batch(size=30, wait=SHORT))
    async def store(events: list[Read], contexts: list[Context]) -> None:
        errors: dict[int, BaseException] = {}
        for index, (event, context) in enumerate(zip(events, contexts, strict=True)):
            assert context.key == event.meter
            tried[event.number].append(context.attempt)
            if event.number % 10 == 3:
                errors[index] = LookupError(f"number {event.number}")
            elif event.number % 10 == 4 and context.attempt < 2:
                errors[index] = ConnectionError("once")
            elif event.number % 10 == 5:
                errors[index] = GiveUp("never again")
        if errors:
            raise PartialFailure(errors)

    async with bus(backend, namespace) as b, b.run(service) as running:
        await b.publish_many([Read(number=number, meter=f"m{number}") for number in range(60)])
        letters = await dead_letters(backend, namespace, "storing", 12)
        await eventually(lambda: running.counts["storing"].handled == 48, "the others are settled")
    expected = {3: [1, 2, 3], 4: [1, 2]}
    assert tried == {number: expected.get(number % 10, [1]) for number in range(60)}, f"tried otherwise: {tried}"
    said = {letter.key: (letter.headers[h.REASON], letter.headers[h.ATTEMPT]) for letter in letters}
    assert said == {f"m{n}3": (Reason.EXHAUSTED, "3") for n in ("", *range(1, 6))} | {
        f"m{n}5": (Reason.GAVE_UP, "1") for n in ("", *range(1, 6))
    }
    async with bus(backend, namespace) as b, b.run(service):
        before = {number: list(attempts) for number, attempts in tried.items()}
        await stays(lambda: tried == before, "what was settled came again after a restart", 0.3)


@check("B3", "a batch holds no message whose key has an earlier one open elsewhere")
async def keys_of_batches(backend: Backend) -> None:
    namespace = fresh_namespace()
    seen: dict[str, list[int]] = defaultdict(list)
    running: Counter[str] = Counter()
    at_once: list[str] = []
    service = Service("storing", concurrency=16)

    def begin(meters: set[str]) -> None:
        at_once.extend(meter for meter in meters if running[meter])
        running.update(meters)

    @service.handler(batch=Batch(size=10, wait=timedelta(milliseconds=5)))
    async def store(events: list[Read]) -> None:
        meters = {event.meter or "" for event in events}
        begin(meters)
        await a_moment(0.01)
        for event in events:
            seen[event.meter or ""].append(event.number)
        running.subtract(meters)

    @service.handler
    async def reset(event: Reset) -> None:
        begin({event.meter})
        await a_moment(0.005)
        seen[event.meter].append(event.number)
        running.subtract({event.meter})

    each, meters = 60, 12
    async with bus(backend, namespace) as b, b.run(service):
        await b.publish_many(
            [
                (Reset if number % 9 == 4 else Read)(number=number, meter=f"m{meter}")
                for number in range(each)
                for meter in range(meters)
            ]
        )
        await eventually(lambda: sum(map(len, seen.values())) >= each * meters, "all are handled")
    wrong = {meter: numbers for meter, numbers in seen.items() if numbers != list(range(each))}
    assert not wrong, f"out of order, missing or twice: {wrong}"
    assert not at_once, f"two calls at once for {at_once}"


@check("B4", "what a batch sends has the message that it came of as its cause; a message that fails sends nothing")
async def causation_of_batches(backend: Backend) -> None:
    namespace = fresh_namespace()
    ids: dict[int, str] = {}
    stored: dict[int, set[tuple[str | None, str, str]]] = defaultdict(set)
    failed_once: set[int] = set()
    service = Service("storing", retry=AT_ONCE)

    @service.handler(batch=Batch(size=20, wait=SHORT))
    async def store(events: list[Read], contexts: list[Context]) -> list[Stored | None]:
        errors: dict[int, BaseException] = {}
        for index, (event, context) in enumerate(zip(events, contexts, strict=True)):
            ids[event.number] = context.id
            if event.number % 2:
                context.publish(Stored(number=event.number, meter=event.meter))
            if event.number % 5 == 0 and event.number not in failed_once:
                failed_once.add(event.number)
                errors[index] = LookupError("once")
                if event.number % 2 == 0:
                    context.publish(Stored(number=-event.number - 1, meter="of a failed attempt"))
        results = [None if event.number % 2 else Stored(number=event.number, meter=event.meter) for event in events]
        if errors:
            raise PartialFailure(errors, results)
        return results

    @service.handler
    async def see(event: Stored, context: Context) -> None:
        stored[event.number].add((context.causation_id, context.correlation_id, context.id))

    async with bus(backend, namespace) as b, b.run(service):
        for number in range(40):
            await b.publish(Read(number=number, meter=f"m{number}"), correlation_id=f"chain-{number}")
        await eventually(lambda: set(range(40)) <= stored.keys(), "all that was published or returned is seen")
        assert len(failed_once) == 8
        await stays(lambda: min(stored) >= 0, "a failed attempt has published", 0.2)
    for number, said in stored.items():
        assert len(said) == 1, f"{number} was stored by several messages: {said}"
        ((cause, correlation, _),) = said
        assert (cause, correlation) == (ids[number], f"chain-{number}")


@check("B5", "a last attempt is alone in its batch: a message that fails every batch makes no other a dead letter")
async def poison_in_a_batch(backend: Backend) -> None:
    namespace = fresh_namespace()
    sizes: dict[int, list[int]] = defaultdict(list)
    service = Service("storing", retry=AT_ONCE)

    @service.handler(batch=Batch(size=25, wait=SHORT))
    async def store(events: list[Read]) -> None:
        for event in events:
            sizes[event.number].append(len(events))
        if any(event.number == 7 for event in events):
            raise LookupError("seven fails them all")

    async with bus(backend, namespace) as b, b.run(service) as running:
        await b.publish_many([Read(number=number, meter=f"m{number}") for number in range(25)])
        (letter,) = await dead_letters(backend, namespace, "storing", 1, within=20)
        await eventually(lambda: running.counts["storing"].handled == 24, "the others get through")
    assert letter.key == "m7"
    assert letter.headers[h.ATTEMPT] == "3"
    assert sizes[7][-1] == 1, f"its last attempt was made together with others: {sizes[7]}"


@check("B6", "commands in a batch: each requester gets the reply, the rejection or the failure of its own")
async def requests_in_a_batch(backend: Backend) -> None:
    namespace = fresh_namespace()
    sizes: list[int] = []
    service = Service("meters", retry=Retry(attempts=1))

    @service.handler(batch=Batch(size=10, wait=SHORT))
    async def answer(commands: list[Check]) -> list[int]:
        sizes.append(len(commands))
        errors: dict[int, BaseException] = {}
        for index, command in enumerate(commands):
            if command.number == 7:
                errors[index] = Reject("seven is too many")
            elif command.number == 8:
                errors[index] = LookupError("no such number")
        results = [command.number * 2 for command in commands]
        if errors:
            raise PartialFailure(errors, results)
        return results

    async with bus(backend, namespace) as b, b.run(service):
        asked = [b.request(Check(number=n, meter=f"m{n}")) for n in range(20)]
        replies = await asyncio.gather(*asked, return_exceptions=True)
    rejected, failed = replies[7], replies[8]
    assert isinstance(rejected, CommandRejected), f"instead of a rejection: {rejected!r}"
    assert rejected.reason == "seven is too many"
    assert isinstance(failed, CommandFailed), f"instead of a failure: {failed!r}"
    assert failed.type == "LookupError"
    assert [reply for n, reply in enumerate(replies) if n not in (7, 8)] == [
        n * 2 for n in range(20) if n not in (7, 8)
    ]
    assert max(sizes) > 1, "they never came together"


@check("B7", "with in_order a failing message of a batch keeps its key waiting, and no other")
async def in_order_batches(backend: Backend) -> None:
    namespace = fresh_namespace()
    seen: dict[str, list[int]] = defaultdict(list)
    attempts: list[int] = []
    retry = Retry(attempts=4, first_delay=timedelta(milliseconds=100), factor=1, jitter=0, in_order=True)
    service = Service("storing", retry=retry)

    @service.handler(batch=Batch(size=20, wait=timedelta(milliseconds=10)))
    async def store(events: list[Read], contexts: list[Context]) -> None:
        errors: dict[int, BaseException] = {}
        for index, (event, context) in enumerate(zip(events, contexts, strict=True)):
            if event.meter == "m3" and event.number == 2:
                attempts.append(context.attempt)
                if context.attempt < 4:
                    errors[index] = LookupError("not yet")
                    continue
            seen[event.meter or ""].append(event.number)
        if errors:
            raise PartialFailure(errors)

    async with bus(backend, namespace) as b, b.run(service):
        await b.publish_many([Read(number=n, meter=f"m{meter}") for n in range(10) for meter in range(8)])
        await eventually(lambda: sum(map(len, seen.values())) >= 72, "the other keys go on")
        await eventually(lambda: sum(map(len, seen.values())) >= 80, "and that one in the end")
    assert seen == {f"m{meter}": list(range(10)) for meter in range(8)}
    assert attempts == [1, 2, 3, 4]


@check("B8", "a stop finishes the batches that run, and loses none of those that are being filled")
async def stop_with_open_batches(backend: Backend) -> None:
    namespace = fresh_namespace()
    done: Counter[int] = Counter()
    service = Service("storing", concurrency=2, stop_timeout=timedelta(seconds=10))

    @service.handler(batch=Batch(size=50, wait=timedelta(seconds=30)))
    async def store(events: list[Read]) -> None:
        await asyncio.sleep(0.1)
        done.update(event.number for event in events)

    @service.handler
    async def reset(event: Reset) -> None:
        """It is there so that a key may be held while another type waits behind it."""

    count = itertools.count()

    def more(many: int, *meters: str) -> list[Read]:
        return [Read(number=next(count), meter=meters[n % len(meters)]) for n in range(many)]

    async with bus(backend, namespace) as b:
        async with b.run(service) as running:
            await b.publish_many(more(120, *(f"m{n}" for n in range(9))))
            await b.publish_many([*more(10, *(f"n{n}" for n in range(5))), Reset(number=0, meter="m0")])
            await eventually(
                lambda: done.total() >= 100 and not running.at_work, "two are handled, one is being filled"
            )
            await b.publish_many(more(50, *(f"o{n}" for n in range(50))))
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 8, "the stop waited for a batch to be full"
        assert done.total() >= 130, f"what was in a batch was given back: only {done.total()} are handled"
        total = next(count)
        again = Service("storing")

        @again.handler(batch=Batch(size=50, wait=SHORT))
        async def rest(events: list[Read]) -> None:
            done.update(event.number for event in events)

        async with b.run(again):
            await eventually(lambda: done.keys() == set(range(total)), "the rest after the next start")
            await stays(lambda: done.total() == total, f"some twice: {done - Counter(range(total))}", 0.3)

"""O: order."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import timedelta
from itertools import pairwise

from eventkit import CapabilityNotSupported, Event, Retry, Service
from eventkit.adapter import DONE, Address, Group, Provision
from eventkit.contract.checks import Backend, Refused, bus, check, eventually, fresh_namespace, stays
from eventkit.contract.receiving import put, raw, receive, started
from eventkit.contract.samples import Counted, a_moment, raises

KEYS = 7
EACH = 100


class Renamed(Event, topic="counts", key="key"):
    """Another type on the same topic: it shares the order of its key."""

    number: int
    key: str


def sequence(start: int = 0) -> list[Event]:
    """A hundred numbers for each of several keys, of two types, the keys in turn."""
    return [
        (Renamed if number % 10 == 3 else Counted)(number=number, key=f"key {key}")
        for number in range(start, start + EACH)
        for key in range(KEYS)
    ]


def in_order(seen: dict[str, list[int]], count: int) -> None:
    """Each key has had its numbers from 0, each once, in the order in which they were published."""
    assert set(seen) == {f"key {key}" for key in range(KEYS)}
    for key, numbers in seen.items():
        wrong = next((at for at, number in enumerate(numbers) if number != at), len(numbers))
        after = numbers[max(wrong - 3, 0) : wrong + 5]
        assert len(numbers) == wrong == count, f"{key}: {len(numbers)} of {count}, out of order at {wrong}: {after}"


@check("O1", "messages of one key are handled in the order in which they were published")
async def order_of_a_key(backend: Backend) -> None:
    namespace = fresh_namespace()
    seen: dict[str, list[int]] = defaultdict(list)
    service = Service("counting", concurrency=1)

    @service.handler
    async def counts(event: Counted | Renamed) -> None:
        await a_moment(0.0005)
        seen[event.key or ""].append(event.number)

    async with bus(backend, namespace) as one, one.run(service):
        await one.publish_many(sequence())  # in one go, and then one by one
        for event in sequence(EACH)[: 10 * KEYS]:
            await one.publish(event)
        await eventually(lambda: sum(map(len, seen.values())) >= (EACH + 10) * KEYS, "all are handled")
    in_order(seen, EACH + 10)


@check("O2", "messages of one key keep their order while those of other keys are handled beside them")
async def order_with_concurrency(backend: Backend) -> None:
    namespace = fresh_namespace()
    seen: dict[str, list[int]] = defaultdict(list)
    running: Counter[str] = Counter()
    most = {"of one key": 0, "of all": 0, "without key": 0}
    without_key = 0
    service = Service("counting", concurrency=32)

    @service.handler
    async def counts(event: Counted | Renamed) -> None:
        nonlocal without_key
        key = event.key or ""
        running[key] += 1
        try:
            most["without key" if not key else "of one key"] = max(
                most["without key" if not key else "of one key"], running[key]
            )
            most["of all"] = max(most["of all"], running.total())
            await a_moment(0.004)
        finally:
            running[key] -= 1
        if key:
            seen[key].append(event.number)
        else:
            without_key += 1

    async with bus(backend, namespace) as one, one.run(service):
        await one.publish_many(sequence())
        await one.publish_many([Counted(number=number) for number in range(100)])
        await eventually(lambda: sum(map(len, seen.values())) >= EACH * KEYS and without_key >= 100, "all are handled")
        await stays(lambda: without_key == 100, "each once", 0.1)
    in_order(seen, EACH)
    assert most["of one key"] == 1, f"{most['of one key']} messages of one key at once"
    assert most["of all"] >= KEYS, f"at most {most['of all']} messages at once, of {KEYS} keys"
    assert most["without key"] > 1, "messages without a key wait for each other"


@check(
    "O3",
    "messages of one key keep their order across replicas, which come and go, where the broker can; where not, asking "
    "for it is refused at start",
)
async def order_across_replicas(backend: Backend) -> None:
    namespace = fresh_namespace()
    seen: dict[str, list[int]] = defaultdict(list)
    by: Counter[int] = Counter()
    running: Counter[str] = Counter()
    overlaps: list[str] = []

    def replica(number: int) -> Service:
        service = Service("counting", concurrency=16, order_across_replicas=True)

        @service.handler
        async def counts(event: Counted | Renamed) -> None:
            key = event.key or ""
            if running[key]:
                overlaps.append(f"{key}: {event.number}")
            running[key] += 1
            by[number] += 1
            await a_moment(0.003)
            running[key] -= 1
            seen[key].append(event.number)

        return service

    async def enter(service: Service) -> None:
        async with first.run(service):
            pass

    async with bus(backend, namespace) as first, bus(backend, namespace) as second, bus(backend, namespace) as third:
        if not first.adapter.capabilities.key_order_across_replicas:
            error = await raises(CapabilityNotSupported, enter(replica(0)))
            assert "counting" in str(error), error
            assert first.broker in str(error), f"it does not name the broker: {error}"
            raise Refused("order_across_replicas: a message goes to whichever replica is free")
        async with first.run(replica(1)):
            await first.publish_many(sequence())
            await eventually(lambda: by[1] > KEYS, "one replica works")
            async with second.run(replica(2)):  # while the first is at work
                await first.publish_many(sequence(EACH))
                await eventually(lambda: by[2] > KEYS, "a second one shares the work")
                await first.publish_many(sequence(2 * EACH))
            async with third.run(replica(3)):
                await first.publish_many(sequence(3 * EACH))
                await eventually(lambda: sum(map(len, seen.values())) >= 4 * EACH * KEYS, "all are handled", 30.0)
    assert not overlaps, f"two of one key at once: {overlaps[:5]}"
    in_order(seen, 4 * EACH)


@check("O4", "with in_order a key that fails waits, in order, and no other does: thousands of others pass it by")
async def failing_key_blocks_itself(backend: Backend) -> None:
    behind, others = 50, 4_000
    bad = [f"bad {n}" for n in range(6)]
    delay = timedelta(seconds=3)
    # more are held at once than there are workers, and more keys fail than that: those that wait take none
    service = Service(
        "counting", concurrency=4, retry=Retry(attempts=3, first_delay=delay, factor=1, jitter=0, in_order=True)
    )
    failed: Counter[str] = Counter()
    seen: dict[str, list[int]] = defaultdict(list)
    moments: list[float] = []
    """At which one of the others was handled."""

    def handled(keys: Collection[str]) -> int:
        return sum(len(seen[key]) for key in keys)

    @service.handler
    async def counts(event: Counted) -> None:
        key = event.key or ""
        if key in bad and event.number == 0 and failed[key] < 2:
            failed[key] += 1
            raise RuntimeError("in a while")
        seen[key].append(event.number)
        if key not in bad:
            moments.append(time.monotonic())

    async with bus(backend, fresh_namespace()) as b, b.run(service) as running:
        await b.publish_many([Counted(number=number, key=key) for number in range(behind) for key in bad])
        await eventually(lambda: len(failed) == len(bad), "the first of each bad key fails")
        good = [f"key {n}" for n in range(40)]
        moments.append(time.monotonic())
        await b.publish_many([Counted(number=n // 40, key=good[n % 40]) for n in range(others)])
        await eventually(lambda: handled(good) >= others, "all others pass them by", 30.0)
        # they were tried again meanwhile at most, and nothing of their keys went before them
        early = [key for key in bad if seen[key] and failed[key] < 2]
        assert not early, f"of {early} one was handled before the first"
        waited = max(later - sooner for sooner, later in pairwise(moments))
        assert waited < 0.8 * delay.total_seconds(), f"the others waited for them: {waited:.1f} s"
        await eventually(lambda: handled(bad) == behind * len(bad), "their keys go on when they have succeeded", 30.0)
        counts_ = running.counts["counting"]
    assert {key: seen[key] for key in bad} == {key: list(range(behind)) for key in bad}, "a key lost its order"
    assert {key: numbers == sorted(numbers) for key, numbers in seen.items()} == dict.fromkeys(seen, True)
    assert (counts_.retried, counts_.dead, counts_.handled) == (2 * len(bad), 0, behind * len(bad) + others)


@check("O5", "progress never passes what is unsettled: a consumer that is lost takes nothing with it")
async def progress_never_passes(backend: Backend) -> None:
    namespace = fresh_namespace()
    topic = Address("topic", "counts")
    group = Group("counting", (topic,))
    total = 200
    open_ones = {number for number in range(total) if number in {2, 57, 58, 150} or number % 40 == 13}
    lost = backend.adapter(namespace)
    await lost.start(15.0)
    try:
        await lost.provision([group], Provision.CREATE)
        first = await receive(lost, group, in_flight=1_000)
        await put(lost, *(raw(topic, b"%d" % number, f"k{number % KEYS}") for number in range(total)))
        await first.arrive(total)
        finished = [delivery for delivery in first.got if int(delivery.message.body or b"") not in open_ones]
        for delivery in reversed(finished):  # out of order: the last first
            first.settle(delivery)
        await stays(lambda: not first.failed, "settlements are made", 0.3)
    finally:
        await lost.stop(0.0)
    assert Counter(first.bodies) == Counter(b"%d" % number for number in range(total)), "each once, before it was lost"
    async with started(backend, namespace) as adapter:
        second = await receive(adapter, group, in_flight=1_000, settle_with=DONE)
        await eventually(lambda: open_ones <= {int(body or b"") for body in second.bodies}, "what was not settled")
        await stays(lambda: True, "what else comes", 0.3)
        again = Counter(int(body or b"") for body in second.bodies)
        assert set(again.values()) == {1}, f"twice to one consumer: {again - Counter(set(again))}"
        if not adapter.capabilities.settles_in_order:
            assert again.keys() == open_ones, f"settled, and delivered again: {sorted(again.keys() - open_ones)}"

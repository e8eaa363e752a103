"""Lanes: order per key, concurrency, contexts, and items that do odd things to the worker they run in."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import pytest

from eventkit import Context, Event, Retry, Service, testing
from eventkit.lanes import Lanes

T = TypeVar("T")

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Note(Event, topic="notes", key="key"):
    number: int
    key: str | None = None
    does: str = ""


def lanes(run: Callable[[Any], Any], concurrency: int) -> Lanes[Any]:
    return Lanes(run, concurrency, asyncio.get_running_loop().call_later)


async def until(holds: Callable[[], object], within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0)


def run(main: Awaitable[T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(10):
            return await main

    return asyncio.run(limited())


@pytest.mark.parametrize("concurrency", [1, 2, 7, 100])
def test_one_key_runs_in_order_and_one_at_a_time(concurrency: int) -> None:
    async def main() -> None:
        rng = random.Random(concurrency)
        done: dict[str | None, list[int]] = defaultdict(list)
        running: dict[str | None, int] = defaultdict(int)
        most = 0

        async def step(item: tuple[str | None, int]) -> None:
            nonlocal most
            key, number = item
            running[key] += 1
            most = max(most, sum(running.values()))
            assert key is None or running[key] == 1, f"two of {key} at once"
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            running[key] -= 1
            done[key].append(number)

        keys = ["a", "b", "c", "", None]
        work = lanes(step, concurrency)
        for number in range(500):
            key = rng.choice(keys)
            work.add(key, (key, number))
            if rng.random() < 0.1:
                await asyncio.sleep(0)
        await until(lambda: sum(map(len, done.values())) == 500)
        for key in keys[:-1]:
            assert done[key] == sorted(done[key])
        assert most <= concurrency
        assert most == concurrency or concurrency > 5
        await work.close()

    run(main())


def test_a_busy_key_leaves_room_for_others() -> None:
    async def main() -> None:
        seen: list[str] = []

        async def step(item: str) -> None:
            seen.append(item)

        work = lanes(step, 1)
        for _ in range(100):
            work.add("busy", "busy")
        work.add("other", "other")
        await until(lambda: len(seen) == 101)
        assert seen.index("other") < 5  # one a turn, then the lane goes to the back
        await work.close()

    run(main())


def test_slow_items_get_all_workers_and_instant_ones_need_one() -> None:
    async def main() -> None:
        gate, running, names = asyncio.Event(), 0, set()

        async def step(item: int) -> None:
            nonlocal running
            names.add(asyncio.current_task())
            if item < 0:
                running += 1
                await gate.wait()

        work = lanes(step, 8)
        for number in range(200):
            work.add(None, number)
        await asyncio.sleep(0.01)
        assert len(names) == 1
        for number in range(20):
            work.add(None, -1 - number)
        await until(lambda: running == 8)
        await asyncio.sleep(0.01)
        assert running == 8
        gate.set()
        await until(lambda: running == 20)
        await work.close()

    run(main())


def test_an_item_may_run_again_later_before_others_of_its_key() -> None:
    async def main() -> None:
        seen: list[str] = []

        async def step(item: str) -> float | None:
            seen.append(item)
            return 0.02 if item.endswith("again") and seen.count(item) == 1 else None

        work = lanes(step, 1)
        for key, item in (("k", "1 again"), ("k", "2"), (None, "3 again"), ("l", "4")):
            work.add(key, item)
        await until(lambda: len(seen) == 4 - 1)  # all but "2", which waits behind the first
        assert seen == ["1 again", "3 again", "4"]
        assert work.asleep == 3
        await until(lambda: len(seen) == 6)
        assert seen.index("2") > 3
        assert sorted(seen[3:]) == ["1 again", "2", "3 again"]
        assert work.asleep == 0
        await work.close()

    run(main())


def test_waiting_items_can_be_taken_out() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        seen: list[int] = []

        async def step(item: int) -> None:
            seen.append(item)
            await gate.wait()

        work = lanes(step, 1)
        for number in range(10):
            work.add("k" if number % 2 else None, number)
        await until(lambda: seen == [0])
        assert sorted(work.drop(lambda item: item in (3, 4))) == [1, 2, 5, 6, 7, 8, 9]
        gate.set()
        await until(lambda: len(seen) == 3)
        work.add("k", 10)  # an emptied lane works again
        await until(lambda: len(seen) == 4)
        assert sorted(seen) == [0, 3, 4, 10]
        await work.close()

    run(main())


def test_close_cancels_what_runs_and_starts_nothing_more() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def step(item: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(f"{item}")

        work = lanes(step, 2)
        for number in range(5):
            work.add(None, number)
        await asyncio.sleep(0.01)
        await work.close()
        assert sorted(ended) == ["0", "1"]
        work.add(None, 9)
        await asyncio.sleep(0.01)
        assert len(ended) == 2

    run(main())


def test_contexts_are_isolated() -> None:
    async def main() -> None:
        seen: list[tuple[int, str]] = []
        tenant.set("of the start")

        async def step(item: int) -> None:
            assert tenant.get() == "of the start", f"{item} sees {tenant.get()}"
            tenant.set(f"tenant {item}")
            await asyncio.sleep(0)
            helper = asyncio.ensure_future(asyncio.sleep(0, tenant.get()))
            seen.append((item, await helper))
            assert tenant.get() == f"tenant {item}"

        work = lanes(step, 3)
        for number in range(60):
            work.add(f"k{number % 5}" if number % 2 else None, number)
        tenant.set("of the publisher, later")
        await until(lambda: len(seen) == 60)
        assert sorted(seen) == [(number, f"tenant {number}") for number in range(60)]
        await work.close()

    run(main())


def misbehave(does: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    match does:
        case "cancels itself":
            task.cancel()
        case "cancels itself and raises":
            task.cancel()
            raise ValueError("and raises")
        case "raises CancelledError":
            raise asyncio.CancelledError
        case "raises SystemExit":
            raise SystemExit(3)
        case "raises GeneratorExit":
            raise GeneratorExit
        case "raises StopIteration":
            raise StopIteration
        case "raises BaseException":
            raise BaseException("rare")


ODD = ["cancels itself", "cancels itself and raises", "raises CancelledError", "raises SystemExit"]
ODD += ["raises GeneratorExit", "raises StopIteration", "raises BaseException"]


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
@pytest.mark.parametrize("does", ODD)
def test_a_handler_that_misbehaves_fails_its_message_and_not_the_lane(does: str, waits: bool) -> None:
    async def main() -> None:
        service = Service("worker", concurrency=1, retry=Retry(attempts=2))
        handled: list[int] = []

        @service.handler
        async def note(event: Note) -> None:
            if waits:
                await asyncio.sleep(0)
            misbehave(event.does)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            handled.append(event.number)

        async with testing.run(service) as t:
            for number in range(6):
                await t.publish(Note(number=number, key="k", does=does if number in (1, 3) else ""))
            await t.publish(Note(number=6, does=does))
            await t.publish(Note(number=7))
            await t.idle()
            assert [number for number in handled if number != 7] == [0, 2, 4, 5]
            assert handled.count(7) == 1, "without a key, it waits for none"
            letters = t.dead_letters()
            assert sorted((letter.read(Note).number, letter.attempts) for letter in letters) == [(1, 2), (3, 2), (6, 2)]
            assert {letter.reason for letter in letters} == {"exhausted"}

    run(main())


def test_a_cancellation_that_took_no_effect_is_not_left_to_the_next() -> None:
    async def main() -> None:
        service = Service("worker", concurrency=1)
        handled: list[int] = []

        @service.handler
        async def note(event: Note) -> None:
            if event.number % 2 == 0:
                misbehave("cancels itself")  # and returns before it can take effect
            else:
                await asyncio.sleep(0)
            handled.append(event.number)

        async with testing.run(service) as t:
            for number in range(10):
                await t.publish(Note(number=number, key="k"))
            await t.idle()
            assert handled == list(range(10))
            assert not t.dead_letters()

    run(main())


def test_a_stray_cancellation_of_a_worker_that_is_just_woken_stalls_nothing() -> None:
    async def main() -> None:
        done: list[int] = []

        async def handle(item: int) -> None:
            done.append(item)

        lanes: Lanes[int] = Lanes(handle, 4, asyncio.get_running_loop().call_later)
        lanes.add(None, 1)
        while not lanes._idle:
            await asyncio.sleep(0)
        (worker,) = lanes._workers
        lanes.add(None, 2)
        worker.cancel()
        while not lanes._idle or lanes._awake:
            await asyncio.sleep(0)
        lanes.add(None, 3)
        while len(done) < 3:
            await asyncio.sleep(0)
        await lanes.close()

    async def limited() -> None:
        async with asyncio.timeout(5):
            await main()

    asyncio.run(limited())


def test_timeouts_and_task_groups_work_inside_handlers() -> None:
    async def main() -> None:
        service = Service("worker", retry=Retry(attempts=1))
        results: list[str] = []

        @service.handler
        async def note(event: Note, context: Context) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(5)
            except TimeoutError:
                results.append("timed out")
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(5))
                    group.create_task(_fail())
            except* ValueError:
                results.append("group failed")
            results.append("done")

        async with testing.run(service) as t:
            await t.publish(Note(number=1))
            await t.idle()
        assert results == ["timed out", "group failed", "done"]

    run(main())


async def _fail() -> None:
    raise ValueError

"""Lanes against a model: a queue for each key, a heap for what has none, and a number of workers."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventkit.clock import VirtualClock
from eventkit.lanes import Gate, Lanes

CONCURRENCY = 3
keys = st.sampled_from([None, "a", "b", "c"])


class Item:
    """One item, as the model sees it."""

    def __init__(self, number: int, key: str | None) -> None:
        self.number = number
        self.key = key
        self.ends: asyncio.Future[float | Gate | None] | None = None
        """Set while it runs."""
        self.rests = False
        """It is to run again later."""


class LanesMachine(RuleBasedStateMachine):
    """Items are added, end in any order, ask to run again, and are taken out."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = VirtualClock()
        self.lanes: Lanes[Item] = self.now(self.make())
        self.count = 0
        self.waiting: dict[str, deque[Item]] = defaultdict(deque)
        """By key, in order, the one that runs or rests in front."""
        self.keyless: list[Item] = []
        self.running: list[Item] = []
        self.gates: list[tuple[Gate, Item]] = []
        self.held = False
        self.wrong: list[str] = []

    async def make(self) -> Lanes[Item]:
        return Lanes(self.run, CONCURRENCY, self.clock.call_later)

    def now(self, work: Any) -> Any:
        """Do this, and let all that follows from it happen."""

        async def settled() -> Any:
            found = await work
            for _ in range(20):
                await asyncio.sleep(0)
            return found

        return self.loop.run_until_complete(settled())

    async def run(self, item: Item) -> float | Gate | None:
        if item.ends is not None or item.rests:
            self.wrong.append(f"{item.number} runs twice, or was to rest")
        if item.key is not None and self.waiting[item.key][0] is not item:
            self.wrong.append(f"{item.number} overtook one of its key")
        item.ends = self.loop.create_future()
        self.running.append(item)
        try:
            return await item.ends
        finally:
            self.running.remove(item)
            item.ends = None

    @rule(key=keys, many=st.integers(1, 3))
    def add(self, key: str | None, many: int) -> None:
        async def work() -> None:
            for _ in range(many):
                self.count += 1
                item = Item(self.count, key)
                (self.keyless if key is None else self.waiting[key]).append(item)
                self.lanes.add(key, item)

        self.now(work())

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["done", "done", "later", "gate"]))
    def end(self, data: st.DataObject, how: str) -> None:
        item = data.draw(st.sampled_from(self.running))
        ends = item.ends
        assert ends is not None
        if how == "done":
            (self.keyless if item.key is None else self.waiting[item.key]).remove(item)
            answer: float | Gate | None = None
        else:
            item.rests = True
            answer = Gate()
            if how == "later":
                answer = data.draw(st.sampled_from([0.5, 1.0, 30.0]))
                self.clock.call_later(answer, lambda: setattr(item, "rests", False))  # rings before the lanes' own
            else:
                self.gates.append((answer, item))

        async def work() -> None:
            ends.set_result(answer)

        self.now(work())

    @rule(seconds=st.sampled_from([0.4, 1.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        async def work() -> None:
            self.clock.advance(self.clock.now() + timedelta(seconds=seconds))

        self.now(work())

    @precondition(lambda self: self.gates)
    @rule(data=st.data())
    def open_gate(self, data: st.DataObject) -> None:
        gate, item = self.gates.pop(data.draw(st.integers(0, len(self.gates) - 1)))
        item.rests = False

        async def work() -> None:
            gate.open()

        self.now(work())

    @rule(part=st.integers(2, 3))
    def drop(self, part: int) -> None:
        """Take out a part of what waits: never what runs."""

        expected = {
            item
            for items in (self.keyless, *self.waiting.values())
            for item in items
            if item.number % part == 0 and item.ends is None
        }
        for item in expected:
            (self.keyless if item.key is None else self.waiting[item.key]).remove(item)

        async def work() -> list[Item]:
            return self.lanes.drop(lambda item: item.number % part != 0)

        dropped = self.now(work())
        assert set(dropped) == expected
        assert len(dropped) == len(expected)
        self.gates = [(gate, item) for gate, item in self.gates if item not in expected]

    @rule()
    def hold_or_free(self) -> None:
        async def work() -> None:
            self.held = not self.held
            (self.lanes.hold if self.held else self.lanes.free)()

        self.now(work())

    @invariant()
    def all_that_can_run_does(self) -> None:
        assert not self.wrong
        ready = [item for item in self.keyless if not item.rests]
        ready += [items[0] for items in self.waiting.values() if items and not items[0].rests]
        assert set(self.running) <= set(ready)
        if not self.held:
            assert len(self.running) == min(CONCURRENCY, len(ready)), f"{len(ready)} could run"
        assert self.lanes.running == len(self.running)

    def teardown(self) -> None:
        self.now(self.lanes.close())
        assert not self.running
        self.loop.close()


TestLanes = LanesMachine.TestCase
TestLanes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

"""Lanes: messages with one key run one after another, all others side by side, up to a limit.

Long-lived workers, no task per item. Each item runs in a fresh copy of the context variables that were there at the
start: a worker calls it, and steps its coroutine by hand, inside that copy, which costs a tenth of a task. A worker
that an item keeps waiting wakes the next one, so that instant handlers need one worker and slow ones get them all. An
item that asks to run again later keeps its lane, and no worker.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Hashable, Iterator, Sequence
from contextvars import Context, copy_context
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")
_Entry: TypeAlias = tuple[Hashable | None, T]
"""An item, with its key before it."""

_TURNS = 64
"""Items that one worker runs before others of the loop have a turn."""


class Gate:
    """What an item may wait for before it runs again, with its lane behind it."""

    __slots__ = ("_opened", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Callable[[], object]] = []
        self._opened = False

    def then(self, function: Callable[[], object]) -> None:
        """Call it when the gate opens; at once, if it is open."""
        if self._opened:
            function()
        else:
            self._waiting.append(function)

    def open(self) -> None:
        """Once and for good."""
        self._opened = True
        waiting, self._waiting = self._waiting, []
        for function in waiting:
            function()


class Lanes(Generic[T]):
    """Workers over lanes. Each takes one item of the next lane that is ready; then the lane goes to the back."""

    def __init__(
        self,
        run: Callable[[T], Coroutine[Any, Any, float | Gate | None] | None],
        concurrency: int,
        later: Callable[[float, Callable[[], object]], object],
    ) -> None:
        """`run` is done with the item when it returns None; or it gives a coroutine, which returns None when the item
        is done with, or the seconds (or the gate) after which it is to run again, before any other of its key. `later`
        calls a function after so many seconds."""
        self._run = run
        self._concurrency = concurrency
        self._later = later
        self._parked: dict[int, T] = {}
        self._asleep: dict[Hashable | None, _Entry[T]] = {}
        """The first items of the keys that wait."""
        self._context = copy_context()
        self._lanes: dict[Hashable | None, deque[_Entry[T]] | None] = {}
        """What waits behind the first item of each key that has one; None: nothing yet, as nearly always."""
        self._ready: deque[_Entry[T]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._awake = 0
        self._closed = False
        self._still = False
        self.running = 0
        """Items that have begun and wait for something."""
        self.on_quiet: Callable[[], object] | None = None
        """Called when the last item that ran has ended, or asked to run again later."""

    def add(self, key: Hashable | None, item: T) -> None:
        """Run this item: after all earlier ones of its key; None: as soon as a worker is free."""
        if key in (lanes := self._lanes):
            behind = lanes[key]
            if behind is None:
                lanes[key] = deque(((key, item),))
            else:
                behind.append((key, item))
            return
        if key is not None:
            lanes[key] = None
        self._ready.append((key, item))
        if not self._awake:
            self._wake()

    @property
    def asleep(self) -> int:
        """Items that are to run again later, and those of their keys behind them."""
        return len(self._parked) + sum(1 + len(self._lanes[key] or ()) for key in self._asleep)

    def sleepers(self) -> Iterator[T]:
        """These items themselves."""
        yield from self._parked.values()
        for key, (_, first) in self._asleep.items():
            yield first
            yield from (item for _, item in self._lanes[key] or ())

    @property
    def idle(self) -> float:
        """The part of the workers, 0 to 1, for which there is nothing to run now."""
        if self._ready and not self._still:
            return 0.0
        return 1 - self.running / self._concurrency

    def crowding(self, more: int) -> tuple[Hashable, int] | None:
        """The key that has more items than that here, if one has, and how many."""
        if len(self._lanes) > more:  # each has one at least: too many keys for one of them to crowd
            return None
        most = max(map(len, filter(None, self._lanes.values())), default=0)
        if not self._lanes or 1 + most <= more:
            return None
        return next(key for key, behind in self._lanes.items() if len(behind or ()) == most), 1 + most

    def drop(self, keep: Callable[[T], bool]) -> list[T]:
        """Take out all waiting items that are not to be kept, and give them back."""
        dropped: list[T] = []
        for _ in range(len(self._ready)):
            first = self._thin(self._ready.popleft(), keep, dropped)
            if first is not None:
                self._ready.append(first)
        for key, slept in list(self._asleep.items()):
            first = self._thin(slept, keep, dropped)
            if first is not slept:  # what it slept for was taken out: those behind it need not wait
                del self._asleep[key]
                if first is not None:
                    self._go_on(first)
        waiting = {*self._asleep, *(key for key, _ in self._ready)}
        for key, behind in self._lanes.items():
            if behind and key not in waiting:  # its first item runs
                kept = [entry for entry in behind if keep(entry[1])]
                dropped += [item for _, item in behind if not keep(item)]
                behind.clear()
                behind.extend(kept)
        for place, item in list(self._parked.items()):
            if not keep(item):
                dropped.append(self._parked.pop(place))
        return dropped

    def _thin(self, first: _Entry[T], keep: Callable[[T], bool], dropped: list[T]) -> _Entry[T] | None:
        """Take out of a lane whose first item does not run. What is first then; None: nothing is left of it."""
        key = first[0]
        kept: deque[_Entry[T]] = deque()
        for entry in (first, *(self._lanes.get(key) or ())):
            if keep(entry[1]):
                kept.append(entry)
            else:
                dropped.append(entry[1])
        left = kept.popleft() if kept else None
        if left is None:
            self._lanes.pop(key, None)
        elif key is not None:
            self._lanes[key] = kept or None
        return left

    def hold(self) -> None:
        """Begin nothing until `free`; what runs goes on."""
        self._still = True

    def free(self) -> None:
        """Go on after `hold`."""
        self._still = False
        if self._ready and not self._awake:
            self._wake()

    async def close(self) -> None:
        """End the workers: cancels what runs, and waits until it has ended."""
        workers = self.cancel()
        if workers:
            await asyncio.wait(workers)

    def cancel(self) -> Sequence[asyncio.Task[None]]:
        """Cancel what runs. The workers that end."""
        self._closed = True
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        return workers

    def _wake(self) -> None:
        """One more worker, if the limit allows."""
        if self._closed or self._still:
            return
        while self._idle:
            sleeper = self._idle.pop()
            if not sleeper.done():
                self._awake += 1
                sleeper.set_result(None)
                return
        if len(self._workers) < self._concurrency:
            self._awake += 1
            worker = asyncio.get_running_loop().create_task(self._work(), name="eventkit lane worker")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        ready, lanes, run, base = self._ready, self._lanes, self._run, self._context
        worker = asyncio.current_task()
        assert worker is not None
        turns = 0
        while not self._closed:
            if not ready or self._still:
                await self._sleep()
                continue
            entry = ready.popleft()
            key, item = entry
            context = base.copy()
            wait: float | Gate | None = None
            coroutine = context.run(run, item)
            if coroutine is not None:
                try:
                    waits_for = context.run(coroutine.send, None)
                except StopIteration as end:
                    wait = end.value
                else:
                    wait = await self._rest(coroutine, context, waits_for)
            if key is None:
                if wait is not None:
                    self._park(item, wait)
            elif wait is not None:
                self._asleep[key] = entry
                self._when(wait, functools.partial(self._ready_again, entry))
            elif behind := lanes[key]:
                ready.append(behind.popleft())
            else:
                del lanes[key]
            turns += 1
            # the second: the item cancelled its own task, and ended before that took effect
            if turns >= _TURNS or (worker.cancelling() and not self._closed):
                turns = 0
                await self._breathe()

    async def _sleep(self) -> None:
        """Until there is work. A cancellation that is not `close` belongs to an item that has ended."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awake -= 1
        self._idle.append(sleeper)
        try:
            await sleeper
        except asyncio.CancelledError:
            if self._closed:
                raise
            take_back_cancellation()
            if sleeper.cancelled():  # else it was woken at the same moment, and is counted already
                self._awake += 1

    async def _breathe(self) -> None:
        """Let others of the loop have a turn; a cancellation that an item left behind ends here."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._closed:
                raise
            take_back_cancellation()

    def _when(self, wait: float | Gate, function: Callable[[], object]) -> None:
        if isinstance(wait, Gate):
            wait.then(function)
        else:
            self._later(wait, function)

    def _park(self, item: T, wait: float | Gate) -> None:
        """An item without a key, for later."""
        place = id(item)
        self._parked[place] = item

        def again() -> None:
            if place in self._parked:
                self.add(None, self._parked.pop(place))

        self._when(wait, again)

    def _ready_again(self, first: _Entry[T]) -> None:
        key = first[0]
        if self._asleep.get(key) is first:  # else what it slept for was taken out meanwhile
            del self._asleep[key]
            self._go_on(first)

    def _go_on(self, first: _Entry[T]) -> None:
        """With this one of its lane."""
        self._ready.append(first)
        if not self._awake:
            self._wake()

    async def _rest(
        self, coroutine: Coroutine[Any, Any, float | Gate | None], context: Context, waits_for: Any
    ) -> float | Gate | None:
        """An item that did not end at its first step: others go on meanwhile."""
        self._awake -= 1
        self.running += 1
        if self._ready and not self._awake:
            self._wake()
        try:
            return await _drive(coroutine, context, waits_for)
        finally:
            self._awake += 1
            self.running -= 1
            if not self.running and self.on_quiet is not None:
                self.on_quiet()


def take_back_cancellation() -> None:
    """An item was cancelled, by itself or by what it awaited: the worker it ran in goes on."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


@types.coroutine
def go_on(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Await a coroutine that was begun by hand, and waits for this."""
    while True:
        try:
            yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 whatever is thrown in belongs to the coroutine
            try:
                waits_for = coroutine.throw(error)
            except StopIteration as end:
                return end.value
        else:
            return (yield from coroutine)


@types.coroutine
def _drive(
    coroutine: Coroutine[Any, Any, float | Gate | None], context: Context, waits_for: Any
) -> Generator[Any, Any, float | Gate | None]:
    """Drive a coroutine on after its first step, each step inside its own context."""
    while True:
        step: Callable[[Any], Any]
        try:
            argument = yield waits_for
            step = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 whatever is thrown in belongs to the coroutine
            argument = error
            step = coroutine.throw
        try:
            waits_for = context.run(step, argument)
        except StopIteration as end:
            result: float | Gate | None = end.value
            return result

"""Something keeps the event loop from running: the log says what, while it lasts, and how to mend it."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import eventkit
from eventkit import CallNext, Delivery, Event, Service
from eventkit.standstill import Standstill, watched

FOREVER = 60.0
"""Seconds after which a test that hangs ends, red."""
LOOK = 0.6
"""Seconds between two looks, of which a tenth is waited for the answer."""


class Placed(Event, topic="standstill.orders"):
    number: int = 1


class UntilSaid(logging.Handler):
    """What blocks the loop here goes on as soon as the log has said so."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = threading.Event()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.said.set()

    def block(self) -> None:
        assert self.said.wait(FOREVER), "nothing was said"


@pytest.fixture
def until() -> Iterator[UntilSaid]:
    handler = UntilSaid()
    log = logging.getLogger("eventkit")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


async def handled(service: Service, done: asyncio.Event) -> None:
    async with eventkit.connect("memory") as bus, bus.run(service):
        await bus.publish(Placed())
        await asyncio.wait_for(done.wait(), FOREVER)


def test_a_handler_that_blocks_is_named_with_its_line_and_the_mend(until: UntilSaid) -> None:
    service, done = Service("shipping"), asyncio.Event()

    @service.handler
    async def book(event: Placed) -> None:
        until.block()
        done.set()

    asyncio.run(handled(service, done))
    said = until.texts[0]
    assert said.startswith("shipping: the event loop is kept from running (")
    assert f" s) in the handler {book.__qualname__} (Placed), at {__file__}:" in said
    assert "(until.block())" in said, "the line itself"
    assert "`def` instead of `async def`" in said
    assert "asyncio.to_thread" in said


def test_what_is_no_handler_is_named_by_its_place(until: UntilSaid) -> None:
    done = asyncio.Event()

    async def slow(delivery: Delivery, call_next: CallNext) -> object:
        until.block()
        done.set()
        return await call_next(delivery)

    service = Service("shipping", middleware=[slow])

    @service.handler
    async def book(event: Placed) -> None: ...

    asyncio.run(handled(service, done))
    assert f" s) in UntilSaid.block, at {__file__}:" in until.texts[0]


class Loop:
    """One that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], object]] = []
        self.closed = False

    def call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.asked.append(function)

    def answer(self) -> None:
        while self.asked:
            self.asked.pop()()


class Watch:
    """A standstill of this thread, with a time of its own."""

    def __init__(self, *services: Service) -> None:
        self.loop = Loop()
        self.now = self.busy = 100.0
        loop: Any = self.loop
        self.standstill = Standstill(loop, threading.get_ident(), lambda: self.now, lambda: self.busy)
        self.standstill.join(services or [Service("shipping")])

    def look(self, *, answers: bool, passed: float = LOOK, busy: float = 0.0) -> None:
        self.standstill.ask()
        if answers:
            self.loop.answer()
        self.now += passed
        self.busy += busy
        self.standstill.look()


def test_a_loop_that_answers_is_left_alone(until: UntilSaid) -> None:
    watch = Watch()
    for at in range(500):
        watch.look(answers=at % 5 != 0)  # late now and then, as when rubbish is collected
        watch.loop.answer()
    assert until.texts == []


def test_one_that_is_late_again_and_again_is_told_of_once_a_minute(until: UntilSaid) -> None:
    watch = Watch()
    for at in range(100):
        watch.look(answers=at % 2 == 0)
        watch.loop.answer()
    assert len(until.texts) == 1
    assert "(3 of 6 times in the last seconds, now for 0.6 s)" in until.texts[0]
    watch.now += 60.0 - 100 * LOOK
    for at in range(10):
        watch.look(answers=at % 2 == 0)
        watch.loop.answer()
    assert len(until.texts) == 2


def test_a_process_that_was_suspended_is_not_a_loop_that_was_kept(until: UntilSaid) -> None:
    watch = Watch()
    for _ in range(100):
        watch.look(answers=False, passed=600.0)
    assert until.texts == []


def test_one_that_worked_all_the_while_is(until: UntilSaid) -> None:
    """A call into C that lets no other thread run: the one that looks comes to it only afterwards."""
    watch = Watch()
    watch.look(answers=False, passed=7.0, busy=7.0)
    assert "now for 7.0 s)" in until.texts[0]


def test_a_handler_is_found_behind_a_decorator_and_in_an_object(until: UntilSaid) -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        async def inner(event: Placed) -> None:
            await function(event)

        return inner

    class Booking:
        async def __call__(self, event: Placed) -> None:
            block()

    @logged
    async def book(event: Placed) -> None:
        block()

    def block() -> None:
        for _ in range(3):
            watch.look(answers=False)

    calls: list[Callable[[Placed], Awaitable[None]]] = [book, Booking()]
    for number, call in enumerate(calls):
        service = Service(f"shop{number}")
        service.handler(call)
        watch = Watch(service)
        asyncio.run(_of(call))
        assert until.texts[number].startswith(f"shop{number}: "), until.texts
        assert " in the handler " in until.texts[number]
        assert "(block())" in until.texts[number]


async def _of(call: Callable[[Placed], Awaitable[None]]) -> None:
    await call(Placed())


def test_nothing_is_left_when_all_services_have_stopped() -> None:
    async def two() -> None:
        with watched([Service("one")]):
            with watched([Service("two")]):
                assert len(_threads()) == before + 1, "one thread looks after a loop"
            assert len(_threads()) == before + 1
        for thread in set(_threads()) - already:
            thread.join(FOREVER)

    already = set(_threads())
    before = len(already)
    asyncio.run(two())
    assert set(_threads()) <= already


def test_a_loop_that_was_closed_is_not_watched_any_more() -> None:
    watch = Watch()
    watch.loop.closed = True
    watch.standstill.ask()
    assert watch.standstill.over


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "eventkit standstill"]

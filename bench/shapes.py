"""Services of many shapes: so many handlers, topics and keys, for what must cost the same whatever they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from bench.messages import Line, content
from eventkit import Event, Service, Topic

_MADE = iter(range(1_000_000))


def events_of(handlers: int, topics: int) -> Sequence[type[Event]]:
    """Classes of events, spread over topics; made anew each time, since names on a topic are taken once."""
    mark = next(_MADE)
    homes = [Topic(f"shape{mark}.t{number}") for number in range(topics)]

    def make(number: int) -> type[Event]:
        fields = {"order_id": str, "customer": str, "lines": list[Line]}
        namespace = {"__annotations__": fields, "__module__": __name__}
        return type(f"Shape{mark}n{number}", (Event,), namespace, topic=homes[number % topics], key="order_id")  # type: ignore[call-overload,no-any-return]

    return [make(number) for number in range(max(handlers, topics))]


def service_of(classes: Sequence[type[Event]], handled: Callable[[], None]) -> Service:
    """One handler for each class."""
    service = Service("bench", concurrency=100)
    for cls in classes:

        async def handle(event: Event) -> None:
            handled()

        handle.__annotations__["event"] = cls
        service.handler(handle)
    return service


def messages_of(classes: Sequence[type[Event]], count: int, keys: int) -> list[Event]:
    return [
        classes[number % len(classes)].model_validate({**content(number), "order_id": f"order-{number % keys}"})
        for number in range(count)
    ]


class Countdown:
    """Seconds of the clock and of this process's CPU from the first message to the last."""

    def __init__(self, count: int) -> None:
        self.count = self._left = count
        self.done = asyncio.Event()
        self.microseconds = 0.0
        """Of CPU, a message."""
        self.rate = 0.0
        """Messages a second."""

    def __call__(self) -> None:
        if self._left == self.count:
            self._began, self._busy = time.perf_counter(), time.process_time()
        self._left -= 1
        if not self._left:
            spent = time.process_time() - self._busy
            self.microseconds = spent / (self.count - 1) * 1e6
            self.rate = (self.count - 1) / (time.perf_counter() - self._began)
            self.done.set()

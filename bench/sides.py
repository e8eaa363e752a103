"""What every side can do, so that one loop measures them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Side(Protocol):
    """One way to use one broker. Everything is acknowledged, everything is validated."""

    name: str

    async def open(self, url: str, topic: str) -> None:
        """Connect, and make the topic and one group that begins now."""
        ...

    async def close(self) -> None: ...

    def make(self, count: int) -> Sequence[Any]:
        """Messages as this side's users have them before they publish."""
        ...

    async def publish_one(self, message: Any) -> None: ...

    async def publish_many(self, messages: Sequence[Any]) -> None: ...

    async def consume(self, count: int, seen: Callable[[Any], None]) -> None:
        """Read until `count` are handled; `seen` is called with each validated message."""
        ...


class Requesting(Protocol):
    """A side that can ask itself."""

    def serving(self) -> AbstractAsyncContextManager[object]:
        """Meanwhile requests are answered."""
        ...

    async def request(self, number: int) -> None:
        """Ask, and compare the answer."""
        ...


class Stopwatch:
    """From the first message to the last: start-up and the wait for a group are not counted."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen = 0
        self.first = 0.0
        self.last = 0.0

    def __call__(self, _: object) -> None:
        if not self.seen:
            self.first = time.perf_counter()
        self.seen += 1
        if self.seen == self.count:
            self.last = time.perf_counter()

    @property
    def rate(self) -> float:
        """Messages a second."""
        return (self.count - 1) / (self.last - self.first)

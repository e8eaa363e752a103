"""Standstill: that something keeps the event loop from running, said while it lasts, and where.

Twice a second a thread asks the loop to answer. Where it does not in time, again and again, the thread looks what the
loop's own is at. Handlers pay nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import linecache
import logging
import math
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import NamedTuple

from eventkit.declaring import Handler
from eventkit.service import Service

log = logging.getLogger("eventkit")

_EACH = 0.5
"""Seconds between two questions."""
_PATIENCE = 0.1
"""Seconds in which the loop is to answer one."""
_LOOKS, _LATE = 10, 3
"""Of so many questions, so many were not answered in time: then it is said."""
_SAY_AGAIN = 60.0
_LIBRARY = sysconfig.get_path("stdlib")


class _Place(NamedTuple):
    """A handler of a service, which runs on the loop."""

    service: str
    handler: Handler

    def __str__(self) -> str:
        types = ", ".join(accepted.__name__ for accepted in self.handler.parameters.accepts)
        return f"the handler {self.handler.name} ({types})"


class Standstill:
    """Of one loop: the services that run on it, and whether it answers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread: int,
        now: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.process_time,
    ) -> None:
        """`thread` is the loop's. `now` gives seconds, and `busy` those in which this process has worked."""
        self._loop = loop
        self._thread = thread
        self._now = now
        self._busy = busy
        self._asked = self._looked = now()
        self._worked = busy()
        self._said = -math.inf
        self._late: deque[bool] = deque(maxlen=_LOOKS)
        self._services: list[Service] = []
        self._answered = threading.Event()
        self._answered.set()
        self._ended = threading.Event()

    def join(self, services: Sequence[Service]) -> None:
        self._services += services

    def leave(self, services: Sequence[Service]) -> None:
        """Nothing is watched any more once all have left."""
        self._services = [service for service in self._services if service not in services]
        if not self._services:
            self._ended.set()

    @property
    def over(self) -> bool:
        """Have all left?"""
        return self._ended.is_set()

    def keep_looking(self) -> None:
        """Until all have left."""
        while not self._ended.wait(_EACH):
            self.ask()
            self._answered.wait(_PATIENCE)
            self.look()

    def ask(self) -> None:
        """The loop is to answer, unless it has not answered yet."""
        if not self._answered.is_set():
            return
        self._asked = self._now()
        self._answered.clear()
        try:
            self._loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:  # it is closed
            self._ended.set()

    def look(self) -> None:
        """Say what keeps the loop, if something does: once a minute at most."""
        now, worked = self._now(), self._busy()
        passed, busy = now - self._looked, worked - self._worked
        self._looked, self._worked = now, worked
        if passed > 2 * _EACH and busy < passed / 2:  # this thread was kept, too: the process was, and not by itself
            self._late.clear()
            return
        late = not self._answered.is_set()
        self._late.extend([late] * max(1, int(passed / _EACH)))
        if late and self._late.count(True) >= _LATE and now >= self._said + _SAY_AGAIN:
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001 this is what it is for
            if frame is not None and not self._answered.is_set():  # still, so that this is the one
                self._said = now
                self._say(frame, now - self._asked)

    def _say(self, innermost: FrameType, seconds: float) -> None:
        place, frame = self._where(innermost)
        number = frame.f_lineno or 0  # there may be none, in between two of them
        line = linecache.getline(frame.f_code.co_filename, number).strip()
        log.warning(
            "%s: the event loop is kept from running (%d of %d times in the last seconds, now for %.1f s) in %s, at "
            "%s:%d%s. Nothing else of this process runs meanwhile, and leases of messages are not renewed. A handler "
            "that is `def` instead of `async def` runs in a thread; in an `async def`, await asyncio.to_thread(...) or "
            "an asynchronous client",
            place.service if place else ", ".join(service.name for service in self._services),
            *(self._late.count(True), len(self._late), seconds, place or frame.f_code.co_qualname),
            *(frame.f_code.co_filename, number, line and f" ({line})"),
        )

    def _where(self, innermost: FrameType) -> tuple[_Place | None, FrameType]:
        """The handler that runs, and its frame; else the innermost frame outside Python's own library."""
        handlers = {
            code: _Place(service.name, handler)
            for service in list(self._services)
            for handler in service.handlers
            for code in _codes(handler.function)
        }
        outside: FrameType | None = None
        frame: FrameType | None = innermost
        while frame is not None:
            if (place := handlers.get(frame.f_code)) is not None:
                return place, frame
            name = frame.f_code.co_filename
            if outside is None and ("site-packages" in name or not name.startswith((_LIBRARY, "<frozen "))):
                outside = frame
            frame = frame.f_back
        return None, outside or innermost


def _codes(function: Callable[..., object]) -> Iterator[CodeType]:
    """Of a function, and of those that it wraps; of the method that makes an object callable."""
    while True:
        plain = function if inspect.isroutine(function) else type(function).__call__
        code = getattr(plain, "__code__", None)
        if code is not None:
            yield code
        inner = getattr(function, "__wrapped__", None)
        if inner is None:
            return
        function = inner


_of: dict[asyncio.AbstractEventLoop, Standstill] = {}


@contextmanager
def watched(services: Sequence[Service]) -> Iterator[None]:
    """These run on the running loop: if something keeps it, the log says so. One thread looks after each loop."""
    loop = asyncio.get_running_loop()
    found = _of.get(loop)
    if found is None:
        found = _of[loop] = Standstill(loop, threading.get_ident())
        threading.Thread(target=found.keep_looking, name="eventkit standstill", daemon=True).start()
    found.join(services)
    try:
        yield
    finally:
        found.leave(services)
        if found.over:
            _of.pop(loop, None)  # over also where its loop was closed before all had left

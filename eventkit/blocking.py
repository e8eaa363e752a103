"""The bus for code without an event loop: Django, Flask, scripts.

```python
with eventkit.blocking.connect() as bus:
    bus.publish(event)
```
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pydantic import SecretStr

from eventkit import bus as asynchronous
from eventkit import connecting
from eventkit import dead_letters as letters
from eventkit.adapter import Adapter, Provision
from eventkit.copies import Reason
from eventkit.errors import Closed
from eventkit.instruments import Instrument
from eventkit.letter import DeadLetter, MessageClass
from eventkit.messages import Command, Event
from eventkit.wire import JSON_SERIALIZER, Serializer

R = TypeVar("R")
T = TypeVar("T")

_END = 5.0
"""Seconds that the end waits for the thread."""


def connect(
    broker: str | None = None,
    url: str | SecretStr | None = None,
    *,
    service: str | None = None,
    namespace: str | None = None,
    provision: Provision | str | None = None,
    serializer: Serializer = JSON_SERIALIZER,
    adapter: Adapter | None = None,
    instruments: Sequence[Instrument] | None = None,
) -> Bus:
    """As `eventkit.connect`, for `with` instead of `async with`."""
    return Bus(
        connecting.connect(
            broker,
            url,
            service=service,
            namespace=namespace,
            provision=provision,
            serializer=serializer,
            adapter=adapter,
            instruments=instruments,
        )
    )


class Bus:
    """A bus in an event loop of its own, in a daemon thread. Its methods may be called from any thread."""

    def __init__(self, bus: asynchronous.Bus) -> None:
        self._bus = bus
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._ending = threading.Lock()
        """Nothing is given to the loop once it is told to end."""

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise Closed("this bus is open already: one `with` at a time")
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="eventkit blocking bus", daemon=True)
        self._thread.start()
        try:
            self._wait(self._bus.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._wait(self._bus.__aexit__(kind, error, trace))
        finally:
            self._end()

    def publish(
        self,
        event: Event,
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """As `eventkit.Bus.publish`."""
        self._wait(self._bus.publish(event, id=id, correlation_id=correlation_id, headers=headers, delay=delay))

    def publish_many(self, events: Iterable[Event], *, headers: Mapping[str, str] | None = None) -> None:
        """As `eventkit.Bus.publish_many`."""
        self._wait(self._bus.publish_many(list(events), headers=headers))

    def send(
        self,
        command: Command[Any],
        *,
        id: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """As `eventkit.Bus.send`."""
        self._wait(self._bus.send(command, id=id, correlation_id=correlation_id, headers=headers, delay=delay))

    def request(
        self,
        command: Command[R],
        *,
        timeout: timedelta = timedelta(seconds=30),
        correlation_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> R:
        """As `eventkit.Bus.request`."""
        return self._wait(self._bus.request(command, timeout=timeout, correlation_id=correlation_id, headers=headers))

    def dead_letters(self, group: str) -> DeadLetters:
        """As `eventkit.Bus.dead_letters`."""
        return DeadLetters(self._bus.dead_letters(group), self._wait)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._process not in (0, os.getpid()):
            work.close()
            raise Closed(
                "this bus was opened before this process was forked, and its thread is not here: open one in each "
                "process, such as in gunicorn's post_fork, or Celery's worker_process_init"
            )
        with self._ending:
            if self._loop is None:
                work.close()
                raise Closed("this bus is not open: use it inside `with eventkit.blocking.connect() as bus`")
            asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return asked.result()
        except CancelledError:
            raise Closed("this bus was closed before it had an answer") from None

    def _end(self) -> None:
        with self._ending:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None and self._process == os.getpid():
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(_END)


class _Wait(Protocol):
    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


class DeadLetters:
    """The dead letters of one group, as `eventkit.DeadLetters`. Made by `Bus.dead_letters`."""

    def __init__(self, found: letters.DeadLetters, wait: _Wait) -> None:
        self._found = found
        self._wait = wait

    @property
    def group(self) -> str:
        """Whose dead letters these are."""
        return self._found.group

    def list(
        self,
        *ids: str,
        type: MessageClass | str | None = None,
        reason: Reason | str | None = None,
        since: datetime | timedelta | None = None,
    ) -> Iterator[DeadLetter]:
        """As `eventkit.DeadLetters.list`."""
        found = self._found.list(*ids, type=type, reason=reason, since=since)
        try:
            while (letter := self._wait(_next(found))) is not None:
                yield letter
        finally:
            self._wait(_close(found))

    def show(self, id: str) -> DeadLetter:
        """As `eventkit.DeadLetters.show`."""
        return self._wait(self._found.show(id))

    def retry(
        self,
        *ids: str,
        type: MessageClass | str | None = None,
        reason: Reason | str | None = None,
        since: datetime | timedelta | None = None,
        all: bool = False,
        force: bool = False,
    ) -> int:
        """As `eventkit.DeadLetters.retry`."""
        return self._wait(self._found.retry(*ids, type=type, reason=reason, since=since, all=all, force=force))

    def discard(
        self,
        *ids: str,
        type: MessageClass | str | None = None,
        reason: Reason | str | None = None,
        since: datetime | timedelta | None = None,
        all: bool = False,
    ) -> int:
        """As `eventkit.DeadLetters.discard`."""
        return self._wait(self._found.discard(*ids, type=type, reason=reason, since=since, all=all))


async def _next(found: AsyncGenerator[DeadLetter, None]) -> DeadLetter | None:
    return await anext(found, None)


async def _close(found: AsyncGenerator[DeadLetter, None]) -> None:
    await found.aclose()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)  # others may still wait for these
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_END / 2))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()

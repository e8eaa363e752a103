"""Daemon threads for plain functions: one that hangs does not keep the process from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeAlias

_Job: TypeAlias = tuple[
    asyncio.AbstractEventLoop, "asyncio.Future[object]", Context, Callable[..., object], tuple[Any, ...], dict[str, Any]
]


class Threads:
    """Runs plain functions, at most `most` at once, each in a copy of the caller's context variables.

    A function that runs cannot be cancelled: when its caller is, it goes on to its end and its result is dropped. One
    that has not begun by then never does.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._count = 0
        self._idle = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> object:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        with self._lock:
            grow = self._idle <= 0 and self._count < self._most
            if grow:
                self._count += 1
            else:
                self._idle -= 1
        self._jobs.put((loop, future, copy_context(), function, args, kwargs))
        if grow:
            thread = threading.Thread(target=self._work, name=f"{self._name} handler {self._count}", daemon=True)
            try:
                thread.start()
            except BaseException:  # as where the process may have no more of them: what is asked for never begins
                future.cancel()
                with self._lock:
                    self._count -= 1
                    self._idle -= 1
                raise
        return await future

    def stop(self) -> None:
        """End the threads that are idle; those that run end after their function."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, context, function, args, kwargs = job
            if future.done():  # its caller gave up before it began
                with self._lock:
                    self._idle += 1
                continue
            result: object = None
            failure: BaseException | None = None
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as error:  # noqa: BLE001 it belongs to whoever awaits the result
                failure = error
            with self._lock:
                self._idle += 1
            try:
                loop.call_soon_threadsafe(_finish, future, result, failure)
            except RuntimeError:
                return  # the loop has ended meanwhile: nobody awaits it


def _finish(future: asyncio.Future[object], result: object, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    elif isinstance(failure, StopIteration):
        future.set_exception(RuntimeError("the handler raised StopIteration"))
    else:
        future.set_exception(failure)

"""One group's queue, delivered in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from eventkit.adapter import Delivery, Done, Message, Move, Receive, Settlement, new
from eventkit.memory.store import Queue, Stored

_BATCH = 256


class MemoryConsumer:
    """Delivers one group's queue, in batches, while there is room."""

    def __init__(
        self,
        queue: Queue,
        receive: Receive,
        in_flight: int,
        put: Callable[[Message], Exception | None],
        forget: Callable[[MemoryConsumer], None],
    ) -> None:
        self.held: dict[int, Stored] = {}
        self.keys: dict[str, int] = {}
        """Of what is held, and how many of each."""
        self.error: Exception | None = None
        self._queue = queue
        self._receive = receive
        self._in_flight = in_flight
        self._put = put
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._work = asyncio.Event()
        self._called = False
        self._paused = False
        self._stopped = False
        self._task = self._loop.create_task(self._deliver(), name="eventkit memory consumer")
        queue.join(self)

    def wake(self) -> None:
        """There may be something to deliver. Called from any thread's loop."""
        if self._called or self._work.is_set():
            return
        if threading.get_ident() == self._thread:
            self._work.set()
        else:
            self._called = True
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._called = False
        self._work.set()

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        stored = self.held.get(id(delivery.token))
        if stored is None or stored is not delivery.token or stored.deliveries != delivery.deliveries:
            return  # not held, or an arrival before this one
        if isinstance(how, Move):
            error = self._put(how.copy)
            if error is not None:
                self._receive.unsettled(delivery, how, error)
                return
        del self.held[id(stored)]
        if not isinstance(how, Move | Done):
            self._queue.put_back(stored)
        self._let_go(stored.message.key)
        self.wake()

    def _let_go(self, key: str | None) -> None:
        """One of a key is no longer held: after the last, others may have the next."""
        if key is None:
            return
        still = self.keys[key] - 1
        if still:
            self.keys[key] = still
            return
        del self.keys[key]
        if len(self._queue.consumers) > 1:
            self._queue.wake()

    async def flush(self, timeout: float, /) -> None:
        """Settlements are made at once."""

    def hold(self, at_most: int, /) -> None:
        self._in_flight = at_most
        self.wake()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.wake()

    async def stop(self, timeout: float, /) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._task.cancel()
        await asyncio.wait([self._task])
        for stored in self.held.values():
            self._queue.put_back(stored)
        self.held.clear()
        self._queue.leave(self)
        self._forget(self)

    async def _deliver(self) -> None:
        while True:
            self._work.clear()  # before it looks: what comes, or is let go, from now on sets it again
            room = 0 if self._paused else self._in_flight - len(self.held)
            taken = self._queue.take(self, min(room, _BATCH))
            if not taken:
                await self._work.wait()
                continue
            batch = []
            for stored in taken:
                stored.deliveries += 1
                self.held[id(stored)] = stored
                batch.append(new(Delivery, (stored.message, stored.position, stored.deliveries, stored)))
            await self._receive.deliveries(batch)
            await asyncio.sleep(0)

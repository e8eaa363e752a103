"""A running subscription of one group: takes what is free, hands it over, renews its leases, settles."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from eventkit.adapter import DONE, Address, Delivery, Move, Receive, Settlement
from eventkit.errors import EventkitError
from examples.sqlite_adapter import storage
from examples.sqlite_adapter.storage import File

_BATCH = 256
"""Messages taken in one transaction at most."""
_AGAIN = 0.2
"""Seconds between attempts while the file cannot be read."""
_GAP = 0.005
"""Seconds without a transaction of ours, after each: else one busy consumer would never let the others in."""
_FAILURES = (sqlite3.Error, EventkitError)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a consumer is made for."""

    group: str
    channels: Mapping[str, Address]
    """What its group reads, by the names in the file."""
    named: Callable[[Address], str]
    """The name in the file of where a copy goes."""
    in_flight: int
    lease: float
    limit: int
    """The largest message in bytes."""
    passing: str | None = None
    """The one channel of a group that ends with this consumer. None: the group stays."""


class SqliteConsumer:
    """Its `holder` stands in the file beside each message that it has delivered and not settled."""

    def __init__(
        self, reading: Reading, file: File, receive: Receive, client: str, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when there may be something new for any consumer of the adapter."""
        self.error: Exception | None = None
        self._reading = reading
        self._at_most = reading.in_flight
        self._file = file
        self._receive = receive
        self._holder = f"{client} {uuid.uuid4().hex}"
        self._changed = changed
        self._held: set[int] = set()
        self._asked: list[tuple[Delivery, Settlement]] = []
        self._settling: asyncio.Task[Exception | None] | None = None
        self._paused = self.stopped = False
        self._wake = asyncio.Event()
        self.wake = self._wake.set
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._renew())]

    def hold(self, at_most: int, /) -> None:
        self._at_most = at_most
        self.wake()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.wake()

    def settle(self, delivery: Delivery, how: Settlement, /) -> None:
        if self.stopped:
            return  # it was given back
        self._asked.append((delivery, how))
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())

    async def flush(self, timeout: float, /) -> None:
        settling = self._settling
        if settling is None:
            return
        if not (await asyncio.wait([settling], timeout=timeout))[0]:
            raise TimeoutError(f"the settlements of {self._reading.group} were not written within {timeout:g} s")
        if (error := settling.result()) is not None:
            raise error

    async def stop(self, timeout: float, /) -> None:
        if self.stopped:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        with contextlib.suppress(TimeoutError, *_FAILURES):  # then its leases end by themselves
            async with asyncio.timeout(timeout):
                with contextlib.suppress(*_FAILURES):
                    await self.flush(timeout)
                await self._file.change(storage.give_back, self._reading.group, self._holder)
                if self._reading.passing is not None:
                    await self._file.change(storage.close_passing, self._reading.group)
        self.stopped = True
        self._changed()

    async def _read(self) -> None:
        group, lease = self._reading.group, self._reading.lease
        while True:
            self._wake.clear()
            room = min(self._at_most - len(self._held), _BATCH)
            if self._paused or room <= 0:
                await self._wake.wait()
                continue
            try:
                rows, next_free = await self._file.change(storage.take, group, self._holder, room, lease)
                self.error = None
            except _FAILURES as error:
                self.error = error
                await asyncio.sleep(_AGAIN)
                continue
            if rows:
                self._held.update(row[0] for row in rows)
                await self._receive.deliveries([self._delivery(row) for row in rows])
                await asyncio.sleep(_GAP)
                continue
            wait = None if next_free is None else max(next_free - time.time(), 0.001)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _delivery(self, row: tuple[int, str, *tuple[object, ...], int]) -> Delivery:
        message = storage.message(row, self._reading.channels[row[1]])
        return Delivery(message, position=str(row[0]), deliveries=row[-1], token=row[0])

    async def renew(self) -> None:
        """It reads, and holds what it has."""
        reading = self._reading
        await self._file.change(storage.renew, reading.group, self._holder, time.time() + reading.lease)

    async def _renew(self) -> None:
        reading = self._reading
        while True:
            await asyncio.sleep(reading.lease / 3)
            with contextlib.suppress(*_FAILURES):  # `_read` meets them too, and says so
                await self.renew()
                if reading.passing is not None:
                    await self._file.change(storage.keep_passing, reading.group, reading.passing, reading.lease)

    async def _settle(self) -> Exception | None:
        """All that is asked for, until nothing more is. The last error."""
        reading, last = self._reading, None
        while self._asked:
            await asyncio.sleep(_GAP)  # what is settled meanwhile goes into the same transaction
            asked, self._asked = self._asked, []
            rows = [
                (
                    int(d.position),
                    d.deliveries or 0,
                    how,
                    reading.named(how.copy.address) if isinstance(how, Move) else "",
                )
                for d, how in asked
            ]
            try:
                failed = await self._file.change(storage.settle, reading.group, self._holder, rows, reading.limit)
            except _FAILURES as error:
                failed = dict.fromkeys(range(len(asked)), error)
            for place, (delivery, how) in enumerate(asked):
                if place in failed:
                    last = failed[place]
                    self._receive.unsettled(delivery, how, last)
                else:
                    self._held.discard(int(delivery.position))
            self._changed()
        return last


class Follower:
    """A `Receive` that has everything settled, and shows it."""

    def __init__(self) -> None:
        self.consumer: SqliteConsumer | None = None
        self._arrived = asyncio.Queue[Delivery](_BATCH)

    async def deliveries(self, batch: Sequence[Delivery], /) -> None:
        for delivery in batch:
            await self._arrived.put(delivery)
            if self.consumer is not None:
                self.consumer.settle(delivery, DONE)

    async def revoked(self, belongs: Callable[[Delivery], bool], needed: Callable[[Delivery], bool] | None, /) -> None:
        """There are no parts that another consumer could take over."""

    def unsettled(self, delivery: Delivery, how: Settlement, error: Exception, /) -> None:
        """It goes with its group."""

    async def each(self) -> AsyncIterator[Delivery]:
        while True:
            yield await self._arrived.get()

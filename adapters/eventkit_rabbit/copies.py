"""Publishing copies to the queues of a group: its delay queues, itself and its dead letters.

A queue can be there and yet confirm nothing (`silent`). RabbitMQ's channel then waits for that queue and takes
nothing else meanwhile; after 65 s the broker ends the whole connection. So each of these queues is published to over a
channel of its own, which tells the silent one from its neighbours, and all of them over a connection of their own,
which is replaced when one is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from eventkit_rabbit.confirms import Answer, Job
from eventkit_rabbit.link import Link
from eventkit_rabbit.publish import Publisher
from eventkit_rabbit.silent import Silent, confirms_nothing
from eventkit_rabbit.wire import Wire


class Copies:
    """Publishes what is moved: to each queue over a channel of its own."""

    def __init__(self, link: Link, silent: Silent, deadline: float) -> None:
        self._link = link
        self._silent = silent
        self._deadline = deadline
        self._publishers: dict[str, Publisher] = {}
        self._opening = asyncio.Lock()

    @property
    def error(self) -> Exception | None:
        for queue, publisher in self._publishers.items():
            if publisher.overdue(self._deadline / 2):
                return confirms_nothing(queue, self._deadline / 2)
        return self._link.error or self._silent.error

    def now(self) -> Wire | None:
        """The connection, if there is one at this moment."""
        return self._link.now()

    async def wire(self) -> Wire:
        """The connection, made when it is first needed. Bounded by the caller."""
        if not self._link.opened:
            async with self._opening:
                if not self._link.opened:
                    return await self._link.open()
        return await self._link.wire()

    async def publish(self, jobs: Sequence[Job], answers: list[Answer], limit: int) -> None:
        """Fills the answers, within half of the time that a publish has: who waits can still try another queue."""
        late = TimeoutError(f"no connection to RabbitMQ within {self._deadline:g} s")
        try:
            async with asyncio.timeout(self._deadline):
                await self.wire()
        except Exception as error:  # noqa: BLE001 (the answer for each of them)
            for job in jobs:
                answers[job.place] = late if isinstance(error, TimeoutError) else error
            return
        by_queue: dict[str, list[Job]] = {}
        for job in jobs:
            by_queue.setdefault(job.route.routing_key, []).append(job)
        work = [self._publish(queue, own, answers, limit) for queue, own in by_queue.items()]
        if len(work) == 1:
            await work[0]
        else:
            await asyncio.gather(*work)

    async def _publish(self, queue: str, jobs: Sequence[Job], answers: list[Answer], limit: int) -> None:
        publisher = self._publishers.get(queue)
        if publisher is None:
            publisher = self._publishers[queue] = Publisher(self._link, limit, self._deadline)
        await publisher.publish(jobs, answers)
        if any(answers[job.place] is None for job in jobs):
            self._silent.speaks(queue)
        elif (job := publisher.overdue(self._deadline / 2)) and (wire := self._link.now()) is not None:
            delays = job.route.extra.expiration is not None
            wire.abort(self._silent.found(queue, self._deadline, can_be_passed_by=delays))

    async def close(self, timeout: float) -> None:
        await self._link.close(timeout)

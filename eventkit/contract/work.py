"""What a replica does in checks that kill or pause it: the same in this process and in one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from eventkit.context import Context
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service

Tell = Callable[[str], object]


class Task(Event, topic="tasks", key="key"):
    """Something to do."""

    number: int
    key: str | None = None
    waits: bool = False
    """It ends only when the replica is told to go on."""
    fails: bool = False
    """Its first attempt does."""


class Job(Command, service="worker"):
    """Something to do that is for this service alone."""

    number: int
    waits: bool = False
    fails: bool = False


def worker(tell: Tell, go_on: asyncio.Event) -> Service:
    """A service that tells `began 7` and `ended 7`, and lets those that wait go on when it is told to."""
    service = Service("worker", concurrency=200, retry=Retry(attempts=3, first_delay=timedelta(0)))

    async def work(content: Task | Job, context: Context) -> None:
        tell(f"began {content.number}")
        if content.waits:
            await go_on.wait()
        if content.fails and context.attempt == 1:
            tell(f"failed {content.number}")
            raise RuntimeError("asked for")
        tell(f"ended {content.number}")

    @service.handler
    async def task(event: Task, context: Context) -> None:
        await work(event, context)

    @service.handler
    async def job(command: Job, context: Context) -> None:
        await work(command, context)

    return service

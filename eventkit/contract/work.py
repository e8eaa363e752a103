"""What a replica does in checks that kill or pause it: the same in this process and in one of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import timedelta

from eventkit.context import Context
from eventkit.messages import Command, Event
from eventkit.retry import Retry
from eventkit.service import Service

QUARANTINE = 3
"""How often a process dies until a message is quarantined."""

Tell = Callable[[str], object]


class Task(Event, topic="tasks", key="key"):
    """Something to do."""

    number: int
    key: str | None = None
    waits: bool = False
    """It ends only when the replica is told to go on."""
    fails: bool = False
    """Its first attempt does."""
    seconds: float = 0.0
    """How long it takes."""
    kills: bool = False
    """It ends its process, as a crash of the interpreter would. For replicas in processes of their own."""


class Job(Command, service="worker"):
    """Something to do that is for this service alone."""

    number: int
    waits: bool = False
    fails: bool = False


def worker(tell: Tell, go_on: asyncio.Event, quarantine_after: int | None = None) -> Service:
    """A service that tells `began 7` and `ended 7`, and lets those that wait go on when it is told to."""
    retry = Retry(attempts=3, first_delay=timedelta(0))
    service = Service("worker", concurrency=200, retry=retry, quarantine_after=quarantine_after)

    async def work(content: Task | Job, context: Context) -> None:
        tell(f"began {content.number}")
        if content.waits:
            await go_on.wait()
        if isinstance(content, Task):
            if content.seconds:
                await asyncio.sleep(content.seconds)
            if content.kills:
                os.kill(os.getpid(), signal.SIGKILL)
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

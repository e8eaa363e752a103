"""What the rig's producers publish, and what its replicas make of it."""

from __future__ import annotations

import asyncio
import os
import zlib
from datetime import timedelta

from eventkit import Command, Context, Event, GiveUp, Retry, Service
from eventkit.headers import SUSPECT
from tests.rig.journal import Journal

SERVICE, AUDIT = "rig", "rig.audit"
"""The groups: one does the work, the other gets a copy of every event."""
ATTEMPTS = 3
TOPIC = "rig.told"
QUARANTINE = "RIG_QUARANTINE_AFTER"
"""The variable that sets the service's `quarantine_after`; 0: never; absent: the library's default."""

EVENTS = ("ordered", "plain", "fails", "delayed", "doomed", "exhausted")
"""What becomes of an event: handled in the order of its key; handled, in any order; handled on its second attempt;
handled after a delay on the broker; given up on; failed until it has no attempt left."""
COMMAND, FOLLOWED = "command", "followed"
LETTERS = frozenset({"doomed", "exhausted"})
"""What is to become a dead letter, and nothing else is."""


class Told(Event, topic=TOPIC, key="key"):
    what: str
    key: str
    number: int


class Followed(Event, topic="rig.followed", key="key"):
    """What the handler of a plain event sends on."""

    key: str
    number: int


class Do(Command, service=SERVICE):
    key: str
    number: int


def sends_on(what: str, number: int) -> bool:
    """Does the handler of this one send another?"""
    return what == "plain" and number % 3 == 0


def seconds(key: str, number: int) -> float:
    """How long its handler takes: mostly a moment, sometimes so long that a kill finds it at work."""
    place = zlib.crc32(f"{key} {number}".encode()) % 100
    return 0.4 if place == 0 else place / 5_000


def came(context: Context) -> str:
    """As a suspect: one that may have killed its process, which is tried alone and out of its turn; else as `usual`."""
    return "suspect" if SUSPECT in context.delivery.message.headers else "usual"


def service(journal: Journal) -> Service:
    """The service that each replica runs."""
    retry = Retry(attempts=ATTEMPTS, first_delay=timedelta(seconds=0.3), factor=1.5)
    said = os.environ.get(QUARANTINE, "")
    found = Service(SERVICE, retry=retry, stop_timeout=timedelta(seconds=5))
    if said:
        found.quarantine_after = int(said) or None

    @found.handler
    async def told(event: Told, context: Context) -> Followed | None:
        about = (SERVICE, event.what, event.key, event.number)
        journal.write("began", *about, context.attempt, came(context))
        await asyncio.sleep(seconds(event.key, event.number))
        if event.what == "doomed":
            raise GiveUp("asked for")
        if event.what == "exhausted" or (event.what == "fails" and context.attempt == 1):
            raise RuntimeError("asked for")
        journal.write("ended", *about)
        return Followed(key=event.key, number=event.number) if sends_on(event.what, event.number) else None

    @found.handler
    async def do(command: Do, context: Context) -> None:
        about = (SERVICE, COMMAND, command.key, command.number)
        journal.write("began", *about, context.attempt, came(context))
        await asyncio.sleep(seconds(command.key, command.number))
        journal.write("ended", *about)

    @found.handler(group="audit")
    async def audit(event: Told, context: Context) -> None:
        journal.write("began", AUDIT, event.what, event.key, event.number, context.attempt, came(context))
        journal.write("ended", AUDIT, event.what, event.key, event.number)

    @found.handler(group="audit")
    async def followed(event: Followed) -> None:
        journal.write("ended", AUDIT, FOLLOWED, event.key, event.number)

    return found

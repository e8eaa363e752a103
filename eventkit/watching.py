"""What happened to messages, told to whoever watches: tests, and instruments."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from eventkit.adapter import Message

log = logging.getLogger("eventkit")


class What(StrEnum):
    """What became of a message."""

    PUBLISHED = "published"
    """An event was confirmed by the broker."""
    SENT = "sent"
    """A command was."""
    HANDLED = "handled"
    """Its handler has ended, and what it gave out is on the broker."""
    REJECTED = "rejected"
    """A command was refused by its handler, with `Reject`."""
    RETRIED = "retried"
    """An attempt failed, another follows."""
    HELD = "held"
    """An attempt failed and does not count: its handler's circuit is open, and it is tried again when that closes."""
    FAILED = "failed"
    """A request failed for good, and its requester was told."""
    DEAD = "dead"
    """It became a dead letter; the message is the letter."""
    SKIPPED = "skipped"
    """No handler of the group takes its type."""
    REPEATED = "repeated"
    """It was handled before, and its handler drops repeats."""


class Happened(NamedTuple):
    """Something became of a message."""

    what: What
    group: str
    """Whose: the group's name, or the publisher's."""
    message: Message
    content: object
    """The event or command, where it was decoded."""
    attempt: int
    """From 1."""
    error: BaseException | None
    """Why it was not handled; None where it was, or where nothing failed."""
    delay: timedelta | None
    """Until the next attempt; None: there is none."""
    handler: str | None = None
    """Which one it was for; None: for none."""


Watch: TypeAlias = Callable[[Happened], None] | None
"""None: nobody watches, and it costs nothing."""


def harmless(watch: Watch) -> Watch:
    """As it is, but for what it raises: that is logged, and the messages go on."""
    if watch is None:
        return None

    def tell(happened: Happened) -> None:
        try:
            watch(happened)
        except Exception:
            log.exception("whoever watches failed, and the messages go on: %s of %s", happened.what, happened.group)

    return tell

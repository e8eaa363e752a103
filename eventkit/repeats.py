"""Repeats: one attempt at a message that is to be handled once, with its mark around it.

The order of the steps is what makes a crash between any two of them harmless: the handler's work, the mark and what is
to be sent are kept first; then that is published; then it is known to be sent; then the delivery is settled. A repeat
begins where the first one ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from eventkit import headers as h
from eventkit.adapter import Address, Delivery, Message
from eventkit.errors import Reject
from eventkit.handling import Call, Entry
from eventkit.once import Attempt, Busy, Handled, Mark, OnceStore
from eventkit.outgoing import Emitter, Sending

log = logging.getLogger("eventkit")

_PATIENCE = 30.0
"""Seconds that a store is given to answer."""
_BUSY = 0.25
"""Seconds until a message that another delivery is being handled of is asked for again."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0
"""Seconds until a store that is away is asked again."""
_SAY_AGAIN = 60.0
"""Seconds between two warnings of a store that is away; and until one of which nothing is heard counts as well."""


class Ended(Enum):
    """How an attempt has ended that did not fail."""

    SUCCEEDED = "succeeded"
    REPEATED = "repeated"
    """It was handled before."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Its handler has refused the command, and that is its outcome."""

    rejection: Reject


@dataclass(frozen=True, slots=True)
class Untried:
    """It was not tried, and is to be asked for again."""

    error: Exception | None
    """Why the store cannot be asked. None: another delivery of the message is being handled."""


Ending: TypeAlias = Ended | Refused | Untried


async def handle(entry: Entry, delivery: Delivery, call: Call, group: str, emitter: Emitter) -> Ending:
    """One attempt; raises its failure."""
    assert entry.once is not None
    message = delivery.message
    id_ = message.headers.get(h.ID) or delivery.position
    mark = Mark(group, message.headers.get(h.SOURCE, ""), id_, message.type)
    begun = await _begin(entry.once, mark)
    if isinstance(begun, Untried):
        return begun
    ending: Ending = Ended.REPEATED
    contents: list[object] = []
    if not isinstance(begun, Handled):
        attempt = begun
        try:
            try:
                result = await call.run()
                messages, contents = emitter.made(Sending(entry, delivery, result, call.outgoing))
                ending = Ended.SUCCEEDED
            except Reject as rejection:
                if not entry.commands:
                    raise
                messages, contents = emitter.made_of_rejection(entry, delivery, rejection)
                ending = Refused(rejection)
                await attempt.abort(rejection)  # its work is undone, and the refusal is what is kept
            if isinstance(ending, Refused):
                begun = await _begin(entry.once, mark)
                if isinstance(begun, Untried):
                    return begun
                if not isinstance(begun, Handled):
                    attempt = begun
            if isinstance(begun, Handled):
                ending, contents = Ended.REPEATED, []
            else:
                begun = _done(messages)
                async with asyncio.timeout(_PATIENCE):
                    await attempt.commit(begun)
        except BaseException as error:
            await attempt.abort(error)
            raise
    await _send(entry.once, mark, delivery, begun, contents, emitter)
    return ending


async def _begin(store: OnceStore, mark: Mark) -> Attempt | Handled | Untried:
    try:
        async with asyncio.timeout(_PATIENCE):
            begun = await store.begin(mark)
    except Exception as error:  # noqa: BLE001 whatever its client raises, the message was not tried
        return Untried(error)
    return Untried(None) if isinstance(begun, Busy) else begun


def _done(messages: list[Message]) -> Handled:
    outgoing = tuple(message for message in messages if message.address.kind != "reply")
    answers = [message for message in messages if message.address.kind == "reply"]
    return Handled(outgoing, answers[0] if answers else None)


async def _send(
    store: OnceStore, mark: Mark, delivery: Delivery, done: Handled, contents: list[object], emitter: Emitter
) -> None:
    """Until the broker has all that is to be sent. Raises Unsendable; then it stays in the store."""
    messages = list(done.outgoing)
    asked = delivery.message.headers.get(h.REPLY_TO)
    if done.answer is not None and asked is not None:
        messages.append(done.answer._replace(address=Address("reply", asked)))
    if messages:
        await emitter.publish(messages, contents)
    if done.outgoing:
        try:
            async with asyncio.timeout(_PATIENCE):
                await store.sent(mark)
        except Exception as error:  # noqa: BLE001 a repeat would publish it again, with the same ids
            log.warning("%s: the store of handled messages could not be told what was sent: %r", mark.group, error)


class Patience:
    """How long messages wait for a store that is away, and what is said of it."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._failed = 0
        self._error: Exception | None = None
        self._at = self._said_at = -_SAY_AGAIN

    @property
    def error(self) -> Exception | None:
        """Why the store cannot be asked; None while it can, or nobody asks."""
        return self._error if time.monotonic() < self._at + _SAY_AGAIN else None

    def met(self) -> None:
        """It has answered."""
        if self._error is not None:
            self._failed, self._error = 0, None
            log.info("%s: the store of handled messages answers again", self._group)

    def seconds(self, untried: Untried) -> float:
        """How long a message waits now."""
        error = untried.error
        if error is None:
            return _BUSY
        now = time.monotonic()
        if self._error is None or now > self._said_at + _SAY_AGAIN:
            self._said_at = now
            log.warning(
                "%s: the store of handled messages cannot be asked; its messages wait, untried: %s: %s",
                *(self._group, type(error).__name__, str(error).partition("\n")[0]),
            )
        if now > self._at + _FIRST_WAIT:  # those that fail together count as one
            self._failed += 1
        self._error, self._at = error, now
        return float(min(_FIRST_WAIT * 2 ** min(self._failed - 1, 10), _LONGEST_WAIT))

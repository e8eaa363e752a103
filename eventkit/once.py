"""Once: that a handler drops repeats, and the store that remembers what was handled.

```python
store = MemoryStore()


@service.handler(once=store)
async def book(event: OrderPlaced) -> ParcelBooked: ...
```
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from eventkit.adapter import Message
from eventkit.errors import DeclarationError

RETENTION = timedelta(days=7)
"""How long it is remembered that a message was handled, unless a store is told otherwise."""
_SHORTEST = timedelta(seconds=1)
_SWEPT = 100
"""Marks that are forgotten at most, for each one that is made."""


class Mark(NamedTuple):
    """What tells one handling from every other: who handles, and which message, by its `ce-source`, `ce-id` and type.

    A retry, a redelivery and a dead letter that is sent back have the id of the first. A foreign message without an id
    is known by its position on the broker.
    """

    group: str
    source: str
    id: str
    type: str = ""
    """Its wire name: people give an order's id to its every event, and none of those is a repeat of another. Empty: of
    any type."""

    @property
    def key(self) -> str:
        """64 characters that stand for it."""
        return _hashed(*(self if self.type else self[:-1]))

    @property
    def of_any(self) -> str:
        """The key of the mark that does not say the type. What was handled under that one is handled: the first release
        made all its marks so."""
        return _hashed(*self[:-1])


def _hashed(*parts: str) -> str:
    text = "".join(f"{len(part)}:{part}" for part in parts)  # no two marks make the same
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Handled:
    """It was handled before: what is left to do of that."""

    outgoing: Sequence[Message] = ()
    """What that handling sends, and of which nobody knows yet whether the broker has it: to be published again."""
    answer: Message | None = None
    """Its reply. None: nobody had asked for one."""


class Busy(NamedTuple):
    """Another delivery of the message is being handled now, or was when its process died: to be asked again."""


class Attempt(Protocol):
    """The handling of a message that was not handled yet. Ended by `commit` or `abort`, whichever is called first."""

    async def commit(self, done: Handled, /) -> None:
        """It is handled, and this is to be sent. Where the store takes part in the handler's transaction, the work
        and the mark are committed together, so that a crash leaves both or neither. What it raises is a failure of the
        attempt; whether it is handled is then unknown, and the next attempt finds out."""
        ...

    async def abort(self, error: BaseException, /) -> None:
        """It is not handled, for this reason: another delivery may be, now. Raises nothing."""
        ...


Begun: TypeAlias = Attempt | Handled | Busy
Publish: TypeAlias = Callable[[Sequence[Message]], Awaitable[Sequence[Exception | None]]]
"""Hands messages to the broker; one answer each: None is confirmed, else why not."""


class OnceStore(Protocol):
    """Remembers what was handled. Made without I/O; used from the event loop that its services run in.

    Write one for another database with these methods; `eventkit.once.MemoryStore` is a complete one.
    """

    session_of: ClassVar[Literal["async", "plain"] | None]
    """Which handlers can use its transaction: `async` or plain functions. None: it has none to use."""

    def running(self, publish: Publish, /) -> AbstractAsyncContextManager[object]:
        """Entered while services that use it run: its upkeep, such as forgetting what is older than its retention, and
        publishing what was left behind. Raises where the store can be asked and is not as it must be; a store that is
        away now is no error."""
        ...

    async def begin(self, mark: Mark, /) -> Begun:
        """Begin an attempt, or say why not. Of two deliveries that are tried at the same time only one gets an
        attempt. What it raises means that the store is away: the message waits, untried, and is asked for again."""
        ...

    async def sent(self, mark: Mark, /) -> None:
        """All that `commit` was given to send is confirmed by the broker: a repeat need not publish it again."""
        ...


class MemoryStore:
    """Remembers in this process: for tests, and for repeats that come while it lives.

    The mark is made after the handler has returned. What it holds is lost with the process, and other replicas know
    nothing of it. `retention`: how long a repeat is known as one.
    """

    session_of: ClassVar[Literal["async", "plain"] | None] = None

    def __init__(self, *, retention: timedelta = RETENTION) -> None:
        self._retention = check_retention("MemoryStore", retention).total_seconds()
        self._handled: OrderedDict[str, tuple[float, Handled]] = OrderedDict()
        self._busy: set[str] = set()

    def __len__(self) -> int:
        """The messages that it remembers."""
        return len(self._handled)

    def running(self, publish: Publish, /) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def begin(self, mark: Mark, /) -> Begun:
        for key in (mark.of_any, mark.key):
            found = self._handled.get(key)
            if found is not None and found[0] > monotonic():
                return found[1]
            if key in self._busy:
                return Busy()
        self._busy.add(mark.key)
        return _InMemory(self, mark.key)

    async def sent(self, mark: Mark, /) -> None:
        for key in (mark.key, mark.of_any):
            found = self._handled.get(key)
            if found is not None:
                self._handled[key] = (found[0], replace(found[1], outgoing=()))

    def end(self, key: str, done: Handled | None) -> None:
        """An attempt has ended. None: without success."""
        self._busy.discard(key)
        if done is None:
            return
        now = monotonic()
        self._handled.pop(key, None)
        self._handled[key] = (now + self._retention, done)
        for _ in range(_SWEPT):  # the oldest stand first
            oldest = next(iter(self._handled))
            if self._handled[oldest][0] > now:
                break
            del self._handled[oldest]


class _InMemory:
    def __init__(self, store: MemoryStore, key: str) -> None:
        self._store = store
        self._key = key
        self._open = True

    async def commit(self, done: Handled, /) -> None:
        self._end(done)

    async def abort(self, error: BaseException, /) -> None:
        self._end(None)

    def _end(self, done: Handled | None) -> None:
        if self._open:
            self._open = False
            self._store.end(self._key, done)


def check_retention(who: str, retention: timedelta) -> timedelta:
    """DeclarationError for one that cannot be meant."""
    if not isinstance(retention, timedelta) or retention < _SHORTEST:
        raise DeclarationError(
            f"{who}(retention={retention!r}): how long repeats are known, as a timedelta of at least 1 s: longer than "
            "your broker keeps messages, and than a person takes to send a dead letter again"
        )
    return retention


__all__ = ["RETENTION", "Attempt", "Begun", "Busy", "Handled", "Mark", "MemoryStore", "OnceStore", "Publish"]

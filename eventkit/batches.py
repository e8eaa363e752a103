"""Batch: that a handler takes many messages at once (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from eventkit.errors import DeclarationError

MOST = 1_000
"""Messages in one batch: what a group holds at once at least, so that a batch can be full."""
_LONGEST = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How many messages a handler of `list[OrderPlaced]` takes at once, and how long the first waits for others.

    ```python
    @service.handler(batch=Batch(size=100, wait=timedelta(milliseconds=50)))
    async def store(events: list[OrderPlaced], contexts: list[Context]) -> None: ...
    ```

    It succeeds or fails for all, or `raise PartialFailure({index: error})` names those that failed; each message keeps
    its own attempts, key and outgoing messages (`contexts[index].publish(...)`). A batch holds a message only if every
    earlier one of its key is settled or stands before it in the same batch. A message's last attempt is alone in its
    batch, so that none is given up on for what another did.
    """

    size: int = 100
    """At most so many, 1,000 at most. A batch is handled as soon as it is full."""
    wait: timedelta = timedelta(milliseconds=50)
    """How long the first message of a batch waits for it to become full. Zero: what is there at this moment."""

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= MOST:
            raise DeclarationError(f"Batch(size={self.size!r}): a whole number from 1 to {MOST:,}")
        if not isinstance(self.wait, timedelta) or not timedelta(0) <= self.wait <= _LONGEST:
            raise DeclarationError(f"Batch(wait={self.wait!r}): a timedelta between zero and 60 seconds")

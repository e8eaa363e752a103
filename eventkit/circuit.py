"""Circuit: that a handler rests while all that it tries fails (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from eventkit.errors import DeclarationError

_LONGEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """When a handler is to stop trying, because what it needs is away: `@service.handler(circuit=Circuit())`.

    It opens when so many different messages failed within that time and none succeeded in between. Its messages then
    wait on the broker, untried: no attempt is used up, also by those that were running. After a pause one of them is
    tried, as a probe: if it succeeds, all go on; if it fails, it waits with the others, and the next pause begins.
    `GiveUp`, `Reject` and exceptions that are never retried say something about a message, not about the handler:
    they do not open it, and they close it. Each process has its own; `Running.health()` and the log say which are open.

    Other handlers of the group go on. Where its messages would take the room of theirs, they are put off on the
    broker: for a pause, then for two, for four and so on up to ten minutes, and may then come out of their key's order.
    With `Retry(in_order=True)` they never are, and the others may have to wait.
    """

    failures: int = 10
    """So many different messages failed."""
    within: timedelta = timedelta(seconds=60)
    """In so short a time."""
    pause: timedelta = timedelta(seconds=10)
    """How long to wait before each probe."""

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int) or self.failures < 1:
            raise DeclarationError(f"Circuit(failures={self.failures!r}): a whole number of at least 1")
        for name in ("within", "pause"):
            value = getattr(self, name)
            if not isinstance(value, timedelta) or not timedelta(0) < value <= _LONGEST:
                raise DeclarationError(f"Circuit({name}={value!r}): a timedelta above zero, of an hour at most")

"""Retry: whether a failed message is tried again, and when (pure)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta

from eventkit.clock import LONGEST
from eventkit.errors import DeclarationError, GiveUp, RetryLater

IN_ORDER = timedelta(seconds=60)
"""How long a message may wait in its lane in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a handler is tried with a message, and how long it waits in between.

    The message waits on the broker, off its topic, and blocks nobody: messages of the same key that come later may
    overtake it. With `in_order=True` it waits in its lane instead and blocks its key.
    """

    attempts: int = 5
    """How often in all, the first included. 1: never again."""
    first_delay: timedelta = timedelta(seconds=1)
    """Before the second attempt. Zero: at once."""
    factor: float = 2.0
    """Each further delay is this times the one before."""
    max_delay: timedelta = timedelta(minutes=5)
    """No delay is longer; 24 hours at most."""
    jitter: float = 0.1
    """Each delay is longer or shorter by up to this share of it, so that failures do not return in step. 0: exact."""
    never: tuple[type[Exception], ...] = ()
    """Exceptions that are never tried again: dead letter at once."""
    in_order: bool = False
    """Wait in the lane and keep the key's order; 60 s at most in all, and the count restarts after a crash. Other keys
    go on, as long as those behind the failing one leave room: a group holds 1,000 messages at once, or four times its
    `concurrency`. Where one key's fill that, the others wait, and a warning says so."""

    def __post_init__(self) -> None:
        if not isinstance(self.first_delay, timedelta) or not isinstance(self.max_delay, timedelta):
            raise DeclarationError("Retry: first_delay and max_delay are a timedelta, such as timedelta(seconds=1)")
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise DeclarationError(f"Retry(attempts={self.attempts}): 1 is the least, and means never again")
        if not timedelta(0) <= self.first_delay <= LONGEST or not timedelta(0) <= self.max_delay <= LONGEST:
            raise DeclarationError("Retry: delays lie between zero and 24 hours")
        if not 1 <= self.factor < math.inf or not 0 <= self.jitter < 1:
            raise DeclarationError("Retry: factor is at least 1, jitter at least 0 and below 1")
        if not isinstance(self.never, tuple) or not all(
            isinstance(kind, type) and issubclass(kind, Exception) for kind in self.never
        ):
            raise DeclarationError(f"Retry(never={self.never!r}): give a tuple of exception classes")
        if self.in_order:
            waits = sum((self._exact(attempt) for attempt in range(1, self.attempts)), 0.0)
            if waits > IN_ORDER.total_seconds():
                raise DeclarationError(
                    f"Retry(in_order=True): these delays keep a key waiting for {waits:.0f} s, 60 s is the most; "
                    "lower attempts, first_delay, factor or max_delay"
                )

    def allows(self, attempt: int, error: BaseException) -> bool:
        """May a message whose `attempt` (from 1) failed with this error be tried again?"""
        return attempt < self.attempts and not isinstance(error, (GiveUp, *self.never))

    def delay(self, attempt: int, error: BaseException | None = None) -> timedelta:
        """How long to wait after this attempt (from 1) failed with this error."""
        if isinstance(error, RetryLater):
            return min(error.delay, IN_ORDER / (self.attempts - 1) if self.in_order else LONGEST)
        spread = 1 + self.jitter * random.uniform(-1, 1)  # noqa: S311 not a secret
        return min(timedelta(seconds=self._exact(attempt) * spread), LONGEST)

    def _exact(self, attempt: int) -> float:
        seconds = self.first_delay.total_seconds()
        longest = self.max_delay.total_seconds()
        for _ in range(attempt - 1):
            if seconds >= longest:
                break
            seconds *= self.factor
        return min(seconds, longest)

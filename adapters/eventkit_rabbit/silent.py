"""Queues that are there and confirm nothing.

A quorum queue without a leader takes messages and says nothing: in a cluster while most of its members are away, and
for ever after RabbitMQ was killed within a second of its declaration (it writes the name of the queue's Raft server
down late, does not find it again, and begins a second one beside it that never has a leader; seen on 3.10.8). It is
never deleted by us: in a cluster it comes back with its messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("eventkit.rabbit")

_PASSED_BY = 600.0
"""Seconds after which a silent delay queue is tried again: it may have come back."""


class Silent:
    """Those that this process has met."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed_by: dict[str, float] = {}
        """Delay queues, and until when another one stands in for each."""
        self._alone: dict[str, TimeoutError] = {}
        """Queues that nothing can stand in for."""

    @property
    def error(self) -> Exception | None:
        return next(iter(self._alone.values()), None)

    def is_passed_by(self, queue: str) -> bool:
        return self._clock() < self._passed_by.get(queue, 0.0)

    def found(self, queue: str, seconds: float, *, can_be_passed_by: bool) -> TimeoutError:
        """It has confirmed nothing for so long, over a channel where nothing else was under way."""
        error = confirms_nothing(queue, seconds)
        if can_be_passed_by:
            log.error("%s; for %d minutes another delay queue is used in its place", error, _PASSED_BY // 60)
            self._passed_by[queue] = self._clock() + _PASSED_BY
        else:
            if queue not in self._alone:
                log.error("%s; what belongs there is tried again", error)
            self._alone[queue] = error
        return error

    def speaks(self, queue: str) -> None:
        """It has confirmed something."""
        self._passed_by.pop(queue, None)
        if self._alone.pop(queue, None) is not None:
            log.info("the queue %s on RabbitMQ confirms again", queue)


def confirms_nothing(queue: str, seconds: float) -> TimeoutError:
    return TimeoutError(
        f"the queue {queue} on RabbitMQ confirms nothing (for {seconds:g} s): it may have no leader, see "
        f"rabbitmq-queues quorum_status {queue}"
    )

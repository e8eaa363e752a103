"""Aside: what the broker does not take of the outbox now, and what waits behind it in its key's order (pure).

They keep their places in the table. Here is which these are, so that the relay passes them by, and when each is tried
again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from eventkit.adapter import Address, Message

MOST = 5_000
"""So many are passed by; then nothing more is read until some of them are out."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0
"""Seconds until one is tried again."""
_OF_ONE = 1_000
"""So many lanes of one destination, with no success in between, keep it closed until there are fewer: those that are
here try it all the time, and more of it would take the room of other destinations."""
_MANY, _CLOSED = 20, 30.0
"""So many failures in one destination, with no success in between, close it for so many seconds: what else waits for it
is not even tried, but for those that have failed."""

Lane: TypeAlias = tuple[Address, str | int]
"""What goes out one after another: messages of one key; by its position, one without a key."""


def lane_of(position: int, message: Message) -> Lane:
    return message.address, position if message.key is None else message.key


@dataclass(slots=True)
class _Stuck:
    position: int
    """Of the first, which has failed."""
    due: float
    tries: int = 1
    behind: list[int] = field(default_factory=list)
    """The positions of those that wait for it."""


@dataclass(slots=True)
class _Destination:
    failures: int = 0
    """Since its last success."""
    opens: float = 0.0


class Aside:
    """Of one relay. Times are those of a clock that only goes forward, in seconds."""

    def __init__(self) -> None:
        self._stuck: dict[Lane, _Stuck] = {}
        self._positions: set[int] = set()
        self._destinations: dict[Address, _Destination] = {}
        self.freed = 0
        """How often a lane has become free: what was read of the table before that says nothing of its order."""

    @property
    def positions(self) -> Collection[int]:
        """All that are to be passed by."""
        return self._positions

    @property
    def full(self) -> bool:
        return len(self._positions) >= MOST

    @property
    def lanes(self) -> int:
        return len(self._stuck)

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._stuck

    def closed(self, now: float) -> list[Address]:
        """Destinations of which nothing is to be read now."""
        closed = []
        for address, destination in self._destinations.items():
            if destination.opens > now or (destination.failures >= _MANY and self._lanes_of(address) >= _OF_ONE):
                closed.append(address)
            elif destination.failures >= _MANY:
                destination.failures = 0  # some more are tried: others of it may go out
        return closed

    def _lanes_of(self, address: Address) -> int:
        return sum(lane[0] == address for lane in self._stuck)

    def failed(self, lane: Lane, position: int, now: float) -> None:
        """The first of this lane was tried in vain."""
        stuck = self._stuck.get(lane)
        if stuck is None:
            self._stuck[lane] = _Stuck(position, now + _FIRST_WAIT)
            self._positions.add(position)
            destination = self._destinations.setdefault(lane[0], _Destination())
            destination.failures += 1
            if destination.failures >= _MANY:
                destination.opens = now + _CLOSED
        else:
            stuck.due = now + min(_FIRST_WAIT * 2 ** min(stuck.tries, 10), _LONGEST_WAIT)
            stuck.tries += 1

    def wait_behind(self, lane: Lane, position: int) -> None:
        """This one waits for the first of its lane, which is here."""
        self._stuck[lane].behind.append(position)
        self._positions.add(position)

    def succeeded(self, lane: Lane, position: int) -> None:
        """This one is out."""
        if self._destinations:
            self._destinations.pop(lane[0], None)
        self.free(lane, position)

    def free(self, lane: Lane, position: int) -> None:
        """This one keeps nothing of its lane here any more. Another of it may: one that failed after this one."""
        stuck = self._stuck.get(lane)
        if stuck is not None and stuck.position == position:
            del self._stuck[lane]
            self.freed += 1
            self._positions.difference_update((stuck.position, *stuck.behind))
            if not self._stuck:
                self._destinations.clear()

    def due(self, now: float, most: int) -> dict[int, Lane]:
        """The positions of those that are to be tried again, the longest due first."""
        due = [(stuck.due, stuck.position, lane) for lane, stuck in self._stuck.items() if stuck.due <= now]
        due.sort(key=lambda one: one[:2])
        return {position: lane for _, position, lane in due[:most]}

    def next_due(self) -> float | None:
        """None: nothing is here."""
        return min((stuck.due for stuck in self._stuck.values()), default=None)

    def clear(self) -> None:
        """Another relay publishes."""
        for lane, stuck in list(self._stuck.items()):
            self.free(lane, stuck.position)

"""How many messages a second, by address and type (pure)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from eventkit.adapter import Address

KEPT = 60
"""Turns that are remembered, one a second."""
_RECENT = 5
"""Turns that a rate is the mean of."""
_OTHER_STREAMS = 200
"""Streams that are told apart besides those that are known: type names come from anyone."""
_OTHERS = "(others)"


class Stream(NamedTuple):
    """The messages of one type at one address."""

    address: Address
    type: str


class Seen:
    """What was seen of one stream."""

    def __init__(self) -> None:
        self.total = 0
        self._now = 0
        self._past: deque[float] = deque([0.0] * KEPT, maxlen=KEPT)

    def count(self) -> None:
        self.total += 1
        self._now += 1

    def turn(self, seconds: float) -> None:
        self._past.append(self._now / seconds)
        self._now = 0

    @property
    def past(self) -> list[float]:
        """Messages a second in each of the last turns, oldest first."""
        return [round(rate, 1) for rate in self._past]

    @property
    def rate(self) -> float:
        """Messages a second, lately."""
        return round(sum(list(self._past)[-_RECENT:]) / _RECENT, 1)


class Rates:
    """Counts, turned over once a second. Memory is bounded, whatever types come."""

    def __init__(self, known: Iterable[Stream] = ()) -> None:
        self._streams = {stream: Seen() for stream in known}
        self._most = len(self._streams) + _OTHER_STREAMS

    @property
    def streams(self) -> Mapping[Stream, Seen]:
        return self._streams

    def count(self, stream: Stream) -> Stream:
        """One more. Returns as which stream it was counted."""
        seen = self._streams.get(stream)
        if seen is None:
            if len(self._streams) >= self._most:
                stream = Stream(stream.address, _OTHERS)
            seen = self._streams.setdefault(stream, Seen())
        seen.count()
        return stream

    def turn(self, seconds: float) -> None:
        """`seconds` have gone by since the last turn."""
        for seen in self._streams.values():
            seen.turn(max(seconds, 0.001))

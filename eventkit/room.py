"""Room: how many deliveries a group holds at once, by the rate at which they are handled (pure)."""

from __future__ import annotations

_TARGET = 5.0
"""Seconds of work that are held. More would only wait here, where no idle replica can get it; less would not pay where
a broker is asked for many at once."""
_LULL = 1.0
"""Seconds after which it is measured anew, where nothing is held: instant handlers hold nothing, either."""
_STEP = 4
"""It grows so many times at once: a fast group has all its room after a few batches."""
_KEPT = 60.0
"""Seconds for which it does not shrink after workers had nothing to do: they soon would have nothing again."""


class Room:
    """Begins small, so that a slow group never takes much, and grows while that is handled in a moment.

    It grows, too, where workers have nothing to do although it is full: what is held waits for its key, its next
    attempt, its circuit or its batch, and others may be behind it on the broker. Each change is by half or by as much
    again, at least: on some brokers it costs a question or two.
    """

    __slots__ = ("_kept_until", "_least", "_most", "_settled", "_since", "size")

    def __init__(self, least: int, most: int) -> None:
        self.size = self._least = min(least, most)
        """As many are held at most."""
        self._most = most
        self._since = 0.0
        self._settled = 0
        self._kept_until = 0.0

    def begin(self, now: float, settled: int) -> None:
        """Nothing was held until now: there may have been nothing to do. `settled`: how many were, ever."""
        if now - self._since > _LULL:
            self._since, self._settled = now, settled

    def full(self, held: int) -> bool:
        """Is about as much held as may be? Not every broker fills the last place."""
        return held * 8 >= self.size * 7

    def worth(self, settled: int, held: int) -> bool:
        """Is there something to look at already?"""
        return settled - self._settled >= self.size or (self.size < self._most and self.full(held))

    def look(self, now: float, settled: int, held: int, *, idle: float) -> bool:
        """`idle`: the part of the workers that have nothing to do, though not all that is held runs. True: `size` has
        changed."""
        before, done, took = self.size, settled - self._settled, now - self._since
        fits = done * _TARGET / took if took > 0 else done * 1e6
        if idle > 1 / 8 and self.full(held):
            more = before * (_STEP if idle > 1 / 2 else 2)
            self.size = self._most if idle == 1 else min(more, self._most)  # where nothing runs, nothing tells how many
            self._kept_until = now + _KEPT
        elif done >= before and fits >= before * 2:
            self.size = min(before * _STEP, int(fits), self._most)
        elif done < before and took < _TARGET:
            return False
        elif not idle and self.full(held) and now >= self._kept_until and fits * 2 <= before:
            self.size = max(int(fits), self._least)
        self._since, self._settled = now, settled
        return self.size != before

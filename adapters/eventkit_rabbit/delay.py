"""The ladder of delay queues of a group (pure).

A message waits in the queue of the shortest rung that is long enough, with its own expiration. A queue lets go only at
its head, so a message may be late by what one in front of it still waits. Where that could be more than half a minute,
since the rung is so much longer, it waits in the one below for as long as that is, and then for the rest in another.
Rungs are permanent (`x-expires` would drop what waits) and made when they are first needed. An older release's rungs
empty by themselves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime

_LADDER: tuple[tuple[str, int], ...] = (
    ("250ms", 250), ("500ms", 500), ("1s", 1_000), ("2s", 2_000), ("3s", 3_000), ("5s", 5_000), ("8s", 8_000),
    ("12s", 12_000), ("20s", 20_000), ("30s", 30_000), ("45s", 45_000), ("60s", 60_000), ("90s", 90_000),
    ("150s", 150_000), ("4m", 240_000), ("6m", 360_000), ("10m", 600_000), ("15m", 900_000), ("25m", 1_500_000),
    ("40m", 2_400_000), ("60m", 3_600_000), ("90m", 5_400_000), ("150m", 9_000_000), ("4h", 14_400_000),
    ("6h", 21_600_000), ("9h", 32_400_000), ("14h", 50_400_000), ("24h", 86_400_000),
)  # fmt: skip
RUNGS: tuple[str, ...] = tuple(label for label, _ in _LADDER)
_LENGTHS: tuple[int, ...] = tuple(length for _, length in _LADDER)
_LATE = 30_000
"""Milliseconds by which a message may be kept waiting by one in front of it."""
_LAST_MOMENT = 253_402_214_400_000


def milliseconds(due: datetime | None, now: float) -> int:
    """From now (seconds since 1970) until due, rounded up; 0: at once. A time without zone is UTC."""
    if due is None:
        return 0
    at = (due if due.tzinfo is not None else due.replace(tzinfo=UTC)).timestamp()
    return max(0, -int((now - at) * 1000 // 1))


def rung(wait: int) -> str:
    """The label of the rung for a wait in milliseconds."""
    return RUNGS[_place(wait)]


def others(wait: int) -> Iterator[str]:
    """The rungs that can stand in for it, best first: the longer ones, then the shorter; the other way round, where the
    longer would hold it up."""
    place = _place(wait)
    longer, shorter = RUNGS[place + 1 :], RUNGS[:place][::-1]
    yield from (*longer, *shorter) if wait <= _LENGTHS[place] else (*shorter, *longer)


def length(label: str) -> int:
    """How long a message waits there at most, in milliseconds. What is longer is then parked again."""
    return _LENGTHS[RUNGS.index(label)]


def _place(wait: int) -> int:
    place = min(bisect_left(_LENGTHS, wait), len(RUNGS) - 1)
    return place - 1 if place and _LENGTHS[place] - wait > _LATE else place


def moment(until: int) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(min(max(until, 0), _LAST_MOMENT) / 1000, UTC)

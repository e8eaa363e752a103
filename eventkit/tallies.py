"""Tallies: what an instrument has counted and timed, at the price of a dictionary's (it is on every message's way).

Each thread counts for itself, so that nothing is locked; whoever reads adds them up.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Generic, Protocol, Self, TypeVar

from eventkit.instruments import Place
from eventkit.messages import every_declared
from eventkit.replies import REPLY_TYPE
from eventkit.watching import What

OTHER = "other"
"""The type of all messages whose type this process does not declare."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
AGES = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
"""Upper bounds of histograms, in seconds."""
_LOOK_AGAIN = 5.0
"""Seconds between two looks for the types that this process declares: unknown ones may come at any rate."""

K = TypeVar("K", bound=Hashable)


class Histogram:
    """How many observations were how large."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By the first bound that is not smaller; the last: larger than all."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: Histogram) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, list(other.counts), strict=True)]
        self.sum += other.sum


class Counter(Generic[K]):
    """How often each was seen."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: dict[K, int] = {}

    def count(self, key: K) -> None:
        self.seen[key] = self.seen.get(key, 0) + 1

    def add(self, other: Counter[K]) -> None:
        for key, times in list(other.seen.items()):  # one step: its thread may count on meanwhile
            self.seen[key] = self.seen.get(key, 0) + times


class OfType:
    """One type of messages, as a group handles it."""

    __slots__ = ("age", "became", "dead", "seconds")

    def __init__(self) -> None:
        self.became: Counter[What] = Counter()
        self.dead: Counter[str] = Counter()
        """By their reason."""
        self.seconds = Histogram(SECONDS)
        """How long handlers took."""
        self.age = Histogram(AGES)
        """When they were first handled."""

    def add(self, other: OfType) -> None:
        self.became.add(other.became)
        self.dead.add(other.dead)
        self.seconds.add(other.seconds)
        self.age.add(other.age)


class OfPlace:
    """One group; or what a service, or a bus, publishes and requests."""

    __slots__ = ("published", "publishes", "requests", "types")

    def __init__(self) -> None:
        self.types: dict[str, OfType] = {}
        self.published: Counter[tuple[str, str]] = Counter()
        """By type and outcome."""
        self.publishes = Histogram(SECONDS)
        """How long the broker took to confirm, by call."""
        self.requests = Histogram(SECONDS)
        """How long replies took."""

    def add(self, other: OfPlace) -> None:
        for name, theirs in list(other.types.items()):
            self.types.setdefault(name, OfType()).add(theirs)
        self.published.add(other.published)
        self.publishes.add(other.publishes)
        self.requests.add(other.requests)


class Adds(Protocol):
    def add(self, other: Self, /) -> None: ...


A = TypeVar("A", bound=Adds)


class PerThread(Generic[K, A]):
    """What is counted under each key, by each thread for itself."""

    def __init__(self, make: Callable[[], A]) -> None:
        """`make`: where nothing is counted yet."""
        self._make = make
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._threads: list[tuple[threading.Thread, dict[K, A]]] = []
        self._ended: dict[K, A] = {}
        """Of threads that have ended."""

    def of(self, key: K) -> A:
        """What this thread counts there."""
        try:
            mine: dict[K, A] = self._mine.counts
        except AttributeError:
            mine = self._mine.counts = {}
            with self._lock:
                self._threads.append((threading.current_thread(), mine))
        found = mine.get(key)
        if found is None:
            found = mine[key] = self._make()
        return found

    def sum(self) -> Mapping[K, A]:
        """Of all threads. May be called from any."""
        with self._lock:
            for thread, counts in self._threads:
                if not thread.is_alive():
                    self._add(self._ended, counts)
            self._threads = [one for one in self._threads if one[0].is_alive()]
            total: dict[K, A] = {}
            for counts in (self._ended, *(counts for _, counts in self._threads)):
                self._add(total, counts)
        return total

    def _add(self, to: dict[K, A], counts: Mapping[K, A]) -> None:
        for key, theirs in list(counts.items()):
            if key not in to:
                to[key] = self._make()
            to[key].add(theirs)


class Tallies(PerThread[Place, OfPlace]):
    """All of a process."""

    def __init__(self) -> None:
        super().__init__(OfPlace)
        self._known: Collection[str] = frozenset()
        self._looked = -_LOOK_AGAIN

    def type(self, of: OfPlace, name: str) -> OfType:
        """The same for one type there."""
        found = of.types.get(name)
        if found is None:
            name = self.label(name)
            found = of.types.get(name)
            if found is None:
                found = of.types[name] = OfType()
        return found

    def label(self, name: str) -> str:
        """A message's type, if it is one that this process declares."""
        if name not in self._known:
            now = time.monotonic()
            if now < self._looked + _LOOK_AGAIN:
                return OTHER
            self._looked = now
            self._known = {route.type for _, route in every_declared()} | {REPLY_TYPE}
        return name if name in self._known else OTHER

"""Series: what is counted and timed of operations that are described alike."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from typing import NamedTuple

from opentelemetry.trace import SpanContext

from eventkit.adapter import Address
from eventkit.instruments import Place
from eventkit.otel import attributes as a

SCOPE = "eventkit"
"""The instrumentation scope of all metrics."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the conventions' own."""


class Label(NamedTuple):
    """What describes them."""

    place: Place
    address: Address | None
    """None: of several."""
    operation: str
    kind: str
    """`send`, `receive` or `process`."""
    error: str | None

    @property
    def attributes(self) -> a.Attributes:
        found = a.common(self.place, self.address, self.operation, self.kind)
        return found if self.error is None else {**found, a.ERROR: self.error}


class Example(NamedTuple):
    """One duration, and the span in which it was taken."""

    seconds: float
    at: int
    """Nanoseconds since 1970."""
    span: SpanContext


class Series:
    """So many messages, and how long the calls took: not always one for each, and not always described alike."""

    __slots__ = ("counts", "examples", "longest", "messages", "shortest", "since", "sum")

    def __init__(self) -> None:
        self.messages = 0
        self.counts = [0] * (len(BUCKETS) + 1)
        """Of durations, by the first of BUCKETS that is not smaller; the last: larger than all."""
        self.sum = 0.0
        self.shortest, self.longest = math.inf, -math.inf
        self.since = time.time_ns()
        self.examples: dict[int, Example] = {}
        """The last one of each bucket that was in a span that is recorded."""

    def took(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds
        if seconds < self.shortest:
            self.shortest = seconds
        if seconds > self.longest:
            self.longest = seconds

    def took_in(self, span: SpanContext, seconds: float) -> None:
        """The same, in a span that is recorded."""
        self.took(seconds)
        self.examples[bisect_left(BUCKETS, seconds)] = Example(seconds, time.time_ns(), span)

    def add(self, other: Series, /) -> None:
        self.messages += other.messages
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, list(other.counts), strict=True)]
        self.sum += other.sum
        self.shortest = min(self.shortest, other.shortest)
        self.longest = max(self.longest, other.longest)
        self.since = min(self.since, other.since)
        self.examples |= other.examples.copy()

"""Metrics: how many messages, and how long, by OpenTelemetry's conventions for messaging.

Counts are kept here and read when they are collected: to tell the SDK of each would cost more than all else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import MeterProvider, Observation

from eventkit.adapter import Address, Message
from eventkit.instruments import Attempt, Handling, Instrument, Place, Sending
from eventkit.otel import attributes as a
from eventkit.watching import Happened, What

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the conventions' own."""
_FAILURES = frozenset({What.RETRIED, What.HELD, What.FAILED, What.DEAD})


class _Label(NamedTuple):
    place: Place
    address: Address | None
    operation: str
    kind: str
    error: str | None


class Metrics(Instrument):
    """Counters and histograms of what goes through a bus. One may serve several."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        """`provider`: None is the global one, also one that is set later."""
        meter = metrics.get_meter("eventkit", version("faststream-eventkit"), provider, a.SCHEMA)
        self._sent: Counter[_Label] = Counter()
        self._consumed: Counter[_Label] = Counter()
        self._attributes: dict[_Label, a.Attributes] = {}
        meter.create_observable_counter(
            "messaging.client.sent.messages",
            [lambda _: self._observe(self._sent)],
            "{message}",
            "Messages that were attempted to be sent to the broker",
        )
        meter.create_observable_counter(
            "messaging.client.consumed.messages",
            [lambda _: self._observe(self._consumed)],
            "{message}",
            "Messages that were handed to a handler, each attempt",
        )
        self._operation = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of a call to the broker",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._process = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of a call of a handler, with what goes out afterwards",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def sending(self, place: Place, messages: Sequence[Message], forwarded: bool) -> Sending | None:
        return _Sending(self, place, messages)

    def sent(self, place: Place, messages: Sequence[Message], answers: Sequence[Exception | None], took: float) -> None:
        failed = None
        for message, answer in zip(messages, answers, strict=True):
            error = None if answer is None else a.error_type(answer)
            failed = failed or error
            self._sent[_Label(place, _bounded(message.address), a.verb(message.address), "send", error)] += 1
        address = a.only(messages)
        label = _Label(place, address and _bounded(address), a.verb(messages[0].address), "send", failed)
        self._operation.record(took, self._described(label))

    def handling(self, place: Place, attempts: Sequence[Attempt]) -> Handling | None:
        return _Handling(self, place, attempts)

    def handled(
        self, place: Place, attempts: Sequence[Attempt], endings: Sequence[Happened | None], took: float
    ) -> None:
        failed = None
        for attempt, ending in zip(attempts, endings, strict=True):
            error = None
            if ending is not None and ending.error is not None and ending.what in _FAILURES:
                error = a.error_type(ending.error)
                failed = failed or error
            self._consumed[_Label(place, attempt.delivery.message.address, "process", "process", error)] += 1
        address = a.only([attempt.delivery.message for attempt in attempts])
        self._process.record(took, self._described(_Label(place, address, "process", "process", failed)))

    def replied(self, place: Place, reply: Message, seconds: float) -> None:
        label = _Label(place, _bounded(reply.address), "receive", "receive", None)
        self._consumed[label] += 1
        self._operation.record(seconds, self._described(label))

    def _observe(self, counts: Counter[_Label]) -> Iterable[Observation]:
        return [Observation(count, self._described(label)) for label, count in counts.copy().items()]

    def _described(self, label: _Label) -> a.Attributes:
        found = self._attributes.get(label)
        if found is None:
            found = a.common(label.place, label.address, label.operation, label.kind)
            if label.error is not None:
                found[a.ERROR] = label.error
            self._attributes[label] = found
        return found


class _Sending:
    def __init__(self, metrics: Metrics, place: Place, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._metrics = metrics
        self._place = place
        self._began = time.perf_counter()

    def ended(self, answers: Sequence[Exception | None]) -> None:
        self._metrics.sent(self._place, self.messages, answers, time.perf_counter() - self._began)


class _Handling:
    __slots__ = ("_attempts", "_began", "_metrics", "_place")

    def __init__(self, metrics: Metrics, place: Place, attempts: Sequence[Attempt]) -> None:
        self._metrics = metrics
        self._place = place
        self._attempts = attempts
        self._began = time.perf_counter()

    def ended(self, endings: Sequence[Happened | None]) -> None:
        self._metrics.handled(self._place, self._attempts, endings, time.perf_counter() - self._began)


def _bounded(address: Address) -> Address:
    """There is one reply address for each bus: they are all counted as one."""
    return Address("reply", "") if address.kind == "reply" else address

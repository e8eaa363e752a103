"""Metrics: how many messages, and how long, by OpenTelemetry's conventions for messaging.

All is counted here and read when it is collected: to tell the SDK of each message would cost more than all else. Its
histograms can only be told of each; so durations are kept here, too, where a `Reader` exports them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram, MeterProvider, Observation

from eventkit.adapter import Address, Message
from eventkit.instruments import Attempt, Brief, Handling, Place, Sending
from eventkit.observed import EVERY, Observing
from eventkit.otel import attributes as a
from eventkit.otel import gauges
from eventkit.otel.series import BUCKETS, SCOPE, Label, Series
from eventkit.tallies import PerThread
from eventkit.watching import Happened, What

if TYPE_CHECKING:
    from eventkit.otel.reader import Reader

_FAILURES = frozenset({What.RETRIED, What.HELD, What.FAILED, What.DEAD})


class Duration(NamedTuple):
    """A histogram of the conventions."""

    name: str
    description: str


_CALL = Duration("messaging.client.operation.duration", "Duration of a call to the broker")
_HANDLING = Duration("messaging.process.duration", "Duration of a call of a handler, with what goes out afterwards")
DURATIONS = {"send": _CALL, "receive": _CALL, "process": _HANDLING}
"""By the kind of the operation."""


class Metrics(Observing):
    """Counters and histograms of what goes through a bus. One may serve several."""

    def __init__(
        self, provider: MeterProvider | None = None, *, reader: Reader | None = None, backlog_every: timedelta = EVERY
    ) -> None:
        """`provider`: None is the global one, also one that is set later.

        `reader`: the `eventkit.otel.reader.Reader` of that provider, which exports durations at a tenth of what it
        costs to record them in the SDK, where they are recorded without it. `backlog_every`: brokers are asked for
        backlogs, and databases for outboxes, when metrics are collected, and no more often than that.
        """
        super().__init__(backlog_every)
        meter = metrics.get_meter(SCOPE, version("faststream-eventkit"), provider, a.SCHEMA)
        self._series: PerThread[Label, Series] = PerThread(Series)
        self._histograms: dict[Duration, Histogram] = {}
        """Of the SDK. Empty: the reader has them."""
        self._attributes: dict[Label, a.Attributes] = {}
        meter.create_observable_counter(
            "messaging.client.sent.messages",
            [lambda _: self._observe("send")],
            "{message}",
            "Messages that were attempted to be sent to the broker",
        )
        meter.create_observable_counter(
            "messaging.client.consumed.messages",
            [lambda _: self._observe("process", "receive")],
            "{message}",
            "Messages that were handed to a handler, each attempt",
        )
        gauges.make(meter, self._observed)
        if reader is None or not reader.take(self._series.sum):
            self._histograms = {
                one: meter.create_histogram(one.name, "s", one.description, explicit_bucket_boundaries_advisory=BUCKETS)
                for one in (_CALL, _HANDLING)
            }

    def sending(self, place: Place, messages: Sequence[Message], forwarded: bool) -> Sending | None:
        return _Sending(self, place, messages)

    def sent(self, place: Place, messages: Sequence[Message], answers: Sequence[Exception | None], took: float) -> None:
        failed = None
        counted: dict[tuple[Address, str | None], int] = {}
        for message, answer in zip(messages, answers, strict=True):
            error = None if answer is None else a.error_type(answer)
            failed = failed or error
            alike = message.address, error
            counted[alike] = counted.get(alike, 0) + 1
        for (address, error), count in counted.items():
            label = Label(place, _bounded(address), a.verb(address), "send", error)
            self._series.of(label).messages += count
        only = a.only(messages)
        self._took(Label(place, only and _bounded(only), a.verb(messages[0].address), "send", failed), took)

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
            label = Label(place, attempt.delivery.message.address, "process", "process", error)
            self._series.of(label).messages += 1
        address = a.only([attempt.delivery.message for attempt in attempts])
        self._took(Label(place, address, "process", "process", failed), took)

    def brief(self, place: Place, address: Address, type: str, handler: str) -> Brief:
        label = Label(place, address, "process", "process", None)
        series = self._series.of(label)
        keeps = series.took if not self._histograms else None

        def handled(message: Message, took: float) -> None:
            series.messages += 1
            if keeps is not None:
                keeps(took)
            else:
                self._took(label, took)

        return Brief(handled)

    def replied(self, place: Place, reply: Message, seconds: float) -> None:
        label = Label(place, _bounded(reply.address), "receive", "receive", None)
        self._series.of(label).messages += 1
        self._took(label, seconds)

    def _took(self, label: Label, seconds: float) -> None:
        if self._histograms:
            self._histograms[DURATIONS[label.kind]].record(seconds, self._described(label))
            return
        span = trace.get_current_span()
        if span.is_recording():
            self._series.of(label).took_in(span.get_span_context(), seconds)
        else:
            self._series.of(label).took(seconds)

    def _observe(self, *kinds: str) -> Iterable[Observation]:
        return [
            Observation(series.messages, self._described(label))
            for label, series in self._series.sum().items()
            if label.kind in kinds and series.messages
        ]

    def _described(self, label: Label) -> a.Attributes:
        found = self._attributes.get(label)
        if found is None:
            found = self._attributes[label] = label.attributes
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
    __slots__ = ("_attempts", "_metrics", "_place")

    def __init__(self, metrics: Metrics, place: Place, attempts: Sequence[Attempt]) -> None:
        self._metrics = metrics
        self._place = place
        self._attempts = attempts

    def ended(self, endings: Sequence[Happened | None]) -> None:
        took = time.perf_counter() - self._attempts[0].began
        self._metrics.handled(self._place, self._attempts, endings, took)


def _bounded(address: Address) -> Address:
    """There is one reply address for each bus: they are all counted as one."""
    return Address("reply", "") if address.kind == "reply" else address

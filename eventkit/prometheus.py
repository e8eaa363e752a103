"""Prometheus: what buses and services do, as metrics that it collects. `EVENTKIT_METRICS=prometheus`.

```python
async with eventkit.connect(instruments=[eventkit.prometheus.Metrics()]) as bus: ...
```

Needs the extra `prometheus`. They are told, with all else in prometheus_client's registry, at `/metrics`: of the health
port of `eventkit run`, and of Starlette and FastAPI apps. Labels are bounded: services, groups, handlers, outcomes, and
the types of messages that this process declares; all other types are `other`. None holds an id or a key.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from eventkit import headers as h
from eventkit.adapter import Address, Message
from eventkit.copies import Reason
from eventkit.errors import DeclarationError
from eventkit.instruments import Attempt, Brief, Consumers, Handling, Page, Place, Sending
from eventkit.observed import BACKLOG, EVERY, Group, Observed, Observing, Waiting
from eventkit.publishing import permanent
from eventkit.tallies import OTHER, Histogram, OfPlace, OfType, Tallies
from eventkit.watching import Happened, What

try:
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        f"eventkit.prometheus needs prometheus-client ({error}): pip install 'faststream-eventkit[prometheus]'"
    ) from error

__all__ = ["Metrics"]

_CONFIRMED, _REFUSED, _UNKNOWN = "confirmed", "refused", "unknown"
_OUTCOMES = tuple(what for what in What if what not in (What.PUBLISHED, What.SENT))


class Metrics(Observing):
    """One for a process, given to all its buses; a registry takes only one."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, backlog_every: timedelta = EVERY) -> None:
        """`backlog_every`: brokers are asked for backlogs, and databases for outboxes, when metrics are collected, and
        no more often than that."""
        super().__init__(backlog_every)
        self._tallies = Tallies()
        self._registry = registry
        try:
            registry.register(_Collector(self._tallies, self._observed))
        except ValueError as error:
            raise DeclarationError(
                f"this registry has the metrics of eventkit already ({error}): make one Metrics and give it to every "
                "bus, or give each a CollectorRegistry of its own"
            ) from error

    def happened(self, place: Place, happened: Happened) -> None:
        what = happened.what
        if what is What.PUBLISHED or what is What.SENT:
            return
        message = happened.message
        of = self._tallies.type(self._tallies.of(place), message.type)
        of.became.count(what)
        if what is What.DEAD:
            of.dead.count(message.headers.get(h.REASON, OTHER))

    def handling(self, place: Place, attempts: Sequence[Attempt]) -> Handling | None:
        mine = self._tallies.of(place)
        of: OfType | None = None
        for attempt in attempts:
            message = attempt.delivery.message
            of = mine.types.get(message.type) or self._tallies.type(mine, message.type)
            if attempt.number == 1 and (age := _age(message, time.perf_counter() - attempt.began)) is not None:
                of.age.observe(age)
        return None if of is None else _Handling(of, attempts[0].began)

    def brief(self, place: Place, address: Address, type: str, handler: str) -> Brief:
        of = self._tallies.type(self._tallies.of(place), type)
        became, seconds, ages = of.became.count, of.seconds.observe, of.age.observe

        def handled(message: Message, took: float) -> None:
            became(What.HANDLED)
            seconds(took)
            if (age := _age(message, took)) is not None:
                ages(age)

        return Brief(handled)

    def sending(self, place: Place, messages: Sequence[Message], forwarded: bool) -> Sending | None:
        return _Sending(self._tallies, self._tallies.of(place), messages)

    def replied(self, place: Place, reply: Message, seconds: float) -> None:
        self._tallies.of(place).requests.observe(seconds)

    def started(self, consumers: Consumers) -> None:
        super().started(consumers)
        for state in consumers.states():
            mine = self._tallies.of(state.place)
            for name in state.types:  # told as 0 before anything happens, or the first of each would be missed
                self._tallies.type(mine, name)

    async def page(self) -> Page:
        await self._observed.ask()
        return Page(CONTENT_TYPE_LATEST, generate_latest(self._registry))


class _Handling:
    __slots__ = ("_began", "_of")

    def __init__(self, of: OfType, began: float) -> None:
        self._of = of
        self._began = began

    def ended(self, endings: Sequence[Happened | None]) -> None:
        self._of.seconds.observe(time.perf_counter() - self._began)


class _Sending:
    __slots__ = ("_began", "_of", "_tallies", "messages")

    def __init__(self, tallies: Tallies, of: OfPlace, messages: Sequence[Message]) -> None:
        self._tallies = tallies
        self._of = of
        self.messages = messages
        self._began = time.perf_counter()

    def ended(self, answers: Sequence[Exception | None]) -> None:
        of, label = self._of, self._tallies.label
        of.publishes.observe(time.perf_counter() - self._began)
        for message, answer in zip(self.messages, answers, strict=True):
            outcome = _CONFIRMED if answer is None else _REFUSED if permanent(answer) else _UNKNOWN
            of.published.count((label(message.type), outcome))


class _Collector(Collector):
    """Writes the tallies as prometheus_client's metrics."""

    def __init__(self, tallies: Tallies, observed: Observed) -> None:
        self._tallies = tallies
        self._observed = observed

    def describe(self) -> Iterable[Metric]:
        return [*_Counted().families, *_States().families]

    def collect(self) -> Iterator[Metric]:
        counted = _Counted()
        for place, of in self._tallies.sum().items():
            counted.add(place, of)
        yield from counted.families
        states = _States()
        self._observed.ask_in_thread()
        for group in self._observed.groups():
            states.add(group)
        for outbox in self._observed.outboxes():
            states.add_outbox(outbox)
        yield from states.families


class _Counted:
    """What only grows."""

    def __init__(self) -> None:
        of_type = ["service", "group", "type"]
        self._messages = CounterMetricFamily(
            "eventkit_messages",
            "Attempts of handlers, and messages that none takes, by what became of them.",
            labels=[*of_type, "outcome"],
        )
        self._dead = CounterMetricFamily(
            "eventkit_dead_letters", "Messages that a group has given up on.", labels=[*of_type, "reason"]
        )
        self._seconds = HistogramMetricFamily(
            "eventkit_handler_seconds", "How long a handler took, with what it published, by call.", labels=of_type
        )
        self._age = HistogramMetricFamily(
            "eventkit_message_age_seconds",
            "How long ago a message was published, or due, when a handler was first tried with it.",
            labels=of_type,
        )
        self._published = CounterMetricFamily(
            "eventkit_published",
            "Messages handed to the broker: confirmed, refused, or unknown, which may or may not be there.",
            labels=["service", "type", "outcome"],
        )
        self._publishes = HistogramMetricFamily(
            "eventkit_publish_seconds", "How long the broker took to confirm, by call.", labels=["service"]
        )
        self._requests = HistogramMetricFamily(
            "eventkit_request_seconds", "How long a requester waited for a reply that came.", labels=["service"]
        )
        self._services: dict[str, OfPlace] = {}

    @property
    def families(self) -> Sequence[Metric]:
        for service, of in self._services.items():
            published = {
                (name, outcome): 0 for name, _ in of.published.seen for outcome in (_CONFIRMED, _REFUSED, _UNKNOWN)
            }
            for (name, outcome), times in {**published, **of.published.seen}.items():
                self._published.add_metric([service, name, outcome], times)
            _write(self._publishes, [service], of.publishes)
            _write(self._requests, [service], of.requests)
        self._services = {}
        return [
            self._messages,
            self._dead,
            self._seconds,
            self._age,
            self._published,
            self._publishes,
            self._requests,
        ]

    def add(self, place: Place, of: OfPlace) -> None:
        self._services.setdefault(place.service, OfPlace()).add(of)
        if place.group is None:
            return
        for name, found in of.types.items():
            labels = [place.service, place.group, name]
            for what in _OUTCOMES:
                self._messages.add_metric([*labels, what.value], found.became.seen.get(what, 0))
            for reason in Reason:
                self._dead.add_metric([*labels, reason.value], found.dead.seen.get(reason.value, 0))
            _write(self._seconds, labels, found.seconds)
            _write(self._age, labels, found.age)


class _States:
    """What is so at this moment."""

    def __init__(self) -> None:
        of_group = ["service", "group"]
        self._in_flight = GaugeMetricFamily(
            "eventkit_in_flight", "Messages that this process holds and has not settled.", labels=of_group
        )
        self._consuming = GaugeMetricFamily(
            "eventkit_consuming", "1: the group reads; 0: it does not, and health says why.", labels=of_group
        )
        self._circuits = GaugeMetricFamily(
            "eventkit_circuit_open", "1: the handler rests.", labels=[*of_group, "handler"]
        )
        self._backlog = GaugeMetricFamily(
            "eventkit_backlog",
            "What waits for the group on the broker, in messages; the same from all its replicas.",
            labels=[*of_group, "state"],
        )
        self._oldest = GaugeMetricFamily(
            "eventkit_backlog_oldest_seconds",
            "The age of the oldest message that is ready; 0: none is.",
            labels=of_group,
        )
        self._outbox = GaugeMetricFamily(
            "eventkit_outbox",
            "What stands in the outbox, in messages; the same from all its relays.",
            labels=["service", "state"],
        )
        self._outbox_oldest = GaugeMetricFamily(
            "eventkit_outbox_oldest_seconds",
            "The age of the first message that waits in the outbox; 0: none does.",
            labels=["service"],
        )

    @property
    def families(self) -> Sequence[Metric]:
        return [
            self._in_flight,
            self._consuming,
            self._circuits,
            self._backlog,
            self._oldest,
            self._outbox,
            self._outbox_oldest,
        ]

    def add(self, group: Group) -> None:
        labels = [group.place.service, group.place.group or ""]
        self._in_flight.add_metric(labels, group.in_flight)
        self._consuming.add_metric(labels, group.consuming)
        for handler, is_open in group.circuits.items():
            self._circuits.add_metric([*labels, handler], is_open)
        backlog = group.backlog
        if backlog is None:
            return
        for name in BACKLOG:
            if (count := getattr(backlog, name)) is not None:
                self._backlog.add_metric([*labels, name], count)
        if backlog.oldest is not None or backlog.ready == 0:
            self._oldest.add_metric(labels, (backlog.oldest or timedelta(0)).total_seconds())

    def add_outbox(self, outbox: Waiting) -> None:
        service = outbox.place.service
        self._outbox.add_metric([service, "waiting"], outbox.waiting)
        self._outbox.add_metric([service, "refused"], outbox.refused)
        self._outbox_oldest.add_metric([service], outbox.oldest.total_seconds())


def _write(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    buckets, total = [], 0
    for bound, count in zip((*map(repr, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    family.add_metric(labels, buckets, histogram.sum)


def _age(message: Message, before: float) -> float | None:
    """How long ago it was published, or due, whatever was later, when so many seconds ago it was first tried; None: it
    does not say."""
    headers = message.headers
    since = _time(headers.get(h.TIME))
    if h.DUE in headers and (due := _time(headers[h.DUE])) is not None:
        since = due if since is None else max(since, due)
    return None if since is None else max(time.time() - before - since.timestamp(), 0.0)


def _time(said: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(said) if said else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None

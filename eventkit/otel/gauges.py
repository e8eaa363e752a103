"""Gauges: what is so at this moment: backlogs, what is held, circuits, outboxes. The conventions name none of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

from opentelemetry.metrics import Meter, Observation

from eventkit.instruments import Place
from eventkit.observed import BACKLOG, Group, Observed, Waiting
from eventkit.otel import attributes as a


def make(meter: Meter, observed: Observed) -> None:
    """All of them, read whenever they are collected."""

    def gauge(name: str, unit: str, description: str, read: Callable[[], Iterable[Observation]]) -> None:
        def callback(_: object) -> Iterable[Observation]:
            observed.ask_in_thread()
            return list(read())

        meter.create_observable_gauge(name, [callback], unit, description)

    def of_groups(name: str, unit: str, description: str, of: Callable[[Group], Iterable[Observation]]) -> None:
        gauge(name, unit, description, lambda: (seen for group in observed.groups() for seen in of(group)))

    def of_outboxes(name: str, unit: str, description: str, of: Callable[[Waiting], Iterable[Observation]]) -> None:
        gauge(name, unit, description, lambda: (seen for outbox in observed.outboxes() for seen in of(outbox)))

    of_groups("eventkit.in_flight", "{message}", "Messages that this process holds and has not settled", _in_flight)
    of_groups("eventkit.consuming", "1", "1: the group reads; 0: it does not, and health says why", _consuming)
    of_groups("eventkit.circuit.open", "1", "1: the handler rests", _circuits)
    of_groups("eventkit.backlog", "{message}", "What waits for the group; the same from all its replicas", _backlog)
    of_groups("eventkit.backlog.oldest", "s", "The age of the oldest message that is ready; 0: none is", _oldest)
    of_outboxes("eventkit.outbox", "{message}", "What stands in the outbox; the same from all its relays", _outbox)
    of_outboxes("eventkit.outbox.oldest", "s", "The age of the first that waits in the outbox; 0: none does", _first)


def _in_flight(group: Group) -> Iterator[Observation]:
    yield Observation(group.in_flight, _of(group.place))


def _consuming(group: Group) -> Iterator[Observation]:
    yield Observation(int(group.consuming), _of(group.place))


def _circuits(group: Group) -> Iterator[Observation]:
    for handler, is_open in group.circuits.items():
        yield Observation(int(is_open), {**_of(group.place), a.HANDLER: handler})


def _backlog(group: Group) -> Iterator[Observation]:
    if group.backlog is not None:
        for state in BACKLOG:
            if (count := getattr(group.backlog, state)) is not None:
                yield Observation(count, {**_of(group.place), a.STATE: state})


def _oldest(group: Group) -> Iterator[Observation]:
    backlog = group.backlog
    if backlog is not None and (backlog.oldest is not None or backlog.ready == 0):
        yield Observation((backlog.oldest or timedelta(0)).total_seconds(), _of(group.place))


def _outbox(outbox: Waiting) -> Iterator[Observation]:
    yield Observation(outbox.waiting, {a.SERVICE: outbox.place.service, a.STATE: "waiting"})
    yield Observation(outbox.refused, {a.SERVICE: outbox.place.service, a.STATE: "refused"})


def _first(outbox: Waiting) -> Iterator[Observation]:
    yield Observation(outbox.oldest.total_seconds(), {a.SERVICE: outbox.place.service})


def _of(place: Place) -> a.Attributes:
    return {a.SYSTEM: a.system(place), a.SERVICE: place.service, a.GROUP: place.group or ""}

"""Tracing: a span for each send, handling and settlement, by OpenTelemetry's conventions for messaging.

The handling of a message is a child of what made it, also when it is tried again, or comes back from the dead letters;
that of a batch is a trace of its own with a link to each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextvars import Token
from importlib.metadata import version

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider

from eventkit.adapter import Address, Delivery, Message, Move, Release, Settlement
from eventkit.instruments import Attempt, Brief, Handling, Instrument, Place, Sending
from eventkit.otel import attributes as a
from eventkit.otel import carried
from eventkit.watching import Happened, What

_FAILURES = frozenset({What.RETRIED, What.HELD, What.FAILED, What.DEAD})


class Tracing(Instrument):
    """Spans of what goes through a bus. One may serve several."""

    def __init__(
        self, provider: TracerProvider | None = None, *, create: bool = True, ask_sampler: bool = False
    ) -> None:
        """`provider`: None is the global one, also one that is set later.

        `create`: has each message of a batch that is published a span of its own? Without, all carry the batch's.
        `ask_sampler`: of a trace that was sampled out where it began? Otherwise it is sampled out here, too, which is
        what a parent-based sampler would say, and costs little.
        """
        self._tracer = trace.get_tracer("eventkit", version("faststream-eventkit"), provider, a.SCHEMA)
        self._create = create
        self._ask_sampler = ask_sampler
        self._unsettled: dict[int, _Unsettled] = {}

    def sending(self, place: Place, messages: Sequence[Message], forwarded: bool) -> Sending | None:
        address = a.only(messages)
        if forwarded:
            return self._forward(place, messages, address)
        around = self._around(messages[0])
        if around is None:
            return None
        if isinstance(around, SpanContext):
            said = carried.written(around)
            return _Untraced([a.with_trace(message, said) for message in messages])
        each = self._create and len(messages) > 1
        kind = SpanKind.CLIENT if each else SpanKind.PRODUCER
        span = self._start(place, address, a.verb(messages[0].address), "send", around, kind, messages)
        if each and span.is_recording():
            inside = trace.set_span_in_context(span, around)
            changed = [self._made(place, message, span, inside) for message in messages]
        else:
            said = carried.written(span.get_span_context())
            changed = [a.with_trace(message, said) for message in messages]
        return _Sent(span, changed) if span.is_recording() else _Untraced(changed)

    def created(self, place: Place, message: Message) -> Message | None:
        around = self._around(message)
        if around is None:
            return None
        if isinstance(around, SpanContext):
            return a.with_trace(message, carried.written(around))
        return self._made(place, message, None, around)

    def _around(self, message: Message) -> contexts.Context | SpanContext | None:
        """In what it is made: the span that is current, else what its headers say. A span's own context where that is
        sampled out, and nothing is to be asked; None where the message carries it already."""
        current = trace.get_current_span()
        if isinstance(current, carried.SampledOut):
            return None
        ambient, parent = contexts.get_current(), current.get_span_context()
        if not parent.is_valid:
            parent = carried.read(message.headers)
            ambient = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        if parent.is_valid and not parent.trace_flags.sampled and not self._ask_sampler:
            return parent
        return ambient

    def _made(self, place: Place, message: Message, send: Span | None, inside: contexts.Context) -> Message:
        """With a context of its own."""
        span = self._start(place, message.address, "create", "create", inside, SpanKind.PRODUCER, [message])
        span.end()
        if send is not None:
            send.add_link(span.get_span_context())
        return a.with_trace(message, carried.written(span.get_span_context()))

    def _forward(self, place: Place, messages: Sequence[Message], address: Address | None) -> Sending | None:
        """They keep the context in which they were made; only those that have none get this one."""
        links = _links(messages)
        operation = a.verb(messages[0].address)
        span = self._start(place, address, operation, "send", None, SpanKind.CLIENT, messages, links)
        changed = messages
        if len(links) < len(messages):
            said = carried.written(span.get_span_context())
            changed = [m if carried.read(m.headers).is_valid else a.with_trace(m, said) for m in messages]
        return _Sent(span, changed) if span.is_recording() else _Untraced(changed)

    def handling(self, place: Place, attempts: Sequence[Attempt]) -> Handling | None:
        first = attempts[0].delivery.message.headers
        out = not self._ask_sampler and carried.sampled_out(first)
        if out and (len(attempts) == 1 or all(carried.sampled_out(one.delivery.message.headers) for one in attempts)):
            return _SampledOut(contexts.attach(trace.set_span_in_context(carried.SampledOut(first))))
        messages = [attempt.delivery.message for attempt in attempts]
        links = _links(messages)
        parent = contexts.Context()
        if len(messages) == 1 and links:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(links[0].context), parent)
        address = a.only(messages)
        span = self._start(place, address, "process", "process", parent, SpanKind.CONSUMER, messages, links)
        if span.is_recording():
            span.set_attribute(a.HANDLER, attempts[0].handler)
            if len(attempts) == 1:
                span.set_attribute(a.ATTEMPT, attempts[0].number)
            unsettled = _Unsettled(place, address, messages, span, links)
            for attempt in attempts:
                self._forget(id(attempt.arrived))  # it waited in its lane, and was not settled in between
                self._unsettled[id(attempt.arrived)] = unsettled
        return _Handled(span, contexts.attach(trace.set_span_in_context(span)))

    def brief(self, place: Place, address: Address, type: str, handler: str) -> Brief | None:
        return None if self._ask_sampler else Brief(begins=_begins_sampled_out)

    def settled(self, place: Place, arrived: Delivery, how: Settlement, error: Exception | None) -> None:
        if error is not None:
            self._settle(_Unsettled(place, arrived.message.address, [arrived.message], None, ()), _verb(how), 1, error)
            return
        unsettled = self._unsettled.pop(id(arrived), None)
        if unsettled is not None:
            unsettled.how[_verb(how)] += 1
            self._left(unsettled)

    def _forget(self, arrived: int) -> None:
        unsettled = self._unsettled.pop(arrived, None)
        if unsettled is not None:
            self._left(unsettled)

    def _left(self, unsettled: _Unsettled) -> None:
        """One less. When the last is settled, one span tells of all that were settled in the same way."""
        unsettled.left -= 1
        if not unsettled.left:
            for operation, count in unsettled.how.items():
                self._settle(unsettled, operation, count)

    def _settle(self, unsettled: _Unsettled, operation: str, count: int, error: Exception | None = None) -> None:
        parent = contexts.Context()
        if unsettled.span is not None:
            parent = trace.set_span_in_context(unsettled.span, parent)
        one = unsettled.messages if len(unsettled.messages) == 1 else ()
        links = unsettled.links if one else ()
        span = self._start(unsettled.place, unsettled.address, operation, "settle", parent, SpanKind.CLIENT, one, links)
        if not one:
            span.set_attribute(a.COUNT, count)
        if error is not None:
            _failed(span, error)
        span.end()

    def replied(self, place: Place, reply: Message, seconds: float) -> None:
        began = time.time_ns() - int(seconds * 1e9)
        links = _links([reply])
        self._start(place, reply.address, "receive", "receive", None, SpanKind.CLIENT, [reply], links, began).end()

    def _start(
        self,
        place: Place,
        address: Address | None,
        operation: str,
        kind: str,
        parent: contexts.Context | None,
        span_kind: SpanKind,
        messages: Sequence[Message],
        links: Sequence[Link] = (),
        start_time: int | None = None,
    ) -> Span:
        """`messages`: those that it is about."""
        described = a.common(place, address, operation, kind)
        if len(messages) == 1:
            described.update(a.of_message(messages[0]))
        elif messages:
            described[a.COUNT] = len(messages)
        name = operation if address is None else f"{operation} {a.destination(address)}"
        return self._tracer.start_span(name, parent, span_kind, described, links, start_time)


def _begins_sampled_out(message: Message) -> bool:
    """Its trace was dropped where it began: there is nothing to tell of it, but that its handler is to know."""
    if not carried.sampled_out(message.headers):
        return False
    contexts.attach(trace.set_span_in_context(carried.SampledOut(message.headers)))
    return True


class _Untraced:
    """Messages that carry a context that is not recorded."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages

    def ended(self, answers: Sequence[Exception | None]) -> None:
        """Nobody is told."""


class _Sent:
    def __init__(self, span: Span, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._span = span

    def ended(self, answers: Sequence[Exception | None]) -> None:
        error = next((answer for answer in answers if answer is not None), None)
        if error is not None:
            _failed(self._span, error)
        self._span.end()


class _SampledOut:
    def __init__(self, token: Token[contexts.Context]) -> None:
        self._token = token

    def ended(self, endings: Sequence[Happened | None]) -> None:
        contexts.detach(self._token)


class _Handled:
    def __init__(self, span: Span, token: Token[contexts.Context]) -> None:
        self._span = span
        self._token = token

    def ended(self, endings: Sequence[Happened | None]) -> None:
        contexts.detach(self._token)
        span = self._span
        if span.is_recording():
            if len(endings) == 1:
                span.set_attribute(a.OUTCOME, endings[0].what.value if endings[0] is not None else "released")
            for ending in endings:
                if ending is not None and ending.what in _FAILURES and ending.error is not None:
                    span.record_exception(ending.error)
                    _failed(span, ending.error)
                    break
        span.end()


class _Unsettled:
    """What was handled by one call, until it is settled."""

    __slots__ = ("address", "how", "left", "links", "messages", "place", "span")

    def __init__(
        self,
        place: Place,
        address: Address | None,
        messages: Sequence[Message],
        span: Span | None,
        links: Sequence[Link],
    ) -> None:
        self.place = place
        self.address = address
        self.messages = messages
        self.span = span
        self.links = links
        self.left = len(messages)
        self.how: Counter[str] = Counter()


def _links(messages: Sequence[Message]) -> list[Link]:
    """To what made them, where they say."""
    found: list[SpanContext] = [carried.read(message.headers) for message in messages]
    return [Link(context) for context in found if context.is_valid]


def _failed(span: Span, error: BaseException) -> None:
    kind = a.error_type(error)
    span.set_attribute(a.ERROR, kind)
    span.set_status(Status(StatusCode.ERROR, kind))


def _verb(how: Settlement) -> str:
    if isinstance(how, Move):
        return "dead-letter" if how.copy.address.kind == "dead" else "retry"
    return "release" if isinstance(how, Release) else "ack"

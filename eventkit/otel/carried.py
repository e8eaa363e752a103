"""Carried: the context of a span as CloudEvents carry it, in `traceparent` and `tracestate`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
)

from eventkit.headers import TRACEPARENT, TRACESTATE

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?").fullmatch
_SAMPLED = "13579bdf"
"""The last digit of flags that say so."""


def read(headers: Mapping[str, str]) -> SpanContext:
    """The context in which the message was made; an invalid one where it says none, or nonsense."""
    found = _FORM(headers.get(TRACEPARENT, ""))
    if found is None:
        return INVALID_SPAN_CONTEXT
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return INVALID_SPAN_CONTEXT
    said = headers.get(TRACESTATE)
    state = TraceState.from_header([said]) if said else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)


def written(context: SpanContext) -> Mapping[str, str]:
    """As headers."""
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header() if context.trace_state else ""
    return {TRACEPARENT: parent, TRACESTATE: state} if state else {TRACEPARENT: parent}


def sampled_out(headers: Mapping[str, str]) -> bool:
    """Was its trace dropped where it began? False where it has none."""
    parent = headers.get(TRACEPARENT)
    return parent is not None and len(parent) == 55 and parent[-1] not in _SAMPLED and parent[52] == "-"


class SampledOut(NonRecordingSpan):
    """The span of a message whose trace is not recorded. Its context is read only if anybody asks for it."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self._headers = headers
        self._found: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        if self._found is None:
            self._found = read(self._headers)
        return self._found
